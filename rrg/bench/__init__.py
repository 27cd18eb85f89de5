"""Measurements of rrg beside what others use, for `rrg bench`: one run, the same inputs, interleaved turns, ratios."""
