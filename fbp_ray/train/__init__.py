"""Training: `python -m fbp_ray.train` starts a Ray `TorchTrainer` whose workers run `loop.train`.

__main__  the program: options, run folder, progress
launch    Ray: how many workers, the trainer, errors that name what went wrong
loop      the training loop itself, which knows nothing of Ray
progress  what the terminal shows
"""
