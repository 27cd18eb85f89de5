"""From a recipe to running processes."""

MISTAKE, INTERRUPTED = 2, 75  # exit codes of `rrg`: a wrong setting; asked to leave, with a checkpoint written
EXIT_CODES = "RRG_EXIT_CODES"  # names the folder in which each process of a node leaves its exit code
