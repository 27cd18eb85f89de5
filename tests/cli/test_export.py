"""`rrg export` as it is called."""

from __future__ import annotations

import pytest

from tests.export.conftest import QUICK
from tests.processes import run
from tests.refusal import call, refused


@pytest.fixture(scope="module")
def trained(drawn_shards, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    run(["train", "tiny/r2gengpt_iu", f"data.shards={drawn_shards}", f"output={folder / 'run'}", *QUICK], folder / "log")
    return folder / "run"


def test_write_check_and_mistakes(trained, tmp_path):
    (outcome,) = call(["export", trained, "--out", "out/model"], tmp_path)
    assert outcome.code == 0 and "out/model: " in outcome.out and "model card out/model/README.md" in outcome.out, outcome.err
    (outcome,) = call(["export", "out/model", "--check"], tmp_path)
    assert outcome.code == 0, outcome.err
    assert "every file is as it was written" in outcome.out and "loads; base models are those" in outcome.out
    (tmp_path / "out/model/notes.txt").write_text("x")
    (outcome,) = call(["export", "out/model", "--check"], tmp_path)
    assert outcome.code == 0 and "no part of it: notes.txt" in outcome.out
    assert "an export is there" in refused(["export", trained, "--out", "out/model"], tmp_path)
    assert "--out is missing" in refused(["export", trained], tmp_path)
    assert "no run directory" in refused(["export", "nowhere", "--out", "x"], tmp_path)
    assert "no export" in refused(["export", trained, "--check"], tmp_path)
    assert "overrides go with --check" in refused(["export", trained, "--out", "x", "seed=1"], tmp_path)
    assert "--out: missing" in refused(["generate", "out/model"], tmp_path)
    assert "of one checkpoint" in refused(["generate", "out/model", "--checkpoint", "last"], tmp_path)
    assert "data.shards: empty" in refused(["generate", "out/model", "--out", "p.jsonl"], tmp_path)
    assert "may change" in refused(["generate", "out/model", "--out", "p.jsonl", "train.lr=1"], tmp_path)
