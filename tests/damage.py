"""Shards with damage in known places, for tests of what happens then."""

from __future__ import annotations

import json
import shutil
from pathlib import Path


def damaged_copy(shards: Path, target: Path, *members: str) -> Path:
    """A copy of `shards` in which each of `members` (`S0003.0.jpg`, `S0003.json`) has its second half overwritten with zeros."""
    shutil.copytree(shards, target)
    for member in members:
        damage(target, member)
    return target


def damage(shards: Path, member: str) -> None:
    """Overwrite the second half of one member in place; sizes stay."""
    study, _, suffix = member.partition(".")
    for index in shards.glob("*.index.jsonl"):
        for line in index.read_text().splitlines()[1:]:
            record = json.loads(line)
            if record.get("id") == study:
                start, size, _ = record["members"][suffix]
                with (shards / index.name.replace(".index.jsonl", ".tar")).open("r+b") as tar:
                    tar.seek(start + size // 2)
                    tar.write(bytes(size - size // 2))
                return
    raise KeyError(member)
