"""A trained run as a folder to hand on: what was trained, what it needs beside that, and a model card filled from the run.

`load(FOLDER)` gives the system that wrote the run's reports; `rrg export` and `rrg generate` are the same on the command line.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rrg.system import System


def load(folder: str | Path, overrides: Sequence[str] = ()) -> System:
    """The system of an export: its files, base models and n-gram table checked by digest; in evaluation mode, on the CPU or GPU
    of this process.

    `overrides` are `key=value`: `generate.*`, where data lie (`data.shards=…`), and `vision.name`, `language.name` for base
    models that lie in a folder of this machine.

    Raises:
        UserError: no export, an edited or missing file, another base model than it was trained with.
    """
    from rrg.export.loading import load_export

    return load_export(Path(folder), overrides)
