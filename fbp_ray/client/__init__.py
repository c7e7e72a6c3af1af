"""A client of the service, from Python.

    from fbp_ray.client import Client

    with Client("http://127.0.0.1:8000") as service:
        image = service.reconstruct(sinogram).image
        job = service.submit("train", {"recipe": "quickstart"})
        service.wait(job.id)
        service.activate_job(job.id)

`AsyncClient` has the same methods for programs with an event loop.

documents   what callers get
steps       what the protocol asks of a client: send, read a line, wait a moment, tell
protocol    requests and what their answers mean, as sequences of steps; nothing here touches a network
follow      jobs and logs while they grow, across lost connections
sync, asynchronous    the two clients: they carry steps out
display     the progress of a job, on a terminal and elsewhere
"""

from __future__ import annotations

from fbp_ray.client.asynchronous import AsyncClient
from fbp_ray.client.documents import Job, Model, Progress, Reconstruction
from fbp_ray.client.sync import Client
from fbp_ray.errors import ServiceError

__all__ = ["AsyncClient", "Client", "Job", "Model", "Progress", "Reconstruction", "ServiceError"]
