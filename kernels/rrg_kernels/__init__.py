"""Kernels for report generators: a leaf package that imports nothing of rrg."""
