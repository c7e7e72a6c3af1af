"""How good the images of every kind of window are, and what they cost: `python -m benchmarks.quality --data DIR`."""
