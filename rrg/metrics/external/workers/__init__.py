"""Scripts that run under the interpreter of a metric's environment, on its packages alone; nothing of rrg is imported there."""
