"""`rrg compare` from end to end, and what it refuses."""

import json

import pytest

from rrg.cli import main

TRUTH = ["The lungs are clear.", "There is a left pleural effusion.", "Cardiomegaly is seen.", "No effusion."] * 4
SAID = ["The lungs are clear.", "The lungs are clear.", "Cardiomegaly is seen.", "Clear."] * 4
FAST = ("--metrics", "findings_micro_f1,bleu_1", "--bootstrap", 20, "--permutations", 99)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RRG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "160")


def put(path, generated, truth=TRUTH, section="findings"):
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {"study": f"s{n}", "generated": own, "reference": real, "section": section, "split": "test"}
        for n, (own, real) in enumerate(zip(generated, truth, strict=True))
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run_of(root, generated, protocol="findings"):
    put(root / "predictions" / "test.jsonl", generated)
    (root / "config.yaml").write_text(f"score:\n  protocol: {protocol}\n")
    return root


def compare(*words):
    return main(["compare", *map(str, words)])


def refused(capsys, *words):
    assert compare(*words, *FAST) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("rrg: ") and captured.err.count("\n") == 1 and "lungs are" not in captured.err
    return captured.err


def test_two_runs_and_published_figures(tmp_path, capsys):
    a, b = run_of(tmp_path / "a", SAID), run_of(tmp_path / "b", TRUTH)
    out = tmp_path / "out" / "compared.json"
    assert compare(a, b, "published:cmeaa_iu", *FAST, "--json", out) == 0
    printed = capsys.readouterr().out
    assert "not comparable" in printed and "Pleural Effusion (4)" in printed and "CmEAA" in printed
    assert "lungs are" not in printed
    record = json.loads(out.read_text())
    assert record["systems"] == ["a", "b", "cmeaa_iu"] and record["count"] == 16
    row = record["metrics"]["findings_micro_f1"]
    assert row["systems"]["b"]["value"] == 1 and row["differences"]["b"]["p_adjusted"] >= row["differences"]["b"]["p"]
    assert record["metrics"]["bleu_4"]["systems"] == {"cmeaa_iu": {"value": 0.181, "interval": None}}
    assert record["known"]["cmeaa_iu"]["protocol"] == "r2gengpt_release_iu"


def test_names_seeds_and_the_page(tmp_path, capsys):
    files = [put(tmp_path / name, texts) for name, texts in (("a.jsonl", SAID), ("b.jsonl", TRUTH), ("c.jsonl", SAID))]
    page = tmp_path / "page.html"
    words = (
        f"base={files[0]},{files[2]}",
        f"new={files[1]},{files[1]}",
        "--protocol",
        "findings",
        "--page",
        page,
        "--studies",
        3,
    )
    assert compare(*words, *FAST) == 0
    printed = capsys.readouterr().out
    assert "standard deviation over seeds" in printed and str(page) in printed
    html = page.read_text()
    assert html.count("<article") == 3 and "base / new" in html and "name the shards" in html and "<script" not in html
    assert "left pleural effusion" in html and "s1</h3>" in html


def test_scores_files_stand_for_their_predictions_or_for_their_figures(tmp_path, capsys):
    run = run_of(tmp_path / "a", SAID)
    assert main(["score", str(run / "predictions" / "test.jsonl"), "--shards", "none", *map(str, FAST[:4])]) == 0
    scores, other = run / "scores" / "test.findings.json", put(tmp_path / "b.jsonl", TRUTH)
    capsys.readouterr()
    assert compare(f"a={scores}", other, *FAST) == 0
    assert "without" not in capsys.readouterr().out
    put(run / "predictions" / "test.jsonl", TRUTH)
    assert compare(f"a={scores}", other, *FAST) == 0
    assert "no test" in capsys.readouterr().out
    assert "different protocols" in refused(capsys, scores, other, "--protocol", "r2gen_iu")
    assert "two systems with predictions" in refused(capsys, f"a={scores}", other, "--page", tmp_path / "p.html")
    assert compare(f"a={scores}", "published:cmeaa_iu", *FAST) == 0


def test_metrics_of_other_programs_are_compared_study_by_study(tmp_path, capsys):
    runs = [run_of(tmp_path / name, texts) for name, texts in (("a", SAID), ("b", TRUTH))]
    for number, run in enumerate(runs):
        file = run / "predictions" / "test.jsonl"
        assert main(["score", str(file), "--shards", "none", *map(str, FAST[:4])]) == 0
        path = run / "scores" / "test.findings.json"
        record = json.loads(path.read_text())
        column = [0.5 + 0.4 * number] * 15 + [None if number else 0.1]
        record["external"] = {"x": {"values": {"errors": column}, "scores": {"errors": {"higher_is_better": False}}}}
        path.write_text(json.dumps(record))
    out = tmp_path / "out.json"
    options = ("--bootstrap", 20, "--permutations", 99, "--json", out, "--metrics", "errors,bleu_1")
    assert compare(*runs, *options) == 0
    row = json.loads(out.read_text())["metrics"]["errors"]
    assert row["systems"]["a"] == {"value": 0.5, "interval": [0.5, 0.5], "count": 15}
    assert row["differences"]["b"]["value"] == pytest.approx(0.4) and row["differences"]["b"]["p"] == 0.01
    put(runs[0] / "predictions" / "test.jsonl", TRUTH)
    capsys.readouterr()
    assert compare(*runs, *options) == 2
    assert "--metrics 'errors'" in capsys.readouterr().err


def test_list(capsys):
    assert compare("--list") == 0
    assert "cmeaa_mimic" in capsys.readouterr().out


def test_refusals(tmp_path, capsys):
    a, b = run_of(tmp_path / "a", SAID), run_of(tmp_path / "b", TRUTH, "r2gen_iu")
    assert "different protocols" in refused(capsys, a, b)
    assert compare(a, b, "--protocol", "findings", *FAST) == 0
    capsys.readouterr()
    assert "at least two" in refused(capsys, a)
    assert "no such run" in refused(capsys, a, tmp_path / "nowhere")
    assert "called 'a'" in refused(capsys, a, a)
    assert "no protocol is known" in refused(capsys, *(put(tmp_path / f"{name}.jsonl", SAID) for name in "xy"))
    assert "no figure is known" in refused(capsys, a, "published:alta")
    assert "rrg generate" in refused(capsys, a, b, "--split", "val")
    short = put(tmp_path / "short.jsonl", SAID[:8], TRUTH[:8])
    assert "short lacks s8" in refused(capsys, a, short)
    assert compare(a, short, "--common", *FAST) == 0
    assert "8 studies are left out" in capsys.readouterr().out
    assert "impression" in refused(capsys, a, put(tmp_path / "i.jsonl", SAID, section="impression"))
    assert "--studies" in refused(capsys, a, short, "--studies", "0")
    bad = tmp_path / "bad.json"
    bad.write_text("{")
    assert "not readable as JSON" in refused(capsys, a, bad)
