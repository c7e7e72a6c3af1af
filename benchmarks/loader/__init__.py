"""How fast samples are read, beside h5py alone and beside what a GPU takes.

python -m benchmarks.loader [--quick] [--out DIR]
"""
