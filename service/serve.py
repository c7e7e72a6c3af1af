"""`python -m service.serve` answers reconstructions from several replicas of the service, with Ray Serve.

    RAY_ADDRESS=HOST:6379 python -m service.serve --replicas.min 1 --replicas.max 4 --replicas.gpus 1
    python -m service.serve --help

It joins the cluster that RAY_ADDRESS names, or starts one of this machine alone. The settings are those of `python -m
service`, given in the same ways, and `replicas`. One process with `python -m service` answers faster than one replica:
a request takes one hop less. Replicas pay where there are several machines, or several GPUs.

- Batches: each replica gathers its own, from the requests that Ray Serve sends to it; none waits for those of others.
- Models: replicas on a machine share its state folder. One that is activated on any of them, or by a `python -m
  service` with the same state folder, serves on the others within --models.look_seconds. The record in that folder is
  SQLite and cannot be shared over a network: on several machines each has its own, and --models.storage on storage
  that all of them read gives all of them the newest completed run as `best`.
- Jobs: replicas run none, and answer 501. They come and go with the load, and a job needs somebody who looks after it
  all the time: run one `python -m service` on another port beside them.
- A replica gets requests when its models are loaded and warm. One that is to go, because there is less to do or the
  service ends (Ctrl-C, SIGTERM), gets no more and finishes what it has.
- Logs are written where Ray has its own: /tmp/ray/session_latest/logs on each machine.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

from pydantic import Field, model_validator

from fbp_ray.cli import run_program
from fbp_ray.errors import ConfigError, RunError
from fbp_ray.settings import Frozen, this_python
from fbp_ray.storage import absolute
from service.settings import Count, Seconds, Settings, read_tree

if TYPE_CHECKING:
    from fastapi import FastAPI

APPLICATION = "fbp-ray"
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class ReplicasConfig(Frozen):
    """How many replicas answer, and what each of them has."""

    min: Count = Field(default=1, description="the fewest replicas")
    max: Count = Field(default=1, description="the most replicas; there are as many as the requests need")
    cpus: Amount = Field(default=1, description="processors of each, which is also its number of threads")
    gpus: Amount = Field(default=0, description="GPUs of each; 0.5 lets two share one")
    target_ongoing_requests: Annotated[float, Field(gt=0)] = Field(
        default=8, description="requests at a time that a replica should have: more of them start another replica"
    )
    max_ongoing_requests: Count = Field(
        default=64, description="requests at a time that a replica gets; the others wait for one that has room"
    )
    max_queued_requests: Count = Field(default=256, description="requests that may wait so; then there is 503 at once")
    upscale_seconds: Seconds = Field(default=10, description="that the load must last before there are more replicas")
    downscale_seconds: Seconds = Field(default=300, description="that it must be gone before there are fewer")

    @model_validator(mode="after")
    def _check(self) -> ReplicasConfig:
        if self.min > self.max:
            raise ValueError(f"min is {self.min}, more than max, {self.max}")
        if self.target_ongoing_requests > self.max_ongoing_requests:
            raise ValueError(
                f"target_ongoing_requests is {self.target_ongoing_requests:g}, more than max_ongoing_requests, "
                f"{self.max_ongoing_requests}: no replica would ever have as many"
            )
        return self


class ServeSettings(Settings):
    """Reconstructs sinograms over HTTP from several replicas, with Ray Serve. Each setting is also an environment
    variable: --replicas.max is FBPRAY_REPLICAS__MAX; a file .env is read too."""

    replicas: ReplicasConfig = ReplicasConfig()


class NoJobs:
    """In place of the jobs of a replica: it runs none, and says where they go."""

    def start(self) -> None:
        """There is nothing to start."""

    def close(self) -> None:
        """There is nothing to end."""

    def __getattr__(self, name: str) -> NoReturn:
        from service.problems import Problem

        raise Problem(
            501,
            "the replicas of Ray Serve run no jobs; send them to `python -m service` on another port of the machine "
            "that has the state folder. The models that are activated there serve here too",
        )


class Replica:
    """The application where Ray Serve has placed it. Ray Serve sends requests when its models are loaded and warm.

    Args:
        settings: of the service.
    """

    def __init__(self, settings: Settings) -> None:
        from service.app import create_app  # here, not above: a wrong option is known before torch is imported
        from service.observability import log_to_stderr

        log_to_stderr(settings.log)
        self.application = create_app(settings, NoJobs())
        self.application.state.registry.load()

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Ray Serve asks for the application by this name."""
        return self.application

    async def check_health(self) -> None:
        """Raises RuntimeError when the replica must be replaced."""
        if not self.application.state.batcher.is_alive:
            raise RuntimeError("the thread that computes batches has ended")


def main(argv: Sequence[str]) -> None:
    """Deploys and waits until it is told to end; then ends what it deployed."""
    settings = read_tree(ServeSettings, argv, "python -m service.serve")
    if settings.port == 0:
        raise ConfigError("--port 0 is for `python -m service`; Ray Serve needs a port that is free on every machine")
    import_serve()
    from fbp_ray.train.cluster import cluster

    end = threading.Event()
    with cluster():
        for number in (signal.SIGINT, signal.SIGTERM):  # only now: Ray takes them over when it starts
            signal.signal(number, lambda *_: end.set())
        with deployed(settings):
            print(f"ready: http://{settings.host}:{settings.port}", flush=True)
            end.wait()


@contextmanager
def deployed(settings: ServeSettings) -> Iterator[None]:
    """Deploys the application, while the block runs, on the cluster that this process has joined.

    Raises:
        ConfigError: Ray Serve is not installed, or its proxies are there already and there is no token.
        RunError: no replica could be started.
    """
    serve = import_serve()
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    runs_already = bool(serve.status().proxies)
    if runs_already and not (settings.access.reconstruct or settings.access.operate):
        raise ConfigError(
            "Ray Serve runs on this cluster already, and its proxies listen where it was told to: other machines may "
            "reach them. Set a token (FBPRAY_ACCESS__OPERATE_FILE), or end it with `serve shutdown`"
        )
    try:
        if not runs_already:
            serve.start(http_options={"host": settings.host, "port": settings.port})
        serve.run(application(settings), name=APPLICATION, route_prefix="/")
        yield
    except (RuntimeError, TimeoutError) as error:
        raise RunError(f"no replica of the service could be started: {error}") from None
    finally:
        serve.delete(APPLICATION)  # waits for the requests that replicas have; shutdown alone would drop them
        if not runs_already:
            serve.shutdown()


def application(settings: ServeSettings) -> Any:
    """What Ray Serve deploys."""
    serve = import_serve()
    replicas = settings.replicas
    deployment = serve.deployment(
        serve.ingress()(Replica),
        name="service",
        ray_actor_options={
            "num_cpus": replicas.cpus,
            "num_gpus": replicas.gpus,
            # torch's threads would spin while the server needs a processor
            "runtime_env": {"env_vars": {"OMP_WAIT_POLICY": "PASSIVE"}},
        },
        autoscaling_config={
            "min_replicas": replicas.min,
            "max_replicas": replicas.max,
            "target_ongoing_requests": replicas.target_ongoing_requests,
            "upscale_delay_s": replicas.upscale_seconds,
            "downscale_delay_s": replicas.downscale_seconds,
        },
        max_ongoing_requests=replicas.max_ongoing_requests,
        max_queued_requests=replicas.max_queued_requests,
        graceful_shutdown_timeout_s=settings.limits.request_seconds + 1,
        max_constructor_retry_count=3,
    )
    return deployment.bind(replica_settings(settings))


def replica_settings(settings: ServeSettings) -> Settings:
    """The service's settings, with places that mean the same in a process that runs in another folder."""
    models, jobs = settings.models, settings.jobs
    own = {name: getattr(settings, name) for name in Settings.model_fields}
    own["state"] = settings.state.absolute()
    own["models"] = models.model_copy(update={"storage": absolute(models.storage)})
    own["places"] = tuple(absolute(place) for place in (*settings.places, "runs", "data"))
    own["jobs"] = jobs.model_copy(update={"storage": absolute(jobs.storage)})
    return Settings(**own)


def import_serve() -> Any:
    """Ray Serve; raises ConfigError where it is not installed."""
    try:
        from ray import serve
    except ImportError as error:
        raise ConfigError(
            f"Ray Serve cannot be imported ({str(error).splitlines()[0]}); install what it needs with "
            f"{this_python()} -m pip install 'fbp-ray[serve]', or use `python -m service`, which needs no "
            "more than there is"
        ) from None
    return serve


if __name__ == "__main__":
    # Replicas import Replica by the name of its module, which is `__main__` in this one alone.
    from service import serve as program

    run_program(program.main)
