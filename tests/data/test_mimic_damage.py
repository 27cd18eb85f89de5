"""A seeded campaign of damaged and hostile inputs through the whole preparation: listed or refused in a line, never a crash.

RRG_DAMAGED scales it up: 250 is the figure in docs/mimic_cxr.md.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
from collections import Counter
from pathlib import Path

import damaged_trees
import numpy as np
import pytest
from damaged_trees import BYTES, spoil
from mimic_tree import CASES, write_tree

from rrg.data.prepare.mimic_cxr import MimicChoices, MimicFiles, read_mimic_cxr
from rrg.errors import UserError
from rrg.shards.verify import verify_shards
from rrg.shards.writer import ImagePolicy, build_shards

INPUTS = int(os.environ.get("RRG_DAMAGED", "75"))
STUDIES = {f"s{case.study}" for case in CASES}
# Of every 25 inputs: eight films in JPEG, eight in DICOM, four tables, three archives, one text, one annotation or list.
KINDS = [f"jpeg-{how}" for how in ("cut", "cut", "flipped", "flipped", "overwritten", "replaced")]
KINDS += ["jpeg-bomb", "dicom-bomb", "dicom-header", "dicom-header", "dicom-nested"]
KINDS += [f"dicom-{how}" for how in ("cut", "cut", "flipped", "flipped", "overwritten", "replaced")]
KINDS += ["table", "table", "packed-table", "zip-names", "zip-members", "zip-bytes", "report", "annotation-or-list"]
BATCHES = -(-INPUTS // 25)


def film_of(root: Path, number: int) -> Path:
    return sorted(root.glob("files/*/*/*/*.jpg"))[number % 5]


def damage(root: Path, kind: str, number: int, chance: np.random.Generator) -> MimicFiles:
    """Damage one file of the tree; where everything lies then."""
    film = film_of(root, number)
    if kind == "jpeg-bomb":
        bombs = (damaged_trees.jpeg_bomb, damaged_trees.scan_bomb, damaged_trees.png_bomb)
        film.write_bytes(bombs[number // 25 % 3](chance))
    elif kind.startswith("jpeg-"):
        spoil(film, kind.removeprefix("jpeg-"), chance)
    elif kind.startswith("dicom-"):
        for path in root.glob("files/*/*/*/*.jpg"):
            path.unlink()
            path.with_suffix(".dcm").write_bytes(damaged_trees.dicom_film(chance))
        film = film.with_suffix(".dcm")
        if kind.removeprefix("dicom-") in BYTES:
            spoil(film, kind.removeprefix("dicom-"), chance)
        else:
            made = {"dicom-bomb": damaged_trees.dicom_bomb, "dicom-header": damaged_trees.dicom_header}
            film.write_bytes(made.get(kind, damaged_trees.nested_dicom)(chance))
    elif kind == "zip-bytes":
        spoil(root / "mimic-cxr-reports.zip", list(BYTES)[number % len(BYTES)], chance)
    elif kind == "annotation-or-list":
        if number % 2:
            return MimicFiles(root, annotation=damaged_trees.annotation(root, chance))
        return MimicFiles(root, exceptions=damaged_trees.exceptions(root, chance))
    else:
        getattr(damaged_trees, kind.replace("-", "_"))(root, chance)
    return MimicFiles(root)


def prepared(files: MimicFiles, out: Path) -> str:
    """What became of it: `refused`, `listed` or `taken`; checks whatever must hold."""
    try:
        collection = read_mimic_cxr(files, MimicChoices(views="all"), max_damaged=9)
        build_shards(
            out,
            collection.studies,
            source=collection.source,
            policy=ImagePolicy(16),
            parser_version=collection.parser_version,
            excluded=collection.excluded,
            max_damaged=9,
        )
    except UserError as error:
        said = str(error)
        assert "\n" not in said and len(said) < 1000 and not (out / "manifest.json").exists()
        assert "lungs are clear" not in said and "Secret" not in said
        return "refused"
    assert verify_shards(out).ok
    text = (out / "excluded.jsonl").read_text()
    listed = {item["study"]: item["reason"] for item in map(json.loads, text.splitlines())}
    assert "lungs are clear" not in text and "Secret" not in text and all(listed.values())
    taken = {study.split(".")[0] for path in out.glob("*.tar") for study in members(path) if study.endswith(".json")}
    assert taken.isdisjoint(listed) and taken | set(listed) <= STUDIES | {"s50000001"}
    return "listed" if listed else "taken"


def members(path: Path) -> list[str]:
    import tarfile

    with tarfile.open(path) as tar:
        return tar.getnames()


def digests(folder: Path) -> dict[str, str]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.fixture
def alarm():
    """A hang ends the test with a name to it; the limit is that of a stuck program, not of a slow machine."""

    def stuck(*_) -> None:
        raise AssertionError("it hangs")

    previous = signal.signal(signal.SIGALRM, stuck)
    yield lambda: signal.alarm(900)
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


@pytest.mark.parametrize("batch", range(BATCHES))
def test_campaign(tmp_path, monkeypatch, alarm, batch):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes: Counter[str] = Counter()
    for number in range(25 * batch, min(25 * batch + 25, INPUTS)):
        kind, chance = KINDS[number % 25], np.random.default_rng([20, number])
        place = tmp_path / str(number)
        files = damage(write_tree(place / "tree"), kind, number, chance)
        (place / "working").mkdir()
        monkeypatch.chdir(place / "working")
        there = digests(place)
        alarm()
        outcome = prepared(files, place / "out")
        signal.alarm(0)
        outcomes[outcome] += 1
        left = digests(place)
        assert {name: left.get(name) for name in there} == there, kind
        assert all(name.startswith("out/") for name in left.keys() - there.keys()), kind
        never_taken = kind.endswith(("bomb", "nested", "zip-names")) or kind == "jpeg-cut" or kind == "dicom-cut"
        assert outcome != "taken" or not never_taken, f"{number}: {kind} went unnoticed"
    print(dict(outcomes))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < 900, f"{grown:.0f} MB: something inflated a bomb"
