"""Sweeps: one recipe with many settings and seeds, as a job array that is run, watched, mended and gathered with few words."""
