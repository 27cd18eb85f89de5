"""`rrg metrics` and the external metrics of `rrg score`, as a user runs them."""

import json

import pytest

from rrg.cli import main
from rrg.metrics.external.catalogue import ENVIRONMENTS, METRICS
from rrg.metrics.external.weights import digest_path


@pytest.fixture(autouse=True)
def metrics_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("RRG_METRICS", str(tmp_path / "metrics"))
    return tmp_path / "metrics"


def refused(capsys, *words):
    assert main([str(word) for word in words]) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("rrg: ") and "\n" not in said
    return said


def test_list_says_what_is_there_and_why_not(capsys):
    assert main(["metrics", "list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == list(METRICS) and not any(entry["available"] for entry in found.values())
    assert found["chexbert"]["interpreter"] == "rrg's own interpreter"
    assert found["radgraph"]["missing"].startswith("not installed: `rrg metrics install radgraph`; no file for model, encoder")
    assert "radgraph: not installed" in found["radcliq"]["missing"] and "chexbert: no file" in found["radcliq"]["missing"]
    assert main(["metrics", "list"]) == 0
    text = capsys.readouterr().out
    assert (
        "missing: not installed" in text and "LOWER is better" in text and all(f"\n{name}: " in "\n" + text for name in METRICS)
    )


def test_files_are_kept_with_their_digest_and_checked(capsys, tmp_path, metrics_folder):
    weights, vocab = tmp_path / "chexbert.pth", tmp_path / "bert"
    weights.write_bytes(b"weights")
    vocab.mkdir()
    (vocab / "vocab.txt").write_text("[PAD]")
    digest = digest_path(weights)
    assert main(["metrics", "files", f"chexbert.weights={weights}:{digest.upper()}", f"chexbert.vocab={vocab}"]) == 0
    assert f"chexbert.weights: {weights} sha256 {digest}" in capsys.readouterr().out
    assert main(["metrics", "list", "--json"]) == 0
    entry = json.loads(capsys.readouterr().out)["chexbert"]
    assert entry["available"] and entry["files"]["vocab"]["sha256"] == digest_path(vocab)
    (vocab / "vocab.txt").write_text("[PAD]\n")
    predictions = tmp_path / "p.jsonl"
    predictions.write_text('{"study": "a", "generated": "no edema", "reference": "clear", "section": "findings"}\n')
    score = ("score", predictions, "--protocol", "findings", "--shards", "none", "--with", "chexbert")
    assert "chexbert.vocab: " in (said := refused(capsys, *score)) and "another file, or a damaged one" in said
    wrong = f"chexbert.weights={weights}:{'0' * 64}"
    assert "has sha256" in refused(capsys, *score, "--metric-file", wrong)
    assert "has sha256" in refused(capsys, "metrics", "files", wrong)
    vocab.joinpath("vocab.txt").unlink()
    weights.unlink()
    assert "does not exist" in json.loads(listing(capsys))["chexbert"]["missing"]
    (metrics_folder / "chexbert" / "files.json").write_text("[]")
    assert "is damaged; delete it" in refused(capsys, "metrics", "list")


def listing(capsys):
    assert main(["metrics", "list", "--json"]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("files", "chexbert=x"), "write METRIC.KEY=PATH"),
        (("files", "chexbrt.weights=x"), "did you mean 'chexbert'"),
        (("files", "chexbert.weight=x"), "did you mean 'weights'"),
        (("files", "radcliq.model=x"), "it has none"),
        (("files", "chexbert.weights=/none/x"), "/none/x does not exist"),
        (("files", "chexbert.weights=x:" + "0" * 40), "a sha256 has 64 hexadecimal digits"),
        (("install", "radcliq"), "install those of radgraph, radcliq_bertscore, chexbert"),
        (("install", "radgrph"), "did you mean 'radgraph'"),
        (("install", "radgraph", "--python", "/none/python"), "/none/python cannot be started"),
    ],
)
def test_mistakes_are_one_line(capsys, words, said):
    assert said in refused(capsys, "metrics", *words)


def test_score_options_are_checked(capsys, tmp_path):
    predictions = tmp_path / "p.jsonl"
    predictions.write_text('{"study": "a", "generated": "no edema", "reference": "clear", "section": "findings"}\n')
    score = ("score", predictions, "--protocol", "findings", "--shards", "none", "--with", "chexbert")
    assert "write NAME=PYTHON" in refused(capsys, *score, "--metric-python", "chexbert")
    assert "above 0" in refused(capsys, *score, "--metric-seconds", "0")
    assert "write cpu, cuda or cuda:N" in refused(capsys, *score, "--metric-device", "gpu")


def test_a_missing_metric_is_an_entry_with_its_reason(capsys, tmp_path):
    predictions = tmp_path / "p.jsonl"
    predictions.write_text('{"study": "a", "generated": "no edema", "reference": "clear", "section": "findings"}\n')
    out = tmp_path / "scores.json"
    words = ["score", predictions, "--protocol", "findings", "--shards", "none", "--metrics", "bleu_4", "--json", out]
    assert main([*map(str, words), "--with", "radgraph,radcliq"]) == 0
    record = json.loads(out.read_text())
    assert record["metrics"]["radgraph"]["value"] is None and "not installed" in record["metrics"]["radgraph"]["missing"]
    assert "radgraph: not installed" in record["external"]["radcliq"]["missing"]
    assert "not installed" in capsys.readouterr().out


@pytest.mark.slow
def test_install_from_a_lock(capsys, tmp_path, metrics_folder, monkeypatch):
    """An empty lock file: the steps for real, without an index. Then mended, left alone, refused."""
    from dataclasses import replace

    lock = tmp_path / "empty.txt"
    lock.write_text("# nothing\n")

    class Spec:
        worker, modules, locks = "radgraph_worker.py", (), (lock,)
        script = ENVIRONMENTS["radgraph"].script

    assert replace(ENVIRONMENTS["radgraph"]).locks[0].name == "radgraph.txt"
    monkeypatch.setitem(ENVIRONMENTS, "radgraph", Spec())
    assert main(["metrics", "install", "radgraph_xl"]) == 0
    python = metrics_folder / "radgraph" / "venv" / "bin" / "python"
    assert python.is_file() and str(python) in capsys.readouterr().out
    assert json.loads(listing(capsys))["radgraph"]["interpreter"] == "installed"
    assert main(["metrics", "install", "radgraph"]) == 0 and "installed already" in capsys.readouterr().out
    lock.write_text("no-such-package-of-rrg==9.9.9\n")
    assert "installed from another lock file" in json.loads(listing(capsys))["radgraph"]["interpreter"]
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert "installing failed (exit code 1): ERROR: No matching" in refused(capsys, "metrics", "install", "radgraph")
    assert "was not finished" in json.loads(listing(capsys))["radgraph"]["interpreter"]
    import fcntl

    with (metrics_folder / "radgraph" / "install.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert "another installation" in refused(capsys, "metrics", "install", "radgraph")


def test_lock_files_pin_every_package():
    import re

    for name, spec in ENVIRONMENTS.items():
        assert spec.script.is_file() and spec.locks[0].is_file(), name
        for lock in spec.locks:
            lines = [line for line in lock.read_text().splitlines() if not line.startswith("#")]
            assert lines and all(re.fullmatch(r"[A-Za-z0-9_.\-]+==[0-9][0-9a-z.]*", line) for line in lines), lock
            assert not [line for line in lines if line.lower().startswith("torchvision")]
