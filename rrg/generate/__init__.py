"""Writing reports for a split, each study exactly once."""
