"""The event file: appended to, whole lines, whatever a killed run left."""

import json

import pytest

from rrg.errors import UserError
from rrg.train.events import EventLog


def lines(path):
    return [json.loads(line) for line in path.read_text().split("\n")[:-1] if line.startswith("{") and line.endswith("}")]


def test_events_are_appended_and_timed(tmp_path):
    path = tmp_path / "run" / "events.jsonl"
    for start in (0, 2):
        log = EventLog(path, None, start)
        log.write("step", start + 1, loss=1.5, lr={"connector": 1e-4})
        log.write("step", start + 2, loss=None)
        log.close()
    assert [line["step"] for line in lines(path)] == [1, 2, 3, 4]
    assert lines(path)[0]["loss"] == 1.5 and lines(path)[1]["loss"] is None
    assert lines(path)[0]["time"].endswith("+00:00")


def test_a_line_is_there_before_the_log_is_closed(tmp_path):
    log = EventLog(tmp_path / "events.jsonl", None, 0)
    log.write("start", 0)
    assert len(lines(tmp_path / "events.jsonl")) == 1
    log.close()


@pytest.mark.parametrize("cut", [1, 10, 40])
def test_half_a_line_is_not_glued_to_the_next(tmp_path, cut):
    path = tmp_path / "events.jsonl"
    whole = json.dumps({"event": "step", "step": 1, "loss": 1.0}) + "\n"
    path.write_text(whole + whole[:cut])
    log = EventLog(path, None, 1)
    log.write("resume", 1)
    log.close()
    assert [line["event"] for line in lines(path)] == ["step", "resume"]
    assert path.read_text().split("\n")[1] == whole[:cut].rstrip("\n")


def test_scalars_go_beside_it_and_none_is_left_out(tmp_path):
    log = EventLog(tmp_path / "events.jsonl", tmp_path / "tensorboard", 0)
    told = {"objectives": {"mine": -0.1}, "logged": {"mine.information.image": 0.1}, "group_norms": {"objectives.mine": 2.0}}
    log.write("step", 1, loss=None, grad_norm=1.0, lr={"connector": 1e-4}, **told)
    log.write("step", 2, loss=None, grad_norm=None, lr={}, objectives=None, logged=None, group_norms=None)
    log.write("validation", 1, metrics={"bleu_4": 0.1, "meteor": None})
    log.close()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    scalars = {"train/grad_norm", "lr/connector", "val/bleu_4", "objective/mine", "objective/mine.information.image"}
    assert set(board.Tags()["scalars"]) == scalars | {"grad_norm/objectives.mine"}


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"events\.jsonl"):
        EventLog(tmp_path / "file" / "events.jsonl", None, 0)
