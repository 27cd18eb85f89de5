"""A trained connector as a file: what a stage leaves (`stages/NAME/connector.safetensors`), and what another one starts from.

Names are those of a checkpoint (`connector.…`); the file's header carries the sha-256 of its tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from rrg.digest import digest_tensors
from rrg.errors import UserError
from rrg.shards.storage import replace_file

FILE = "connector.safetensors"


def save_connector(connector: nn.Module, path: Path) -> str:
    """Write every tensor of `connector`, whole or not at all; returns the digest. Raises UserError where the disk does not take
    it."""
    tensors = _tensors(connector)
    digest = digest_tensors(tensors.items())
    try:
        replace_file(path, save({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, {"sha256": digest}))
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None
    return digest


def start_from(connector: nn.Module, weights: str, run: Path | None) -> str:
    """Give `connector` the tensors that `weights` names: `stage:NAME` of the run directory, or a file. Returns their digest.

    Raises:
        UserError: no such file, a damaged one, or names and shapes that are not this connector's, both ways.
    """
    path = _file(weights, run)
    theirs, digest = _read(path, weights)
    ours = _tensors(connector)
    problems = [
        *(f"{name} is missing there" for name in sorted(ours.keys() - theirs.keys())),
        *(f"{name} is not in this recipe's connector" for name in sorted(theirs.keys() - ours.keys())),
        *(
            f"{name} is {list(theirs[name].shape)} there and {list(ours[name].shape)} in this recipe"
            for name in sorted(ours.keys() & theirs.keys())
            if ours[name].shape != theirs[name].shape
        ),
    ]
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise UserError(
            f"connector.weights: {weights!r} does not fit: {problems[0]}{more}; give both the same connector settings"
        )
    with torch.no_grad():
        for name, tensor in ours.items():
            tensor.copy_(theirs[name])
    return digest


def set_up(connector: nn.Module | None, options: Any, run: Path | None, *, meta: bool) -> str | None:
    """Give a new connector the weights its options name, and freeze it where they say so; the digest of what was taken over.

    Raises UserError as `start_from` does.
    """
    if connector is None:
        return None
    weights = getattr(options, "weights", "")
    digest = start_from(connector, weights, run) if weights and not meta else None
    if getattr(options, "train", "full") == "frozen":
        connector.requires_grad_(False)
    return digest


def _tensors(connector: nn.Module) -> dict[str, Tensor]:
    return {f"connector.{name}": tensor for name, tensor in connector.state_dict().items()}


def _file(weights: str, run: Path | None) -> Path:
    if not weights.startswith("stage:"):
        path = Path(weights).expanduser()
        if not path.is_file():
            raise UserError(f"connector.weights: {weights!r} is no file; name a {FILE}, or stage:NAME")
        return path
    root = run or Path()
    # A stage that is opened as a run of its own lies inside the run it belongs to.
    paths = [owner / "stages" / weights.removeprefix("stage:") / FILE for owner in (root, root.parent.parent)]
    for path in paths:
        if path.is_file():
            return path
    raise UserError(f"connector.weights: {weights!r}: no such stage has left a connector at {paths[0]}; see `stages:`")


def _read(path: Path, weights: str) -> tuple[Mapping[str, Tensor], str]:
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            written = (file.metadata() or {}).get("sha256")
    except (OSError, SafetensorError):
        raise UserError(f"connector.weights: {weights!r}: {path} is damaged; train its stage anew") from None
    digest = digest_tensors(tensors.items())
    if digest != written:
        raise UserError(
            f"connector.weights: {weights!r}: the content of {path} is not what was written (sha256 {digest[:12]}, written as "
            f"{str(written)[:12]}); put the former file back, or train its stage anew"
        )
    return tensors, digest
