"""Training, sweep and evaluation jobs, through Ray's job submission.

documents   what callers send and get
commands    the fixed table of what a job may be; how its configuration reaches it
entry       what runs inside of a job
checks      what is refused before anything is submitted
store       the service's own record of jobs
ray_jobs    a cluster's job interface, over HTTP
cluster     where jobs go: what the others need of a cluster, and the one that is given
head        the one that the service starts on this machine
dispatcher  the thread that submits what waits and looks at what runs
logs        what jobs have printed, kept
progress    how far a job is, told from its folder
manager     Jobs: all of these together
routes, streams   over HTTP
"""

from __future__ import annotations

from service.jobs.manager import Jobs
from service.jobs.routes import router

__all__ = ["Jobs", "router"]
