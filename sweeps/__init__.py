"""Sweeps as programs: each is a search space. `python sweeps/NAME.py --help`."""
