"""Which studies are shown, what they agree on, and their films."""

from __future__ import annotations

import base64
import io
from collections import Counter
from pathlib import Path

import pytest
from fabricated_run import REPORTS, write_predictions
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rrg.view.agreement import compare
from rrg.view.films import SIDE, Films, shrink
from rrg.view.gallery import gallery
from rrg.view.rundir import read_run
from rrg.view.selection import balanced

NORMAL = "The heart is normal in size. The lungs are clear."


@pytest.mark.parametrize(
    ("reference", "generated", "agree", "missed", "invented", "kinds"),
    [
        (NORMAL, NORMAL, ("No Finding",), (), (), ("correct",)),
        ("There is cardiomegaly.", NORMAL, (), ("Cardiomegaly",), (), ("missed",)),
        (NORMAL, "There is cardiomegaly.", (), (), ("Cardiomegaly",), ("invented",)),
        ("There is cardiomegaly.", "There is a pneumothorax.", (), ("Cardiomegaly",), ("Pneumothorax",), ("missed", "invented")),
        (NORMAL, "", (), ("No Finding",), (), ("missed",)),
        ("", "", (), (), (), ()),
    ],
)
def test_agreement(reference: str, generated: str, agree: tuple, missed: tuple, invented: tuple, kinds: tuple):
    found = compare(reference, generated)
    assert (found.agree, found.missed, found.invented, found.kinds) == (agree, missed, invented, kinds)


def test_rare_groups_show_as_often_as_common_ones_while_they_last():
    groups = [("common",)] * 900 + [("rare",)] * 30 + [("rarest",)] * 3
    chosen = balanced(groups, 33, seed=1)
    assert Counter(groups[i][0] for i in chosen) == {"common": 15, "rare": 15, "rarest": 3}
    assert chosen == sorted(chosen)
    assert chosen == balanced(groups, 33, seed=1)
    assert chosen != balanced(groups, 33, seed=2)


@given(st.lists(st.lists(st.sampled_from("abc"), max_size=3).map(tuple), max_size=30), st.integers(0, 40), st.integers())
def test_as_many_as_asked_and_none_twice(groups: list[tuple[str, ...]], count: int, seed: int):
    chosen = balanced(groups, count, seed)
    assert len(chosen) == len(set(chosen)) == min(count, len(groups))


def test_film_is_small_grey_jpeg():
    buffer = io.BytesIO()
    Image.new("RGB", (1200, 900), (200, 100, 50)).save(buffer, "JPEG")
    film = shrink(buffer.getvalue(), "pa")
    with Image.open(io.BytesIO(base64.b64decode(film.uri.removeprefix("data:image/jpeg;base64,")))) as image:
        assert (image.size, image.mode, image.format) == ((SIDE, 192), "L", "JPEG")
    assert (film.width, film.height) == (SIDE, 192)


def test_small_film_is_not_enlarged():
    buffer = io.BytesIO()
    Image.new("L", (37, 41)).save(buffer, "JPEG")
    assert (shrink(buffer.getvalue()).width, shrink(buffer.getvalue()).height) == (37, 41)


def test_both_views_of_every_study(run: Path):
    found = gallery(read_run(run, "test"), None)
    assert [card.study for card in found.cards] == [study for study, _, _ in REPORTS]
    assert {tuple(film.view for film in card.films) for card in found.cards} == {("pa", "lateral")}
    assert found.notes == ()
    assert found.kinds == {"correct": 2, "missed": 2, "invented": 2}
    assert dict(found.findings)["Cardiomegaly"] == 2


def test_studies_that_the_shards_do_not_have_are_named(run: Path):
    write_predictions(run / "predictions" / "test.jsonl", [*REPORTS, ("GONE_1", "Clear.", "Clear.")])
    found = gallery(read_run(run, "test"), None)
    assert found.notes == ("1 study not in the shards: GONE_1.",)
    assert found.cards[-1].films == ()


def test_damaged_film_costs_one_study_not_the_page(run: Path, tmp_path: Path):
    tar = next((tmp_path / "shards").glob("test-*.tar"))
    data = bytearray(tar.read_bytes())
    data[data.index(b"\xff\xd8\xff") + 200] ^= 0xFF
    tar.write_bytes(data)
    found = gallery(read_run(run, "test"), None)
    assert sum(not card.films for card in found.cards) == 1
    assert found.notes == ("1 study with a film that does not decode: S1_a.",)


@pytest.mark.parametrize("shards", [None, "", 3, "nowhere/at/all"])
def test_without_shards_there_is_a_reason(shards: object):
    films = Films(shards, "test")
    assert films.absent
    assert films.of("S1_a") == ()


def test_folder_that_holds_no_shards_is_a_reason_too(tmp_path: Path):
    assert "cannot be read" in Films(str(tmp_path), "test").absent
