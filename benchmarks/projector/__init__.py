"""How fast projection, backprojection and FBP are beside other projects, in the geometry of LoDoPaB-CT.

python -m benchmarks.projector [--quick] [--threads N] [--out DIR]
"""
