"""Evaluation: `python -m fbp_ray.evaluate` scores a trained model beside the classic FBP, in figures and pictures.

__main__  the program: options, table, files
scores    the figures of merit of every method on every image
"""
