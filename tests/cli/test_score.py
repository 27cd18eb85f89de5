"""`rrg score` from end to end: in a run, outside one, and with every mistake that a user can make."""

import json

import pytest
from PIL import Image

from rrg.cli import main
from rrg.data.study import Sections, Study, View
from rrg.shards.writer import ImagePolicy, SourceStudy, build_shards

TRAIN = ["The lungs are clear. No effusion.", "Small left pleural effusion.", "The heart is enlarged. No effusion."]
TEST = [
    "The lungs are clear. No pleural effusion.",
    "There is a left pleural effusion.",
    "The heart is mildly enlarged.",
    "Clear.",
]
METRICS = "findings_micro_f1,observation_micro_f1,bleu_1,cider"


@pytest.fixture
def shards(tmp_path):
    """A folder of shards with three training, three validation and four test studies."""
    film = tmp_path / "film.jpg"
    Image.new("L", (16, 16)).save(film)
    studies = [
        Study(f"{split}{number}", f"{split}{number}", split, (View("0.jpg"),), Sections(findings=text))
        for split, texts in {"train": TRAIN, "val": TRAIN, "test": TEST}.items()
        for number, text in enumerate(texts)
    ]
    sources = [SourceStudy(study, (str(film),)) for study in studies]
    build_shards(tmp_path / "shards", sources, source={"test": "score"}, policy=ImagePolicy(), parser_version="1")
    return tmp_path / "shards"


def rows(texts=TEST, generated=None, section="findings", split="test"):
    written = texts if generated is None else generated
    return [
        {"study": f"{split}{number}", "generated": wrote, "reference": text, "section": section}
        for number, (text, wrote) in enumerate(zip(texts, written, strict=True))
    ]


def put(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


@pytest.fixture
def run(tmp_path, shards):
    """A run directory with predictions for the whole test split."""
    root = tmp_path / "run"
    put(root / "predictions" / "test.jsonl", rows())
    (root / "config.yaml").write_text(f"data:\n  shards: {shards}\nscore:\n  protocol: r2gen_iu\n  bootstrap: 20\n")
    return root


def score(*arguments):
    return main(["score", *map(str, arguments), "--metrics", METRICS])


def test_in_a_run(run, capsys):
    assert score(run / "predictions" / "test.jsonl") == 0
    printed = capsys.readouterr().out
    record = json.loads((run / "scores" / "test.r2gen_iu.json").read_text())
    assert printed.index("findings_micro_f1") < printed.index("distinct reports") < printed.index("bleu_1")
    assert record["split"] == "test" and record["count"] == 4 and "partial" not in record
    assert record["settings"]["bootstrap"] == 20 and record["settings"]["train_reports"] == 3
    assert record["predictions"]["file"] == "test.jsonl" and len(record["predictions"]["sha256"]) == 64
    assert record["metrics"]["bleu_1"]["value"] == pytest.approx(1)
    assert {name for name, entry in record["controls"].items() if entry.get("missing")} == {"retrieved", "blank"}


def test_outside_a_run(tmp_path, shards, capsys):
    file, out = put(tmp_path / "reports.jsonl", rows()), tmp_path / "out" / "scores.json"
    options = ("--protocol", "findings", "--shards", shards, "--split", "test", "--bootstrap", 0, "--json", out)
    assert score(file, *options) == 0
    assert json.loads(out.read_text())["metrics"]["bleu_1"]["interval"] is None
    assert "scores:" in capsys.readouterr().out


def test_without_shards_controls_are_missing(tmp_path, capsys):
    file = put(tmp_path / "test.jsonl", rows())
    assert score(file, "--protocol", "findings", "--shards", "none", "--bootstrap", 10) == 0
    assert "no training reports" in capsys.readouterr().out
    assert not list(tmp_path.glob("**/scores*"))


def test_reports_of_other_films_replace_the_permutations(run):
    put(run / "predictions" / "test.shuffled.jsonl", rows(generated=["Pneumothorax."] * 4)[::-1])
    assert score(run / "predictions" / "test.jsonl") == 0
    control = json.loads((run / "scores" / "test.r2gen_iu.json").read_text())["controls"]["shuffled"]
    assert "another study's films" in control["description"] and control["diversity"]["distinct_reports"] == 1


def test_partial(run, capsys):
    file = put(run / "predictions" / "test.jsonl", rows()[:3])
    assert score(file) == 2
    captured = capsys.readouterr()
    assert "3 predictions for the 4 studies" in captured.err and "--partial" in captured.err and not captured.out
    assert score(file, "--partial") == 0
    record = json.loads((run / "scores" / "test.r2gen_iu.json").read_text())
    assert record["partial"] == {"predictions": 3, "studies": 4, "without": ["test3"]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["has no predictions"]),
        ("\n\n", ["has no predictions"]),
        ('{"study": "test0"\n', ["line 1", "not JSON"]),
        ("[]\n", ["line 1", "not an object"]),
        ('{"study": "test0", "generated": "a"}\n', ["line 1", "lacks reference, section"]),
        ('{"study": "test0", "generated": null, "reference": "b", "section": "findings"}\n', ["line 1", "generated is not text"]),
        (json.dumps(rows()[0]) + "\n" + json.dumps(rows()[0]), ["test0", "two predictions"]),
        (json.dumps(rows(section="impression")[0]), ["impression", "findings", "--protocol"]),
        (json.dumps(rows(split="train")[0]), ["not in the shards' split", "train0"]),
    ],
)
def test_damaged_predictions(run, capsys, text, words):
    file = run / "predictions" / "test.jsonl"
    file.write_text(text)
    assert score(file) == 2
    error = capsys.readouterr().err
    assert all(word in error for word in words) and error.count("\n") == 1
    assert not (run / "scores").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), ["lies in no run", "--protocol", "r2gen_iu"]),
        (("--protocol", "r2gen"), ["'r2gen'", "r2gen_iu"]),
        (("--protocol", "findings"), ["no shards", "--shards none"]),
        (("--protocol", "findings", "--shards", "nowhere"), ["nowhere"]),
        (("--protocol", "findings", "--shards", "none", "--bootstrap", "-1"), ["--bootstrap"]),
        (("--protocol", "findings", "--shards", "none", "--split", "tset"), ["'test'"]),
        (("--protocol", "r2gengpt_release_iu", "--shards", "none"), ["--tokenizer"]),
    ],
)
def test_mistakes_in_options(tmp_path, capsys, options, words):
    file = put(tmp_path / "test.jsonl", rows())
    assert score(file, *options) == 2
    error = capsys.readouterr().err
    assert all(word in error for word in words) and error.count("\n") == 1


def test_unknown_metric(run, capsys):
    assert main(["score", str(run / "predictions" / "test.jsonl"), "--metrics", "blue_4"]) == 2
    assert "bleu_4" in capsys.readouterr().err


def test_missing_file_and_unsaid_split(tmp_path, shards, capsys):
    assert score(tmp_path / "none.jsonl", "--protocol", "findings", "--shards", shards) == 2
    assert "cannot be read" in capsys.readouterr().err
    file = put(tmp_path / "reports.jsonl", rows())
    assert score(file, "--protocol", "findings", "--shards", shards) == 2
    assert "--split" in capsys.readouterr().err


def test_other_shuffled_studies_are_refused(run, capsys):
    put(run / "predictions" / "test.shuffled.jsonl", rows()[:2])
    assert score(run / "predictions" / "test.jsonl") == 2
    assert "test.shuffled.jsonl" in capsys.readouterr().err


def test_blank_and_retrieved_controls(run, capsys):
    put(run / "predictions" / "test.blank.jsonl", rows(generated=["Clear."] * 4))
    header = {"format": 1, "kind": "observation labels", "source": "retrieved"}
    near = [{"study": f"test{n}", "split": "test", "labels": {}, "neighbours": [{"study": "train1"}]} for n in range(4)]
    file = put(run / "near.jsonl", [header, *near])
    assert score(run / "predictions" / "test.jsonl", "--retrieved", file) == 0
    controls = json.loads((run / "scores" / "test.r2gen_iu.json").read_text())["controls"]
    assert controls["blank"]["diversity"]["distinct_reports"] == controls["retrieved"]["diversity"]["distinct_reports"] == 1
    for lines, word in (
        ([header | {"source": "image"}, *near], "--from retrieved"),
        ([header, *near[:3]], "1 studies"),
        ([header, near[0] | {"neighbours": [{"study": "gone"}]}, *near[1:]], "gone"),
    ):
        put(run / "near.jsonl", lines)
        assert score(run / "predictions" / "test.jsonl", "--retrieved", file) == 2
        assert word in capsys.readouterr().err


def test_outputs_beside_the_scores(run, tmp_path, capsys):
    places = {flag: tmp_path / flag for flag in ("csv", "rrg24", "rexrank")}
    put(run / "predictions" / "test.jsonl", rows(generated=["Two\nlines.", *TEST[1:]]))
    assert (
        score(run / "predictions" / "test.jsonl", *(word for flag, path in places.items() for word in (f"--{flag}", path))) == 0
    )
    assert places["rrg24"].read_text().splitlines()[:2] == ["Two lines.", TEST[1]]
    table = places["csv"].read_text()
    assert table.count("\n") == 5 and "test1,7,7,1.0" in table and "pleural" not in table
    again = tmp_path / "back.json"
    again.write_bytes(places["rexrank"].read_bytes())
    assert json.loads(again.read_text())["test1"]["section_findings"] == TEST[1]
    assert score(again, "--protocol", "findings", "--shards", "none", "--bootstrap", 0, "--json", tmp_path / "s.json") == 0
    assert json.loads((tmp_path / "s.json").read_text())["metrics"]["findings_micro_f1"]["value"] == 1
    assert score(run / "predictions" / "test.jsonl", "--csv", tmp_path / "x", "--rrg24", tmp_path / "x") == 2
    assert "two outputs" in capsys.readouterr().err


def test_failed_and_external_metrics_are_entries_that_say_why(run):
    assert main(["score", str(run / "predictions" / "test.jsonl"), "--protocol", "rrg24_findings", "--bootstrap", "0"]) == 0
    record = json.loads((run / "scores" / "test.rrg24_findings.json").read_text())
    assert {"bertscore", "chexbert", "radgraph"} == {name for name, entry in record["metrics"].items() if entry.get("missing")}
    assert record["metrics"]["rouge_l_stemmed"]["value"] == 1 and "cider" not in record["metrics"]


def test_report_text_never_reaches_a_message(run, capsys):
    put(run / "predictions" / "test.jsonl", [*rows(generated=["Secret words."] * 4), {"study": "test0"}])
    assert score(run / "predictions" / "test.jsonl") == 2
    captured = capsys.readouterr()
    assert "Secret" not in captured.err + captured.out
