"""Nearest training reports: exact, of other patients, never the study itself, never another split."""

import pytest
import torch
from torch.nn import functional as F

from rrg.data.study import Study
from rrg.errors import UserError
from rrg.observations.film_vectors import FilmVectors
from rrg.observations.retrieval import ReportBank, RetrievedLabels


def vectors(split, x, patients=None, features="f"):
    ids = tuple(f"{split}{n}" for n in range(len(x)))
    return FilmVectors(split, ids, patients or tuple(f"p-{study}" for study in ids), x, features)


@pytest.fixture(scope="module")
def bank():
    return vectors("train", torch.randn(97, 12, generator=torch.manual_seed(0)))


def test_exact_whatever_the_chunk(bank):
    queries = vectors("test", torch.randn(31, 12, generator=torch.manual_seed(1)))
    found = ReportBank(bank).neighbours(queries, 5, chunk=7)
    assert {k: [n.study for n in v] for k, v in found.items()} == {
        k: [n.study for n in v] for k, v in ReportBank(bank).neighbours(queries, 5, chunk=100).items()
    }
    mean, spread = bank.x.mean(0), bank.x.std(0, unbiased=False)
    a, b = (F.normalize((x.double() - mean) / spread, dim=1) for x in (queries.x, bank.x))
    for row, study in enumerate(queries.ids):
        best = (a[row] @ b.T).sort(descending=True)
        assert [neighbour.study for neighbour in found[study]] == [bank.ids[place] for place in best.indices[:5]]
        assert [neighbour.similarity for neighbour in found[study]] == pytest.approx(best.values[:5].tolist(), abs=1e-5)


def test_a_training_study_finds_neither_itself_nor_its_patient():
    x = torch.randn(20, 6, generator=torch.manual_seed(2))
    x[1] = x[0]  # the same patient's next study, with the same films
    train = vectors("train", x, ("p0", "p0", *(f"p{n}" for n in range(2, 20))))
    for study, near in ReportBank(train).neighbours(train, 3).items():
        assert study not in {neighbour.study for neighbour in near}
    assert "train1" not in {neighbour.study for neighbour in ReportBank(train).neighbours(train, 18)["train0"]}
    with pytest.raises(UserError, match="study train0: 19 neighbours asked for, 18"):
        ReportBank(train).neighbours(train, 19)


def test_equal_ones_come_in_the_order_of_the_bank():
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
    near = ReportBank(vectors("train", x)).neighbours(vectors("val", torch.tensor([[2.0, -1.0]])), 2)
    assert [neighbour.study for neighbour in near["val0"]] == ["train0", "train2"]


def test_held_out_reports_cannot_be_retrieved(bank):
    """The leak that a bank of all studies would be."""
    for split in ("val", "test"):
        with pytest.raises(UserError, match=f"'{split}': only training reports"):
            ReportBank(vectors(split, bank.x))
    with pytest.raises(UserError, match="made otherwise"):
        ReportBank(bank).neighbours(vectors("test", bank.x, features="g"))
    with pytest.raises(UserError, match="at least 1"):
        ReportBank(bank).neighbours(vectors("test", bank.x), 0)


def test_votes():
    class Near:
        def __init__(self, study):
            self.study = study

    labels = {"a": {"Edema": 1, "Fracture": 0}, "b": {"Edema": 0}, "c": {"Edema": 0, "Pneumonia": 1}}
    query = Study("q", "p", "test")
    one = RetrievedLabels({"q": (Near("a"),)}, labels)
    assert one.labels(query) == {"Edema": 1, "Fracture": 0} and one.source == "retrieved"
    three = RetrievedLabels({"q": (Near("a"), Near("b"), Near("c"))}, labels)
    assert three.labels(query) == {"Edema": 0}  # most say nothing of a fracture or pneumonia
    assert RetrievedLabels({"q": (Near("a"), Near("b"))}, labels).labels(query) == {"Edema": 1, "Fracture": 0}  # even: the nearer
    with pytest.raises(UserError, match="nothing was retrieved for study q"):
        RetrievedLabels({}, labels).labels(query)
    for wrong in ("q", "test7"):
        with pytest.raises(UserError, match=f"study q: {wrong} was retrieved"):
            RetrievedLabels({"q": (Near(wrong),)}, labels | {"q": {}}).labels(query)
