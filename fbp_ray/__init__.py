"""Learnable filtered backprojection for low-dose CT: train on a laptop or a cluster, tune, serve."""
