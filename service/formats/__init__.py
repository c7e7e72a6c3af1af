"""Sinograms in, images out, in the formats that people have."""
