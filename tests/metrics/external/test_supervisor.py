"""Workers that die, hang and talk nonsense, as real processes: every study gets its result or its named failure, in order."""

import sys
from pathlib import Path

import pytest

from rrg.metrics.external.supervisor import StudyTexts, ask
from rrg.metrics.external.worker import Command
from tests.processes import until

STUDIES = [StudyTexts(f"s{number}", "g" * number, "r") for number in range(7)]
EXPECTED = [float(number + 100) for number in range(7)]
GOOD = "def act(study): say({'id': study['id'], 'result': score(study)})\n"


def run(command, tmp_path, studies=STUDIES, **more):
    more.setdefault("batch", 3)
    return ask(command, studies, log=tmp_path / "worker.log", **more)


def scores(answers):
    return [result and result["score"] for result in answers.results]


def running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def starts(tmp_path):
    return (tmp_path / "starts").stat().st_size if (tmp_path / "starts").exists() else 0


def test_order_is_kept_over_batches_and_inside_them(stand_in, tmp_path):
    code = "kept = []\ndef act(study):\n    kept.append(study)\n    if study['id'] in (2, 5, 6):\n"
    code += "        while kept: s = kept.pop(); say({'id': s['id'], 'result': score(s)})\n"
    seen = []
    answers = run(stand_in(code), tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert scores(answers) == EXPECTED and not answers.failed and not answers.losses
    assert answers.versions == {"stand-in": "1"} and seen[-1] == (7, 7) and len(seen) == 7


def test_no_studies_start_no_process(stand_in, tmp_path):
    answers = run(stand_in(GOOD), tmp_path, studies=[])
    assert answers.results == [] and not answers.missing and starts(tmp_path) == 0


def test_a_killed_worker_is_started_once_more_for_what_is_left(stand_in, tmp_path):
    code = "def act(study):\n    if start == 1 and study['id'] == 4: os.kill(os.getpid(), 9)\n"
    answers = run(stand_in(code + "    say({'id': study['id'], 'result': score(study)})\n"), tmp_path)
    assert scores(answers) == EXPECTED and starts(tmp_path) == 2
    assert answers.losses == ["it ended in a batch (signal 9)"]


@pytest.mark.parametrize("poison", [0, 4, 6])
def test_a_study_that_kills_the_worker_takes_none_along_but_those_after_it_in_its_batch(stand_in, tmp_path, poison):
    code = (
        f"def act(study):\n    if study['id'] == {poison}: os._exit(3)\n    say({{'id': study['id'], 'result': score(study)}})\n"
    )
    answers = run(stand_in(code), tmp_path)
    lost = [place for place in range(7) if place >= poison and place // 3 == poison // 3]
    assert sorted(answers.failed) == lost and starts(tmp_path) == 2
    assert [score for score in scores(answers) if score is not None] == [EXPECTED[p] for p in range(7) if p not in lost]
    assert all("lost twice" in reason and "exit code 3" in reason for reason in answers.failed.values())


def test_a_worker_that_hangs_is_ended_with_its_children(stand_in, silent_from, tmp_path):
    code = "import subprocess\ndef act(study):\n    if study['id'] == 5:\n        child = subprocess.Popen(['sleep', '6000'])\n"
    code += "        open(os.path.join(settings['folder'], f'child{start}'), 'w').write(str(child.pid))\n"
    code += "        open(os.path.join(settings['folder'], 'silent'), 'w').close()\n        time.sleep(6000)\n"
    silent_from(tmp_path / "silent")
    answers = run(stand_in(code + "    say({'id': study['id'], 'result': score(study)})\n", answer_seconds=1.0), tmp_path)
    assert sorted(answers.failed) == [5] and scores(answers)[6] == EXPECTED[6]
    assert all("said nothing for 1 s in a batch and was ended" in loss for loss in answers.losses) and len(answers.losses) == 2
    for number in (1, 2):
        pid = int((tmp_path / f"child{number}").read_text())
        until(lambda: not running(pid))  # noqa: B023 (called at once)


NONSENSE = {
    "not json": "sys.stdout.write('Loading model...\\n'); sys.stdout.flush()",
    "not an object": "say([1, 2])",
    "bytes": "os.write(1, bytes(range(128, 256)) + b'\\n')",
    "no such study": "say({'id': 99, 'result': {'score': 1.0}})",
    "id is a bool": "say({'id': True, 'result': {'score': 1.0}})",
    "other shape": "say({'id': study['id'], 'result': {'points': 1.0}})",
    "not a number": "say({'id': study['id'], 'result': {'score': float('nan')}})",
    "twice": "[say({'id': study['id'], 'result': score(study)}) for _ in range(2)]",
    "nothing": "pass",
    "closed output": "os.close(1); time.sleep(600)",
}


@pytest.mark.parametrize("what", NONSENSE)
def test_what_is_not_of_the_protocol_ends_the_worker(stand_in, tmp_path, what):
    from rrg.metrics.external.single import well_formed

    code = f"def act(study):\n    if study['id'] == 1:\n        {NONSENSE[what]}\n        return\n"
    answers = run(stand_in(code + "    say({'id': study['id'], 'result': score(study)})\n"), tmp_path, check=well_formed)
    assert starts(tmp_path) == 2 and len(answers.losses) == (1 if what == "twice" else 2)
    assert set(answers.failed) <= {1, 2} and (1 in answers.failed or what == "twice")
    assert [scores(answers)[place] for place in (0, 3, 4, 5, 6)] == [EXPECTED[place] for place in (0, 3, 4, 5, 6)]


def test_failures_that_the_worker_names_are_kept_and_start_nothing_again(stand_in, tmp_path):
    code = "def act(study):\n    said = {'error': 'ValueError'} if study['id'] % 2 else {'result': score(study)}\n"
    code += "    say({'id': study['id'], **said})\n"
    answers = run(stand_in(code), tmp_path)
    assert answers.failed == {1: "ValueError", 3: "ValueError", 5: "ValueError"} and starts(tmp_path) == 1
    assert scores(answers) == [EXPECTED[p] if p % 2 == 0 else None for p in range(7)]


def test_a_refusal_is_the_reason_and_nothing_is_tried_again(stand_in, tmp_path):
    answers = run(stand_in("say({'refused': 'chexbert.pth: not a checkpoint'})\n"), tmp_path)
    assert answers.missing == "chexbert.pth: not a checkpoint" and starts(tmp_path) == 1


def test_a_worker_that_never_is_ready(stand_in, tmp_path):
    for code, said in {
        "sys.exit(7)": "it ended while it was loading (exit code 7)",
        "time.sleep(600)": "it said nothing for 1 s while it was loading and was ended",
        "say({'hello': 1}); time.sleep(600)": "its first line is not of the protocol",
    }.items():
        (tmp_path / "starts").unlink(missing_ok=True)
        answers = run(stand_in(code + "\n", start_seconds=1.0 if code.startswith("time") else 900.0), tmp_path)
        assert answers.missing.startswith(f"its worker never became ready: {said}"), answers.missing
        assert starts(tmp_path) == 2 or code.startswith("time")  # which may be ended before its first line ran
    absent = Command(tmp_path / "no-python", tmp_path / "x.py")
    assert "cannot be started" in run(absent, tmp_path).missing


def test_a_worker_that_reads_nothing_does_not_block_its_parent(stand_in, tmp_path):
    code = "say({'ready': {'versions': {}}})\ntime.sleep(600)\n"
    studies = [StudyTexts("s", "word " * 200_000, "")]
    answers = run(stand_in(code, answer_seconds=1.0), tmp_path, studies=studies)
    assert "it read nothing for 1 s" in answers.losses[0] and list(answers.failed) == [0]


def test_report_text_reaches_neither_log_nor_reasons(stand_in, tmp_path):
    secret = "Metastatic Osteosarcoma of rib"
    code = "def act(study):\n    sys.stderr.write('loading\\n' + study['generated'].upper() + ' !\\nchatter\\n')\n"
    code += "    say({'id': study['id'], 'error': 'bad token in ' + study['generated']})\n"
    answers = run(stand_in(code), tmp_path, studies=[StudyTexts("s", f"There is {secret}, new.", "Clear")])
    text = (tmp_path / "worker.log").read_text()
    assert text.splitlines() == ["loading", "[withheld: repeats words of a report]", "chatter"]
    assert secret.lower() not in (text + repr(answers.failed)).lower()
    assert (tmp_path / "worker.log").stat().st_mode & 0o077 == 0


def test_only_its_own_packages_and_no_network(tmp_path, monkeypatch):
    """Through the real wire module: variables of another environment are gone, sockets are refused, prints go to the log."""
    from rrg.metrics.external import catalogue

    workers = catalogue.ENVIRONMENTS["chexbert"].script.parent
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "foreign"))
    script = tmp_path / "probe.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(workers)!r})\n"
        "import os, socket\nfrom wire import one_by_one, serve\n"
        "def probe(study):\n"
        "    print('printed by a library'); os.system('echo printed by a child')\n"
        "    try: socket.create_connection(('127.0.0.1', 9), 1)\n"
        "    except PermissionError: pass\n"
        "    else: raise AssertionError\n"
        "    assert os.environ['HF_HUB_OFFLINE'] == '1' and 'PYTHONPATH' not in os.environ\n"
        "    if study['generated'] == 'bad': raise ValueError('quotes ' + study['reference'])\n"
        "    return {'score': 1.0}\n"
        "serve(lambda settings: one_by_one(probe), ['no-such-package'])\n"
    )
    studies = [StudyTexts("a", "good", "x"), StudyTexts("b", "bad", "secret words of a report"), StudyTexts("c", "good", "y")]
    answers = run(Command(Path(sys.executable), script), tmp_path, studies=studies)
    assert scores(answers) == [1.0, None, 1.0] and answers.failed == {1: "ValueError"} and not answers.losses
    text = (tmp_path / "worker.log").read_text()
    assert "printed by a library" in text and "printed by a child" in text and "ValueError at probe.py" in text
    assert "secret" not in text
