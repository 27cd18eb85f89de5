"""Checkpoints written in the background: whole or not at all, and no failure is lost."""

import os
import resource

import pytest
import torch
from torch import nn

from rrg.errors import UserError
from rrg.strategy.moments import moments_of
from rrg.train import checkpoint
from rrg.train.checkpoint import Snapshot, State
from rrg.train.writer import CheckpointWriter


def state(step, **more):
    return State(step=step, position=8 * step, frozen="f" * 64, data="d" * 64, **more)


def taken(value=1.0):
    return Snapshot({"connector.weight": torch.full((64, 64), value)}, {"step:connector.weight": torch.tensor(1.0)})


def test_what_is_written_is_what_was_submitted(tmp_path):
    writer, told = CheckpointWriter(tmp_path, 2), state(3, best={"step": 3, "score": 0.5})
    assert not writer.failed and writer.settle() == [] and writer.written() == []
    writer.submit(taken(), told)
    told.best["score"], told.step = 9.0, 4  # the run goes on
    assert writer.settle() == [3] and writer.written() == []
    assert checkpoint.read_state(tmp_path / "step_00000003") == state(3, best={"step": 3, "score": 0.5})


def test_retention_and_one_at_a_time(tmp_path):
    writer = CheckpointWriter(tmp_path, 2)
    for step in range(1, 6):
        writer.submit(taken(step), state(step, best={"step": 2, "score": 1.0}))
    writer.close()
    assert writer.written() == [1, 2, 3, 4, 5]
    assert sorted(checkpoint.existing(tmp_path)) == [2, 4, 5]


def test_a_snapshot_is_a_copy(tmp_path):
    from accelerate import Accelerator

    from rrg.strategy.replicas import Replicas

    model = nn.ModuleDict({"connector": nn.Linear(2, 2)})
    optimizer = torch.optim.AdamW([{"params": list(model.parameters()), "names": [n for n, _ in model.named_parameters()]}])
    model["connector"](torch.ones(1, 2)).sum().backward()
    optimizer.step()
    strategy = Replicas(model, optimizer, Accelerator(cpu=True))
    copied = checkpoint.snapshot(model, strategy, True)
    held = {name: tensor.clone() for name, tensor in copied.trainable.items()}
    optimizer.step()
    assert all(torch.equal(held[name], copied.trainable[name]) for name in held) and held.keys() == strategy.tensors().keys()
    assert not torch.equal(held["connector.weight"], model["connector"].weight)
    assert float(copied.optimizer["step:connector.weight"]) == 1 and float(moments_of(optimizer)["step:connector.weight"]) == 2
    assert checkpoint.snapshot(model, strategy, False) == Snapshot({}, {})


def full_disk(folder):
    """Exits 0 where a disk that takes no more is told as it should be."""
    writer = CheckpointWriter(folder, 2)
    writer.submit(taken(), state(1))
    writer.settle()
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
    writer.submit(taken(2.0), state(2))
    writer.close()
    assert writer.failed
    with pytest.raises(UserError, match=r"step_00000002: cannot be written .*; earlier checkpoints are intact") as caught:
        writer.settle()
    assert "\n" not in str(caught.value)
    assert not writer.failed and writer.settle() == [] and sorted(p.name for p in folder.iterdir()) == ["step_00000001"]


def forked(work, *arguments):
    child = os.fork()
    if not child:
        try:
            work(*arguments)
        except BaseException:  # noqa: BLE001 (the parent sees the code)
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def test_a_full_disk_is_told_once_and_leaves_the_former_checkpoint(tmp_path):
    assert forked(full_disk, tmp_path) == 0
    assert checkpoint.read_state(tmp_path / "step_00000001").step == 1


def die_while_writing(folder, monkeypatch_sync):
    writer = CheckpointWriter(folder, 2)
    writer.submit(taken(), state(1))
    writer.settle()
    checkpoint._sync = monkeypatch_sync
    writer.submit(taken(2.0), state(2))
    writer.close()


def test_killed_in_the_middle_of_writing_the_former_checkpoint_is_whole(tmp_path):
    """At every point where the disk is waited for, the files being there and not under their name."""
    for moment in range(4):
        folder, calls = tmp_path / str(moment), []

        def sync(path, calls=calls, moment=moment):
            if len(calls) == moment:
                os.kill(os.getpid(), 9)
            calls.append(path)

        assert forked(die_while_writing, folder, sync) == 9
        assert sorted(checkpoint.existing(folder)) == [1]
        checkpoint.retain(folder, 2, None)
        assert [path.name for path in folder.iterdir()] == ["step_00000001"]
