"""Shares cover every item once; memories are by content, hold no text and survive damage."""

import json

import numpy as np
import pytest

from rrg.metrics.effort import MOST_FILES, Effort, in_shares, remembered, spending
from rrg.metrics.labelled import label_rows, labeller_of
from rrg.observations.labels import label_report

TEXTS = ["No effusion.", "Small left effusion.", "Possible edema.", "", "No effusion.", "Cardiomegaly. Pacemaker."]


def squares(items):
    return [item * item for item in items]


@pytest.mark.parametrize("threads", [True, False])
def test_shares_are_exactly_once_and_in_order(threads):
    with spending(Effort(workers=3)):
        assert in_shares(squares, list(range(11)), threads=threads) == squares(range(11))
        assert in_shares(squares, [], threads=threads) == []


def test_an_incomplete_share_is_a_fault():
    with spending(Effort(workers=2)), pytest.raises(RuntimeError, match="incomplete"):
        in_shares(lambda items: items[1:], [1, 2, 3, 4], threads=True)


def test_labels_are_those_of_the_labeller_with_and_without_workers_and_memory(tmp_path):
    expected = [label_report(text) for text in TEXTS]
    for effort in (Effort(), Effort(workers=2, cache=tmp_path), Effort(cache=tmp_path)):
        with spending(effort):
            label = labeller_of(TEXTS)
            assert [dict(label(text)) for text in TEXTS] == expected
            assert label("Pneumothorax.") == label_report("Pneumothorax.")
    (file,) = tmp_path.iterdir()
    assert "ffusion" not in file.read_text()


def test_memory_is_by_content_and_made_anew_when_damaged(tmp_path):
    calls = []

    def make():
        calls.append(1)
        return np.array([[1.5, -1.0]])

    with spending(Effort(cache=tmp_path)):
        for texts in (["a", "b"], ["a", "b"], ["ab"], ["a", "b", ""]):
            assert (remembered("kind-1", texts, make) == [[1.5, -1.0]]).all()
        assert len(calls) == 3
        assert remembered("kind-2", ["a", "b"], make) is not None and len(calls) == 4
        for file in tmp_path.iterdir():
            file.write_text(json.dumps({"shape": [2, 2], "rows": [1]}))
        remembered("kind-1", ["a", "b"], make)
        assert len(calls) == 5
    assert remembered("kind-1", ["a", "b"], make) is not None and len(calls) == 6


def test_memory_is_bounded_and_optional(tmp_path, monkeypatch):
    monkeypatch.setattr("rrg.metrics.effort.MOST_FILES", 3)
    with spending(Effort(cache=tmp_path)):
        for number in range(6):
            remembered("kind", [str(number)], lambda: np.zeros(1))
    assert len(list(tmp_path.iterdir())) == 3 <= MOST_FILES
    (tmp_path / "file").write_text("")
    with spending(Effort(cache=tmp_path / "file" / "below")):
        assert remembered("kind", ["x"], lambda: np.ones(1)) == 1


def test_label_rows_say_what_is_not_mentioned():
    assert label_rows([""]) == [[2.0] * 14]
