"""Kernels timed beside their references, liger-kernel, flash-attn and SDPA, on whatever device is present.

A kernel package with a module `contenders` has a function `matches(device)` that lists what is to be compared there. Contenders
take turns (A B C A B C …), so that a busy machine slows all of them alike; peak memory is measured in a pass of its own.
"""
