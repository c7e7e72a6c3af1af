"""The doctor: `python -m fbp_ray.doctor` says what is wrong with a machine or a cluster, and the way out.

__main__  the program: options, exit code
checks    all checks in their order; finding: what one of them says
machines  asking one machine, or the driver and all others; nodes: those of a Ray cluster
versions  the same versions and the same code on every machine
hardware  processors, GPUs, room on disks
network   the interface between the machines, and whether they reach each other over it
storage   one folder for the runs, seen by all
data      the training data, the same on every machine
kernel    the projector computes what it should; speed: as fast as it should
report    what the terminal, a log or a program gets
"""
