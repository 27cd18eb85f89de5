"""`rrg prepare` as it is called: exit codes, one-line mistakes, the table, restart and verification."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from rrg.cli import main
from rrg.cli.progress import Meter
from rrg.data.study import Study

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data"))
from mimic_tree import CASES, Case, jpeg, write_reports, write_tree

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("RRG_SHARED", ROOT.parent / "shared"))


@pytest.fixture
def tree(tmp_path):
    extra = Case(13000000, 53000001, films=(("e1", "PA"),), report="IMPRESSION: Nothing new.")
    return write_tree(tmp_path / "tree", (*CASES, extra))


def mistake(capsys, *words: str) -> str:
    """The one line that a wrong command says; checks exit code 2."""
    assert main(list(words)) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("rrg: ") and not any("Traceback" in line for line in lines)
    return lines[-1]


def stored(folder: Path) -> list[Study]:
    studies = []
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            studies += [Study.from_json(tar.extractfile(name).read()) for name in tar.getnames() if name.endswith(".json")]
    return studies


def test_mimic_cxr(tree, tmp_path, capsys):
    out = tmp_path / "shards"
    assert (
        main(["prepare", "mimic-cxr", "--root", str(tree), "--out", str(out), "--workers", "1", "--size", "16", "--verify"]) == 0
    )
    told = capsys.readouterr().out
    assert "left out: 1 x no findings section" in told
    assert "4 studies, 5 films agree with the manifest" in told
    assert json.loads((out / "excluded.jsonl").read_text()) == {"study": "s53000001", "reason": "no findings section"}
    studies = {study.id: study for study in stored(out)}
    assert studies["s50000002"].prior == "s50000001"
    assert json.loads((out / "manifest.json").read_bytes())["image_policy"] == {"quality": 95, "size": 16}
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert main(["prepare", "mimic-cxr", "--root", str(tree), "--out", str(out), "--workers", "2", "--size", "16"]) == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_mimic_options_reach_the_shards(tree, tmp_path):
    out = tmp_path / "shards"
    words = [
        "--views",
        "all",
        "--max-views",
        "2",
        "--section",
        "any",
        "--labels",
        "none",
        "--studies-per-shard",
        "1",
        "--workers",
        "1",
    ]
    assert main(["prepare", "mimic-cxr", "--root", str(tree), "--out", str(out), *words]) == 0
    studies = {study.id: study for study in stored(out)}
    assert len(studies) == 5 and len(list(out.glob("*.tar"))) == 5
    assert [view.projection for view in studies["s50000001"].views] == ["PA", "AP"]
    assert studies["s50000001"].labels == {}


def test_mimic_sources_reach_the_shards(tree, tmp_path, capsys):
    """Tables elsewhere, an annotation file, a list of exceptions and a form of film."""
    (tmp_path / "tables").mkdir()
    for path in tree.glob("*.csv"):
        path.rename(tmp_path / "tables" / path.name)
    records = [
        {"study_id": case.study, "subject_id": case.subject, "report": "clear .", "id": "x", "split": split}
        | {"image_path": [f"p{str(case.subject)[:2]}/p{case.subject}/s{case.study}/{film}.jpg" for film, _ in case.films]}
        for case, split in zip(CASES, ("train", "train", "val", "test"), strict=True)
    ]
    annotation = {split: [record for record in records if record["split"] == split] for split in ("train", "val", "test")}
    (tmp_path / "annotation.json").write_text(json.dumps(annotation))
    (tmp_path / "exceptions.csv").write_text("study_id,reason\n50000002,laterality marker is wrong\n1,unknown\n")
    words = ["prepare", "mimic-cxr", "--root", str(tree), "--tables", str(tmp_path / "tables"), "--workers", "1"]
    words += ["--exceptions", str(tmp_path / "exceptions.csv"), "--out", str(tmp_path / "shards")]
    assert "no film on disk in the format asked for" in mistake(capsys, *words, "--format", "dicom")
    assert main([*words, "--annotation", str(tmp_path / "annotation.json"), "--format", "jpg"]) == 0
    told = capsys.readouterr().out
    assert "left out: 1 x on the list of exceptions (listed in excluded.jsonl)" in told
    assert "left out: 1 x not in the annotation file" in told and "exceptions not in the collection: 1" in told
    studies = {study.id: study for study in stored(tmp_path / "shards")}
    assert set(studies) == {"s50000001", "s51000003", "s52000004"}
    assert {study.sections.findings for study in studies.values()} == {"clear ."}
    lines = [json.loads(line) for line in (tmp_path / "shards" / "excluded.jsonl").read_text().splitlines()]
    assert {line["study"]: line["reason"] for line in lines} == {
        "s50000002": "on the list of exceptions: laterality marker is wrong",
        "s53000001": "not in the annotation file",
    }


def test_damaged_reports_and_films_share_a_budget(tree, tmp_path, capsys):
    (tree / "mimic-cxr-reports.zip").unlink()
    write_reports(tree, CASES, "folder")
    (tree / "mimic-cxr-reports/files/p10/p10000001/s50000002.txt").write_bytes(bytes(range(256)))
    next(tree.glob("files/*/*/s51000003/*.jpg")).write_bytes(jpeg()[:-30])
    words = ["prepare", "mimic-cxr", "--root", str(tree), "--workers", "1", "--out", str(tmp_path / "shards")]
    assert "1 studies have a damaged report, 0 allowed: s50000002, it is not text" in mistake(capsys, *words)
    assert "s51000003" in mistake(capsys, *words, "--max-damaged", "1")
    assert main([*words, "--max-damaged", "2"]) == 0
    told = capsys.readouterr().out
    assert "left out: 1 x damaged report" in told and "left out: 1 x a film does not decode" in told


def test_damaged_film(tree, tmp_path, capsys):
    next(tree.glob("files/*/*/s51000003/*.jpg")).write_bytes(jpeg()[:-30])
    words = ["prepare", "mimic-cxr", "--root", str(tree), "--workers", "1", "--out", str(tmp_path / "shards")]
    assert "s51000003" in mistake(capsys, *words)
    assert main([*words, "--max-damaged", "1"]) == 0
    assert "left out: 1 x a film does not decode" in capsys.readouterr().out


def test_verify_finds_a_changed_byte(tree, tmp_path, capsys):
    out = tmp_path / "shards"
    assert main(["prepare", "mimic-cxr", "--root", str(tree), "--out", str(out), "--workers", "1"]) == 0
    assert main(["prepare", "verify", str(out)]) == 0
    shard = next(out.glob("train-*.tar"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 3] ^= 1
    shard.write_bytes(data)
    assert "differences from its manifest" in mistake(capsys, "prepare", "verify", str(out))
    assert "no folder" in mistake(capsys, "prepare", "verify", str(tmp_path / "nowhere"))


def test_mistakes_are_one_line(tree, tmp_path, capsys):
    out = str(tmp_path / "shards")
    assert "required: SOURCE" in mistake(capsys, "prepare")
    assert "invalid choice" in mistake(capsys, "prepare", "mimic")
    assert "--out" in mistake(capsys, "prepare", "iu-xray", "--annotation", "a", "--images", "b")
    assert "invalid int value" in mistake(capsys, "prepare", "mimic-cxr", "--root", str(tree), "--out", out, "--size", "big")
    assert "--views 'both'" in mistake(capsys, "prepare", "mimic-cxr", "--root", str(tree), "--out", out, "--views", "both")
    assert "workers 0" in mistake(capsys, "prepare", "mimic-cxr", "--root", str(tree), "--out", out, "--workers", "0")
    assert "image size 2" in mistake(capsys, "prepare", "mimic-cxr", "--root", str(tree), "--out", out, "--size", "2")
    assert "no folder" in mistake(capsys, "prepare", "mimic-cxr", "--root", str(tmp_path / "none"), "--out", out)
    assert "studies is 0" in mistake(capsys, "prepare", "phantom", "--out", out, "--studies", "0", "--seed", "1")
    assert "--labels" in mistake(capsys, "prepare", "phantom", "--out", out, "--studies", "1", "--seed", "1", "--labels", "chex")
    assert not Path(out).exists()


@pytest.mark.parametrize("source", ["iu-xray", "mimic-cxr", "phantom", "verify"])
def test_help_has_an_example(source, capsys):
    with pytest.raises(SystemExit) as left:
        main(["prepare", source, "--help"])
    assert left.value.code == 0
    assert f"rrg prepare {source}" in capsys.readouterr().out.partition("example:")[2]


def test_phantom_to_shards(tmp_path, capsys):
    words = [
        "--studies",
        "12",
        "--seed",
        "3",
        "--size",
        "64",
        "--workers",
        "1",
        "--shards",
        str(tmp_path / "shards"),
        "--section",
        "any",
    ]
    assert main(["prepare", "phantom", "--out", str(tmp_path / "tree"), *words]) == 0
    assert "12 synthetic studies of seed 3" in capsys.readouterr().out
    studies = stored(tmp_path / "shards")
    assert len(studies) == 12 and all(study.views and study.sections.findings for study in studies)


def test_open_i_with_two_workers(tmp_path):
    openi = SHARED / "data" / "openi"
    if not openi.is_dir():
        pytest.skip(f"no Open-i copy under {SHARED}")
    annotation = json.loads((openi / "annotation.json").read_text())
    small = tmp_path / "annotation.json"
    small.write_text(json.dumps({split: records[:20] for split, records in annotation.items()}))
    words = [
        "--images",
        str(openi / "images"),
        "--reports",
        str(openi / "reports.jsonl"),
        "--studies-per-shard",
        "8",
        "--workers",
        "2",
    ]
    command = [
        sys.executable,
        "-m",
        "rrg.cli",
        "prepare",
        "iu-xray",
        "--annotation",
        str(small),
        "--out",
        str(tmp_path / "out"),
        *words,
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    assert "writing shards: 60 of 60 studies" in done.stderr
    assert len(stored(tmp_path / "out")) == 60


def test_meter_writes_few_plain_lines():
    stream = io.StringIO()
    with Meter("reading", "studies", stream) as meter:
        for done in range(1, 10_001):
            meter(done, 10_000)
    lines = stream.getvalue().splitlines()
    assert lines[-1].startswith("reading: 10,000 of 10,000 studies")
    assert len(lines) <= 3
