"""From a recipe to running processes."""

MISTAKE, INTERRUPTED = 2, 75  # exit codes of `rrg`: a wrong setting; asked to leave, with a checkpoint written
