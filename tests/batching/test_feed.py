"""What a step reads: the same whatever the order, the workers and the ranks; damage is listed and the batch goes on."""

import copy
import dataclasses
import multiprocessing
import subprocess

import pytest
import torch

from rrg.batching.feed import SplitFeed, StepFeed, shares
from rrg.errors import UserError
from rrg.recipe import load_recipe
from rrg.shards.ledger import Ledger
from rrg.system import System, open_split
from tests.damage import damaged_copy

BATCH = 5  # does not divide 24: steps straddle epochs


def built(shards, *overrides):
    recipe = load_recipe("tiny/r2gengpt_iu", [f"data.shards={shards}", "data.workers=0", *overrides]).value
    return System.build(recipe, None, open_split(recipe, "train"))


def feed_of(system, rank=0, world=1, micro=2, batch=BATCH):
    shards = open_split(system.recipe, "train")
    ledger = Ledger(shards.shard_sizes, 3, 8)
    arguments = {"batch_size": batch, "micro_batch": micro, "rank": rank, "world": world, "section": "findings"}
    return StepFeed(system.films(shards), system.tokeniser, ledger, **arguments)


@pytest.fixture(scope="module")
def system(drawn_shards):
    return built(drawn_shards, "augment.kind=affine", "augment.brightness=0.2")


@pytest.fixture(scope="module")
def damaged(drawn_shards, tmp_path_factory):
    """Study 0's record, a film of study 1, and both films of studies 2 to 5 cannot be read."""
    members = ["S0000.json", "S0001.1.jpg", *(f"S000{n}.0.jpg" for n in range(2, 6))]
    return damaged_copy(drawn_shards, tmp_path_factory.mktemp("damaged") / "shards", *members)


def equal(a, b):
    assert [batch.studies for batch in a.batches] == [batch.studies for batch in b.batches]
    for ours, theirs in zip(a.batches, b.batches, strict=True):
        for field in dataclasses.fields(ours):
            left, right = getattr(ours, field.name), getattr(theirs, field.name)
            if isinstance(left, torch.Tensor):
                assert torch.equal(left, right), field.name
            else:
                assert left == right, field.name
    assert a.damaged == b.damaged and a.number == b.number


def test_a_step_is_the_same_whatever_was_read_before(system):
    forward, backward = feed_of(system), feed_of(system)
    ahead = {step: forward[step] for step in range(8)}
    for step in (7, 0, 3, 3, 6, 1):
        equal(backward[step], ahead[step])


def test_workers_give_what_this_process_gives(system):
    feed = feed_of(system)
    numbers = range(2, 8)
    for ours, theirs in zip(
        shares(feed, numbers, workers=2, prefetch=2), shares(feed, numbers, workers=0, prefetch=1), strict=True
    ):
        equal(ours, theirs)


def test_workers_leave_for_the_process_they_work_for_alone(system):
    """Slurm and then torchrun send SIGTERM to every process of a job while a step is still to be ended."""
    before = multiprocessing.active_children()
    reading = shares(feed_of(system), range(40), workers=2, prefetch=1)
    first = [next(reading), next(reading)]  # one of each: both listen
    workers = [child for child in multiprocessing.active_children() if child not in before]
    for _ in range(3):
        subprocess.run(["kill", "-TERM", *(str(worker.pid) for worker in workers)], check=True)
    rest = list(reading)
    assert len(workers) == 2 and [share.number for share in [*first, *rest]] == list(range(40))

    reading = shares(feed_of(system), range(40), workers=1, prefetch=1)
    next(reading)
    (worker,) = (child for child in multiprocessing.active_children() if child not in before)
    worker.terminate()  # as PyTorch does with one that is stuck
    worker.join(120)
    assert worker.exitcode == 0
    reading.close()


def test_films_of_a_study_change_with_the_epoch_and_its_occurrence_only(system):
    shards = open_split(system.recipe, "train")
    films, place = system.films(shards), feed_of(system).places(0)[0]
    one = films.item(place, system.tokeniser, augment=True).films
    assert torch.equal(one, films.item(place, system.tokeniser, augment=True).films)
    for other in (dataclasses.replace(place, epoch=1), dataclasses.replace(place, occurrence=1)):
        assert not torch.equal(one, films.item(other, system.tokeniser, augment=True).films)
    plain = [films.item(dataclasses.replace(place, epoch=e), system.tokeniser, augment=False).films for e in (0, 1)]
    assert torch.equal(*plain) and not torch.equal(plain[0], one)


@pytest.mark.parametrize("micro", [1, 2, 8])
def test_ranks_share_the_studies_of_a_step(system, micro):
    for world in (1, 2, 3):
        ranks = [feed_of(system, rank, world, micro, batch=6) for rank in range(world)]
        for step in range(5):
            dealt = [feed[step] for feed in ranks]
            studies = [study for share in dealt for batch in share.batches for study in batch.studies]
            assert sorted(studies) == sorted(ranks[0].studies(step)) and len(studies) == 6
            assert {feed.fingerprint(step) for feed in ranks} == {feed_of(system, batch=6).fingerprint(step)}
            assert len({len(share.batches) for share in dealt}) == 1
            assert max(len(batch) for share in dealt for batch in share.batches) <= micro


def test_an_epoch_reads_every_study_once(system):
    feed = feed_of(system, batch=6)
    read = [study for step in range(4) for study in feed.studies(step)]
    assert sorted(read) == sorted(open_split(system.recipe, "train").ids)
    assert feed.studies(4) != feed.studies(0)


def test_a_batch_smaller_than_the_ranks_is_a_users_mistake(system):
    share = feed_of(system, world=6)[0]
    assert share.batches == [] and "train.batch_size 5" in share.error
    with pytest.raises(UserError, match=r"train\.batch_size 5"):
        list(shares(feed_of(system, world=6), [0], workers=1, prefetch=1))


def test_damaged_members_are_listed_and_the_batch_goes_on(damaged):
    system = built(damaged)
    share = SplitFeed(system.films(open_split(system.recipe, "train")), system.tokeniser, [[0, 1, 6, 7]])[0]
    assert share.batches[0].studies == ["S0006", "S0007"] and share.error is None
    assert [(d.study, d.member) for d in share.damaged] == [("S0000", "S0000.json"), ("S0001", "S0001.1.jpg")]
    assert {d.shard for d in share.damaged} == {"train-000000.tar"} and all(d.reason for d in share.damaged)


def test_every_damaged_study_of_a_step_is_found_by_one_rank(damaged):
    system = built(damaged)
    alone = {d.study for d in feed_of(system, batch=24)[0].damaged}
    assert alone == {f"S000{n}" for n in range(6)}
    ranks = [feed_of(system, rank, 3, batch=24)[0] for rank in range(3)]
    found = [d.study for share in ranks for d in share.damaged]
    assert sorted(found) == sorted(alone)


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("connector.views=concat",),
        ("vision.train=full",),
        ("vision.kind=none", "connector.kind=words", "language.train=full", "train.validate_reports=false"),
        ("vision.kind=none", "connector.kind=none", "language.train=full", "train.validate_reports=false"),
    ],
)
def test_a_micro_batch_of_which_nothing_can_be_read_trains_on_nothing(drawn_shards, tmp_path, overrides):
    """Gradients are zero, not absent: the ranks stay in step."""
    shards = damaged_copy(drawn_shards, tmp_path / "shards", "S0002.json", "S0003.json")
    system = built(shards, *overrides)
    share = SplitFeed(system.films(open_split(system.recipe, "train")), system.tokeniser, [[2, 3]])[0]
    (batch,) = share.batches
    assert batch.studies == [""] and batch.tokens == 0 and len(share.damaged) == 2
    system.model.train()
    loss = sum(value for value, _ in system.model(batch).values())
    loss.backward()
    assert loss.item() == 0.0
    for name, parameter in system.model.named_parameters():
        if parameter.requires_grad and not name.startswith("language."):
            assert parameter.grad is not None and not parameter.grad.any(), name
    assert len(system.model.generate(batch, system.recipe.generate)) == 1


def test_cached_features_stand_in_for_films_and_are_cut_to_the_views(system):
    class Cache:
        shape = (4, 8)

        def get(self, index):
            return torch.full((3, *self.shape), float(index))

    films = copy.copy(system.films(open_split(system.recipe, "train"), Cache()))
    batch = SplitFeed(films, system.tokeniser, [[2, 5]])[0].batches[0]
    assert batch.pixel_values is None and batch.features.shape == (2, 2, 4, 8) and batch.view_mask.all()
    assert batch.features[:, 0, 0, 0].tolist() == [2.0, 5.0]
    blank = films.blank(system.tokeniser(films.shards.study(0)))
    assert blank.features.shape == (1, 4, 8) and blank.films is None


def test_at_most_max_views_are_read(drawn_shards):
    system = built(drawn_shards, "data.max_views=1")
    share = SplitFeed(system.films(open_split(system.recipe, "train")), system.tokeniser, [[0, 1]])[0]
    assert share.batches[0].pixel_values.shape[:2] == (2, 1)
