"""Shared by the tests of the shard layer: a folder of films, shards of them, the real films where there are some."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from synthetic_studies import build, make_studies

from rrg.data.study import Sections, Study, View
from rrg.shards.plan import SourceStudy

SHARED = Path(os.environ.get("RRG_SHARED", Path(__file__).resolve().parents[2].parent / "shared"))


@pytest.fixture(autouse=True)
def _cache_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What is read by URL is not cached in the home of whoever runs the tests."""
    monkeypatch.setenv("RRG_CACHE", str(tmp_path_factory.getbasetemp() / "rrg-cache"))


@pytest.fixture
def studies(tmp_path: Path) -> list[SourceStudy]:
    """Thirty studies in three splits."""
    return make_studies(tmp_path / "films", 30, splits=("train", "val", "train", "test"))


@pytest.fixture
def shards(tmp_path: Path, studies: list[SourceStudy]) -> Path:
    """The thirty studies as shards of four."""
    build(tmp_path / "shards", studies)
    return tmp_path / "shards"


@pytest.fixture(scope="session")
def real_studies() -> list[SourceStudy]:
    """120 real studies, 240 films, of IU X-Ray."""
    folder = SHARED / "data" / "openi"
    if not (folder / "annotation.json").is_file():
        pytest.skip(f"no IU X-Ray films under {folder}")
    records = json.loads((folder / "annotation.json").read_text())
    return [
        SourceStudy(
            Study(
                id=record["id"],
                patient=record["id"].split("_")[0],
                split=split,
                views=tuple(View("") for _ in record["image_path"]),
                sections=Sections(findings=record["report"]),
            ),
            tuple(str(folder / "images" / path) for path in record["image_path"]),
        )
        for split, number in (("train", 80), ("val", 20), ("test", 20))
        for record in records[split][:number]
    ]
