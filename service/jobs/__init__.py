"""Training, sweep and evaluation jobs, through Ray's job submission.

documents   what callers get to see of a job, and how far it is
store       the service's own record of jobs, and of what they print
program     what a job does: its request, what is refused, and what runs inside it
cluster     a Ray cluster as a place for jobs
head        the cluster that the service starts on this machine
dispatcher  the thread that submits what waits and looks at what runs
manager     Jobs: all of these together
looks       one look at a job for all who follow it
routes      over HTTP

This file imports nothing, so that `python -m service.jobs.program` is the first to import that module.
"""
