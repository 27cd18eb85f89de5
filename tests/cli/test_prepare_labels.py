"""`rrg prepare ngrams` and `rrg prepare labels` as they are called: files, refusals, and that no held-out report gets in."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from rrg.cli import main
from rrg.data.study import OBSERVATIONS, Sections, Study, View
from rrg.errors import UserError
from rrg.observations.label_file import LabelFile
from rrg.observations.labels import label_report
from rrg.observations.ngrams import NgramTable
from rrg.observations.probabilities import Probabilities
from rrg.observations.provenance import ModelInputs
from rrg.shards.plan import SourceStudy
from rrg.shards.reader import ShardSet
from rrg.shards.writer import ImagePolicy, build_shards
from tests.refusal import refused
from tests.synthetic import film


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    return tmp_path_factory.mktemp("features") / "cache"


@pytest.fixture
def words(drawn_shards, features):
    def line(*more):
        given = [f"data.shards={drawn_shards}", f"vision.cache={features}"]
        return ["prepare", "labels", "tiny/r2gengpt_iu", *given, *map(str, more)]

    return line


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def all_studies(shards):
    return {study.id: study for name in ("train", "val", "test") for study in map(ShardSet(shards, name).study, range(6))}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Shards whose reports hold phrases with other words after them each time: a phrase ends where words do not attract."""
    root = tmp_path_factory.mktemp("written")
    (root / "f.jpg").write_bytes(film(0, 0))
    studies = []
    for number in range(40):
        split = ("train", "train", "train", "val", "test")[number % 5]
        finding = ("Small pleural effusion", "Clear lungs")[number % 2]
        after = chr(ord("a") + number % 26) * (3 + number // 26)
        sections = Sections(f"{finding} {after} {after}x. No pneumothorax {after}.")
        view = View("0.jpg", "frontal")
        studies.append(SourceStudy(Study(f"S{number}", f"P{number}", split, (view,), sections), (str(root / "f.jpg"),)))
    more = {"source": {"name": "written"}, "policy": ImagePolicy(), "parser_version": "none", "workers": 1}
    build_shards(root / "shards", studies, studies_per_shard=8, **more)
    return root / "shards"


def test_ngrams(written, tmp_path, capsys):
    out = tmp_path / "new" / "n.json"
    command = ["prepare", "ngrams", "--shards", str(written), "--labels", "rules", "--min-count", "3", "--out", str(out)]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert "24 training reports (0 empty, 0 without labels)" in told and "more than 3 occurrences" in told
    table = NgramTable.load(out)
    assert table.texts("Pleural Effusion_True")[0] == "small pleural effusion"
    assert table.made["labels"] == {"provider": "rules", "version": "rules-1", "section": "findings"}
    assert table.made["source"] == {"name": "written", "shards": ShardSet(written, "train").digest}
    first = out.read_bytes()
    assert main(command) == 0 and out.read_bytes() == first
    for more in (["--pmi", "textbook"], ["--cleaning", "clean_organ_mimic"], ["--labels", "chexpert"]):
        assert main([*command, *more]) == 0
    assert NgramTable.load(out).made["labels"]["version"] == "chexpert-1"
    assert main([*command, "--labels", "shards"]) == 2  # these hold none
    assert "give labels that cover these studies" in capsys.readouterr().err


def test_ngrams_refusals(drawn_shards, tmp_path):
    given = ["prepare", "ngrams", "--out", "n.json", "--labels", "rules"]
    shards = ["--shards", drawn_shards]
    assert "more than 150 times" in refused([*given, *shards], tmp_path)
    assert "--shards --annotation is required" in refused(given, tmp_path)
    assert "none.csv: no such file" in refused([*given, *shards, "--labels", "none.csv"], tmp_path)
    assert "'ppmi'" in refused([*given, *shards, "--pmi", "ppmi"], tmp_path)
    assert "unrecognized arguments: --split" in refused([*given, *shards, "--split", "test"], tmp_path)
    assert "no annotation file" in refused([*given, "--annotation", "none.json"], tmp_path)
    (tmp_path / "a.json").write_text('{"train": [], "val": [], "test": []}')
    assert "holds no labels" in refused([*given, "--annotation", "a.json", "--labels", "shards"], tmp_path)
    assert "no n-gram of 0 training reports" in refused([*given, "--annotation", "a.json"], tmp_path)
    assert not (tmp_path / "n.json").exists()


def test_labels_of_films(words, drawn_shards, tmp_path, capsys):
    out, head = tmp_path / "l.jsonl", tmp_path / "head"
    more = ("--from", "image", "--out", out, "--head", head, "--folds", "2", "--probabilities", tmp_path / "p.safetensors")
    assert main(words(*more)) == 0
    told = capsys.readouterr().out
    assert "test: findings micro F1" in told and "36 studies, source image" in told
    file = LabelFile(out)
    assert (file.source, len(file)) == ("image", 36) and file.made["found"]["Edema"] == "rate"
    probabilities = Probabilities.load(tmp_path / "p.safetensors")
    assert len(probabilities.ids) == 36 and probabilities.values.shape == (36, len(OBSERVATIONS))
    for study in all_studies(drawn_shards).values():
        assert set(OBSERVATIONS) - {"No Finding"} <= set(ModelInputs(file, "x").labels(study))
    first = out.read_bytes()
    assert main(words(*more, "--splits", "test,val", "--below", "unsaid")) == 0  # with the head that was kept
    assert "fitting" not in capsys.readouterr().err
    assert {line["split"] for line in lines(out)[1:]} == {"val", "test"}
    assert all(value == 1 for line in lines(out)[1:] for value in line["labels"].values())
    assert main(words(*more)) == 0 and out.read_bytes() == first


def test_labels_of_retrieved_reports(words, drawn_shards, tmp_path):
    out = tmp_path / "l.jsonl"
    assert main(words("--from", "retrieved", "--out", out)) == 0
    studies = all_studies(drawn_shards)
    train = set(ShardSet(drawn_shards, "train").ids)
    file = LabelFile(out)
    for line in lines(out)[1:]:
        near = line["neighbours"][0]["study"]
        assert near in train and near != line["study"]
        if near in studies and line["study"] in studies:
            assert line["labels"] == label_report(studies[near].sections.findings)
            assert ModelInputs(file, "x").labels(studies[line["study"]]) == line["labels"]


def test_labels_of_own_reports_are_for_training_only(words, tmp_path):
    out = tmp_path / "l.jsonl"
    assert main(words("--from", "report", "--out", out)) == 0
    inputs = ModelInputs(LabelFile(out), "observations.labels")
    assert inputs.labels(Study("S0001", "P0001", "train")) == {"Cardiomegaly": 0, "Pleural Effusion": 1}
    for split in ("val", "test"):
        with pytest.raises(UserError, match="own reports"):
            inputs.check_split(split)


def test_labels_refusals(words, drawn_shards, tmp_path):
    given = words("--out", "l.jsonl", "--from", "retrieved")
    assert "--from 'films'" in refused([*given, "--from", "films"], tmp_path)
    assert "--splits 'dev'" in refused([*given, "--splits", "dev"], tmp_path)
    assert "--splits: empty" in refused([*given, "--splits", ","], tmp_path)
    assert "--below" in refused([*given, "--below", "no"], tmp_path)
    assert "--folds 1" in refused([*given, "--folds", "1"], tmp_path)
    assert "--adjudicate reads reports" in refused([*given, "--adjudicate", "http://h/v1"], tmp_path)
    assert "--adjudicate ftp://h" in refused([*given, "--adjudicate", "ftp://h", "--model", "m"], tmp_path)
    assert "neighbours" in refused([*given, "--neighbours", "99"], tmp_path, talks=True)
    plain = ["prepare", "labels", "tiny/r2gengpt_iu", f"data.shards={drawn_shards}", "--out", "l.jsonl", "--from", "image"]
    assert "vision.cache" in refused(plain, tmp_path, talks=True)
    assert not (tmp_path / "l.jsonl").exists()


@pytest.mark.parametrize(
    "setting", ["adjudicate=http://h/v1", "observations.adjudicate=http://h/v1", "data.endpoint=http://h/v1"]
)
def test_no_setting_names_an_endpoint(words, tmp_path, setting):
    """Report text leaves only for an address that was written as an option of the command."""
    said = refused([*words("--out", "l.jsonl", "--from", "report"), setting], tmp_path, talks=True)
    assert setting.partition("=")[0] in said and "no such key" in said


class _Clerk(BaseHTTPRequestHandler):
    """Calls every study's edema positive; keeps what it was sent."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.sent.append(json.loads(body["messages"][1]["content"]))
        answer = dict.fromkeys(OBSERVATIONS, "not mentioned") | {"Edema": "positive"}
        if len(self.server.sent) in self.server.spoilt:
            answer = {}
        data = json.dumps({"choices": [{"message": {"content": json.dumps(answer)}}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def clerk():
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Clerk)
    server.sent, server.spoilt = [], ()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    server.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    yield server
    server.shutdown()
    server.server_close()


def test_adjudication(words, drawn_shards, tmp_path, clerk, capsys):
    """For a test study it is the retrieved training report that is sent, never its own; a stopped run carries on."""
    out = tmp_path / "l.jsonl"
    command = words("--from", "retrieved", "--splits", "test", "--out", out, "--adjudicate", clerk.url, "--model", "m")
    clerk.spoilt = (3, 4, 5)  # one study, three times
    assert main(command) == 2
    said = capsys.readouterr().err
    assert "1 studies got no labels" in said and "--max-failed 1" in said and not out.exists()
    assert main(command) == 0
    assert len(clerk.sent) == 8 + 1  # the five that were answered are not sent again
    train = {study.sections.findings for study in map(ShardSet(drawn_shards, "train").study, range(24))}
    assert all(sent["report"] in train and sent["probabilities"] is None for sent in clerk.sent)
    file = LabelFile(out)
    assert (file.source, len(file), file.made["adjudicator"]["model"]) == ("retrieved", 6, "m")
    assert all(line["labels"] == {"Edema": 1} for line in lines(out)[1:])
    assert [path.name for path in tmp_path.iterdir()] == ["l.jsonl"]


def test_adjudication_of_own_reports_stays_a_report_label(words, tmp_path, clerk):
    out, head = tmp_path / "l.jsonl", tmp_path / "head"
    assert main(words("--from", "image", "--splits", "val", "--out", out, "--head", head)) == 0
    given = ("--from", "report", "--splits", "val", "--head", head, "--adjudicate", clerk.url, "--model", "m")
    assert main(words(*given, "--out", out)) == 0
    assert LabelFile(out).source == "report" and set(clerk.sent[0]["probabilities"]) == set(OBSERVATIONS)
