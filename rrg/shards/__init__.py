"""Shards: ordinary WebDataset tars with a byte index, their manifest, the global order of samples and their reader."""
