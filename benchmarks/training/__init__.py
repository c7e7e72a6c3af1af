"""How fast a training epoch is under Ray, beside the same loop under torchrun: `python -m benchmarks.training`.

__main__  the program
runs      starts the trainings and takes their figures from what they leave
plain     the same loop without Ray, for torchrun
report    the tables
on_gpu    the loop alone on a GPU, without Ray: samples/s, memory, what a step's time goes to
"""
