"""From a sweep file and overrides to a checked sweep.

`key=value` on a command line is the sweep's where its first word is a key of a sweep file (`slurm.time=60`, `seeds=[1,2]`), and
every trial's recipe's otherwise (`data.shards=shards/iu`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from rrg.config.load import load, override
from rrg.config.schema import flatten, plain
from rrg.errors import UserError, nearest
from rrg.sweep.options import Sweep

_OWN = {field.name for field in dataclasses.fields(Sweep)}


@dataclass(frozen=True)
class Asked:
    """A sweep as asked for. `shared` is laid over the recipe in every trial: `key=value`, the file's first."""

    path: Path
    sweep: Sweep
    shared: tuple[str, ...]
    text: str

    @property
    def name(self) -> str:
        return self.sweep.name or self.path.stem


def read_sweep(file: str | Path, overrides: Sequence[str] = ()) -> Asked:
    """Read a sweep file (a path, or a name under configs/sweeps) with `key=value` laid over it.

    Raises:
        UserError: no such file, not YAML, an unknown key, a wrong type, with the file's name.
    """
    path = find_sweep(file)
    own = [text for text in overrides if text.partition("=")[0].partition(".")[0].strip() in _OWN]
    rest = [override(text)[0] for text in overrides if text not in own]
    try:
        loaded = load(Sweep, path, own)
    except UserError as error:
        raise UserError(str(error) if str(error).startswith(str(path)) else f"sweep {path}: {error}") from None
    nulls = [name for name, difference in (loaded.data.get("variants") or {}).items() if difference is None]
    if nulls:
        raise UserError(f"sweep {path}: variants.{nulls[0]}: nothing; write {{}} for the recipe as it is, or take the name out")
    # The typed mapping has dropped its nulls, which here take an entry out of the recipe.
    given = loaded.data.get("overrides") or {}
    further = dict(item for text in rest for item in flatten(override(text)[1]))
    everything = {**plain(loaded.value), "name": loaded.value.name or path.stem, "overrides": {**given, **further}}
    return Asked(path, loaded.value, (*words(given), *rest), OmegaConf.to_yaml(OmegaConf.create(everything)))


def find_sweep(file: str | Path) -> Path:
    """The file of a sweep, by path or by name. Raises UserError where there is none."""
    given = Path(file)
    if given.is_file():
        return given
    known = dict(_known())
    if given.stem in known and str(given.parent) in (".", "sweeps", "configs/sweeps"):
        return known[given.stem]
    hint = nearest(given.stem, known) if known else "no configs/sweeps folder was found here"
    raise UserError(f"sweep {str(file)!r}: no such file; {hint}")


def _known() -> Iterator[tuple[str, Path]]:
    roots = (Path(__file__).resolve().parents[2] / "configs", Path("configs"))  # the one here is the later, and counts
    return ((path.stem, path) for root in roots for path in sorted((root / "sweeps").glob("*.yaml")))


def words(difference: Mapping[str, Any] | None) -> list[str]:
    """`key=value` of a mapping with dotted keys, as on a command line: JSON is YAML."""
    import json

    return [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in (difference or {}).items()]


def read_resources(path: Path, overrides: Sequence[str]) -> Sweep:
    """The sweep of a folder, with other resources. Raises UserError for an override that would change the trials."""
    for text in overrides:
        key = text.partition("=")[0].strip()
        if key.partition(".")[0] not in ("parallel", "processes", "gpus", "slurm"):
            raise UserError(f"override {key}: the trials stay what they are; parallel, processes, gpus and slurm.* may change")
    return load(Sweep, path, overrides).value
