"""One self-contained HTML page of a run directory: scores beside their controls, curves, films with both reports."""
