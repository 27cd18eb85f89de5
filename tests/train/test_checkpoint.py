"""Checkpoints: whole or not at all, strict both ways, readable refusals."""

import json
import os
import resource
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from rrg.config.training import TrainOptions
from rrg.errors import UserError
from rrg.train import checkpoint
from rrg.train.checkpoint import State
from rrg.train.optim import build_optimizer


class Small(nn.Module):
    """Two trained parts with buffers, one frozen part."""

    def __init__(self, seed=0, width=5):
        super().__init__()
        torch.manual_seed(seed)
        self.connector = nn.Linear(4, width)
        self.connector.register_buffer("average", torch.rand(1))
        self.connector.register_buffer("scratch", torch.rand(1), persistent=False)
        self.language = nn.Linear(width, 6).requires_grad_(False)
        self.language.register_buffer("table", torch.rand(3))
        self.objectives = nn.ModuleDict({"mine": nn.Linear(2, 1)})

    def trained_steps(self, optimizer, count):
        for _ in range(count):
            (self.connector(torch.ones(2, 4)).sum() + self.objectives["mine"](torch.ones(2)).sum()).backward()
            optimizer.step()
            optimizer.zero_grad()


def state(step, **more):
    return State(step=step, position=8 * step, frozen="f" * 64, data="d" * 64, **more)


@pytest.fixture
def saved(tmp_path):
    """(folder of checkpoints, model, optimizer) after three steps and a checkpoint."""
    model = Small()
    optimizer = build_optimizer(model, TrainOptions())
    model.trained_steps(optimizer, 3)
    checkpoint.save(tmp_path, model, optimizer, state(3, best={"step": 3, "score": 0.5}))
    return tmp_path, model, optimizer


def rewrite(file, change):
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


def test_what_is_saved_comes_back_bitwise(saved):
    folder, model, optimizer = saved
    other = Small(seed=9)
    theirs = build_optimizer(other, TrainOptions())
    found = checkpoint.load(folder / "step_00000003", other, theirs)
    assert found == state(3, best={"step": 3, "score": 0.5})
    for name, tensor in checkpoint.trainable_tensors(model).items():
        assert torch.equal(tensor, checkpoint.trainable_tensors(other)[name])
    model.trained_steps(optimizer, 2)
    other.trained_steps(theirs, 2)
    for (name, ours), (_, read) in zip(model.named_parameters(), other.named_parameters(), strict=True):
        assert torch.equal(ours, read) == (not name.startswith("language")), name


def test_only_what_is_trained_and_its_own_buffers_are_in_it(saved):
    tensors = load_file(saved[0] / "step_00000003" / "trainable.safetensors")
    assert set(tensors) == {
        "connector.weight",
        "connector.bias",
        "connector.average",
        "objectives.mine.weight",
        "objectives.mine.bias",
    }
    assert sorted(p.name for p in (saved[0] / "step_00000003").iterdir()) == [
        "optimizer.safetensors",
        "state.json",
        "trainable.safetensors",
    ]


@pytest.mark.parametrize(
    "change,message",
    [
        (lambda t: t.pop("connector.bias"), r"1 missing \(for example connector\.bias\)"),
        (lambda t: t.update(extra=torch.zeros(1)), r"1 not in this recipe \(for example extra\)"),
        (lambda t: t.update({"connector.bias": torch.zeros(6)}), r"1 of another shape \(for example connector\.bias\)"),
    ],
)
def test_tensors_must_fit_both_ways(saved, change, message):
    folder, model, _ = saved
    before = {name: tensor.clone() for name, tensor in checkpoint.trainable_tensors(model).items()}
    rewrite(folder / "step_00000003" / "trainable.safetensors", change)
    with pytest.raises(UserError, match=message) as caught:
        checkpoint.load(folder / "step_00000003", model)
    assert "step_00000003" in str(caught.value) and "\n" not in str(caught.value)
    assert all(torch.equal(before[name], tensor) for name, tensor in checkpoint.trainable_tensors(model).items())


def test_another_width_is_said_as_a_whole(saved):
    with pytest.raises(UserError, match="2 of another shape"):
        checkpoint.load(saved[0] / "step_00000003", Small(width=7))


@pytest.mark.parametrize(
    "change,message",
    [
        (lambda t: t.pop("exp_avg:connector.bias"), r"lacks part of the state of connector\.bias"),
        (lambda t: t.update({"exp_avg:gone": torch.zeros(1)}), r"unknown state, for example 'exp_avg:gone'"),
        (lambda t: t.update({"exp_avg:connector.bias": torch.zeros(9)}), r"another shape.*connector\.bias"),
    ],
)
def test_the_optimizers_state_must_fit_too(saved, change, message):
    folder, model, optimizer = saved
    rewrite(folder / "step_00000003" / "optimizer.safetensors", change)
    with pytest.raises(UserError, match=message):
        checkpoint.load(folder / "step_00000003", model, optimizer)


def test_parameters_that_never_moved_have_no_state(tmp_path):
    model = Small()
    optimizer = build_optimizer(model, TrainOptions())
    checkpoint.save(tmp_path, model, optimizer, state(0))
    assert checkpoint.load(tmp_path / "step_00000000", model, optimizer).step == 0


@pytest.mark.parametrize("name", ["trainable.safetensors", "optimizer.safetensors"])
@pytest.mark.parametrize("damage", ["cut", "empty", "gone", "noise", "folder"])
def test_damaged_tensors_are_named(saved, name, damage):
    folder, model, optimizer = saved
    file = folder / "step_00000003" / name
    data = file.read_bytes()
    file.unlink()
    if damage == "folder":
        file.mkdir()
    elif damage != "gone":
        file.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "noise": os.urandom(200)}[damage])
    with pytest.raises(UserError, match=name):
        checkpoint.load(folder / "step_00000003", model, optimizer)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"step": 3}', '{"surprise": 1}'])
def test_a_damaged_state_file_is_named(saved, text):
    (saved[0] / "step_00000003" / "state.json").write_text(text)
    with pytest.raises(UserError, match=r"state\.json is missing or damaged"):
        checkpoint.read_state(saved[0] / "step_00000003")


def test_the_state_of_another_format_is_refused(saved):
    file = saved[0] / "step_00000003" / "state.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": 99}))
    with pytest.raises(UserError, match="format 99"):
        checkpoint.read_state(file.parent)


def fill(folder, model, optimizer, steps, best=None):
    for step in steps:
        checkpoint.save(folder, model, optimizer, state(step, best={} if best is None else {"step": best, "score": 1.0}))


def test_resolving_by_name_and_step(saved):
    folder, model, optimizer = saved
    fill(folder, model, optimizer, [7, 12], best=3)
    assert checkpoint.resolve(folder, "last").name == "step_00000012"
    assert checkpoint.resolve(folder, "best").name == "step_00000003"
    assert checkpoint.resolve(folder, "7").name == checkpoint.resolve(folder, "0007").name == "step_00000007"
    for wrong in ("99", "frist", "-7", "7.0", "", "²"):
        with pytest.raises(UserError, match="there are: best, last, 3, 7, 12"):
            checkpoint.resolve(folder, wrong)


def test_resolving_where_there_is_none(saved, tmp_path):
    with pytest.raises(UserError, match="no checkpoint yet"):
        checkpoint.resolve(tmp_path / "nowhere", "last")
    folder, model, optimizer = saved
    fill(folder, model, optimizer, [5])
    with pytest.raises(UserError, match="--checkpoint last"):
        checkpoint.resolve(folder, "best")
    fill(folder, model, optimizer, [6], best=4)  # removed by hand
    with pytest.raises(UserError, match="no checkpoint '4'"):
        checkpoint.resolve(folder, "best")


def test_the_newest_and_the_best_are_kept_and_leftovers_go(saved):
    folder, model, optimizer = saved
    fill(folder, model, optimizer, [4, 5, 6, 7])
    (folder / ".step_00000008.4711").mkdir()
    (folder / "notes.txt").write_text("mine")
    checkpoint.retain(folder, 2, 4)
    assert sorted(p.name for p in folder.iterdir()) == ["notes.txt", "step_00000004", "step_00000006", "step_00000007"]
    checkpoint.retain(folder, 1, None)
    assert list(checkpoint.existing(folder)) == [7]


def test_the_half_written_checkpoint_of_a_killed_process_with_the_same_number_is_no_obstacle(saved):
    """In containers the training process has the same number every time."""
    folder, model, optimizer = saved
    leftover = folder / f".step_00000009.{os.getpid()}"
    leftover.mkdir()
    (leftover / "trainable.safetensors").write_bytes(b"half")
    checkpoint.save(folder, model, optimizer, state(9))
    assert checkpoint.load(folder / "step_00000009", model, optimizer).step == 9
    assert not leftover.exists()


def test_marking_replaces_only_the_state(saved):
    folder = saved[0]
    before = (folder / "step_00000003" / "trainable.safetensors").read_bytes()
    checkpoint.mark(folder, state(3, best={"step": 1, "score": 2.0}))
    assert checkpoint.read_state(folder / "step_00000003").best == {"step": 1, "score": 2.0}
    assert (folder / "step_00000003" / "trainable.safetensors").read_bytes() == before
    assert len(list((folder / "step_00000003").iterdir())) == 3


def limited(bytes_a_file, work):
    """Run `work` in a child whose files cannot grow beyond a limit: what a full disk looks like. Returns what it printed."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_a_file, bytes_a_file))
        try:
            work()
            said = b"written"
        except UserError as error:
            said = str(error).encode()
        except BaseException as error:  # noqa: BLE001 (told to the parent, which fails the test)
            said = repr(error).encode()
        os.write(write, said)
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read, "rb") as file:
        return file.read().decode()


def test_a_full_disk_leaves_the_earlier_checkpoint_intact(saved):
    folder, model, optimizer = saved
    before = {p.name: p.read_bytes() for p in (folder / "step_00000003").iterdir()}
    said = limited(300, lambda: checkpoint.save(folder, model, optimizer, state(4)))
    assert (
        said.startswith("checkpoint ") and "step_00000004: cannot be written" in said and "earlier checkpoints are intact" in said
    )
    assert [p.name for p in folder.iterdir()] == ["step_00000003"]
    assert {p.name: p.read_bytes() for p in (folder / "step_00000003").iterdir()} == before
    said = limited(10, lambda: checkpoint.mark(folder, state(3)))
    assert "step_00000003" in said and "cannot be written" in said
    assert {p.name: p.read_bytes() for p in (folder / "step_00000003").iterdir()} == before
    shutil.rmtree(folder / "step_00000003")
