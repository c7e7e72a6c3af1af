"""Training: `python -m fbp_ray.train` starts a Ray `TorchTrainer` whose workers run `loop.train`.

__main__  the program: options, run folder, progress
loop      the training loop itself, which knows nothing of Ray
start     where a run starts: its last finished epoch, another run's checkpoint, or nothing
classic   the classic FBP that every epoch is shown beside
process   what the processes that train together tell each other
saving    checkpoints and the history, written behind the loop
watching  curves and pictures, drawn behind the loop
cluster   Ray: joining or starting it, and how many workers with how many processors
launch    Ray: the training on its workers; trainer: without helpers of Ray that it has no use for
worker    Ray: what each worker does before and after the loop
events    Ray: from the workers to the driver
failures  Ray: errors that name what went wrong
progress  what the terminal shows; table: its live table
"""
