"""For tests: alignment of a small encoder's code with reports, trained on several processes over gloo.

Every step is a micro-batch of the studies in `STEPS`, dealt to ranks in neighbouring parts; those in `UNREADABLE` are left out as
the loader leaves them out, so that a rank may hold a blank batch.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from rrg.batching.batch import Batch
from rrg.batching.collate import Item, collate
from rrg.batching.tokenise import Tokens
from rrg.config.context import BuildContext
from rrg.objectives.family import OBJECTIVE
from rrg.objectives.options import MineOptions
from rrg.objectives.report import Outputs
from tests.processes import on_ranks

WORDS, WIDTH, CODE, RATE = 30, 6, 4, 0.1
STEPS = ("abcdef", "ghijkl", "bdfhjl", "acegik", "lkjihg", "fedcba")
UNREADABLE = {1: "ghi", 2: "bdfhj", 3: "acegik", 4: "gh"}  # by step; its first rank of two is blank, all but one study, all, some


class Aligned(nn.Module):
    """An encoder and the objective, as a report generator has them."""

    def __init__(self, options: MineOptions) -> None:
        super().__init__()
        torch.manual_seed(0)
        table = nn.Embedding(WORDS, WIDTH)
        facts = {"embed": table.forward, "code_width": CODE, "language_width": WIDTH}
        self.encode = nn.Linear(WIDTH, CODE)
        self.objective = OBJECTIVE.build(options, context=BuildContext(facts=facts))

    def forward(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        assert batch.features is not None
        code = self.encode(batch.features[:, 0, 0])
        return self.objective(Outputs(None, None, None, None, code), batch)  # type: ignore[arg-type]


def part(step: int, rank: int, world: int) -> Batch:
    """What this rank reads of a step."""
    studies = STEPS[step]
    ends = [len(studies) * number // world for number in range(world + 1)]
    readable = [study for study in studies[ends[rank] : ends[rank + 1]] if study not in UNREADABLE.get(step, "")]
    return collate(
        [_item(study) for study in readable] or [Item("", Tokens([], [1], [], False), features=torch.zeros(1, 1, WIDTH))]
    )


def _item(study: str) -> Item:
    generator = torch.Generator().manual_seed(ord(study))
    words = torch.randint(WORDS, (3 + ord(study) % 4,), generator=generator).tolist()
    return Item(study, Tokens([], [1], words, False), features=torch.randn(1, 1, WIDTH, generator=generator))


def trained(folder: Path, world: int, settings: dict[str, MineOptions]) -> list[dict[str, dict[str, torch.Tensor]]]:
    """What each rank recorded under each setting."""
    folder.mkdir(parents=True)
    on_ranks(_run, world, folder, settings)
    return [{name: load_file(folder / f"{name}_{rank}.safetensors") for name in settings} for rank in range(world)]


def _run(rank: int, world: int, folder: Path, settings: dict[str, MineOptions]) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world)
    for name, options in settings.items():
        save_file(_train(options), folder / f"{name}_{rank}.safetensors")
    dist.barrier()
    dist.destroy_process_group()


def losses_of_a_broken_study(folder: Path, world: int, options: MineOptions) -> list[torch.Tensor]:
    """Each rank's loss of a step in which the features of study `a`, the first rank's, are not finite."""
    folder.mkdir(parents=True)
    on_ranks(_run_broken, world, folder, options)
    return [load_file(folder / f"{rank}.safetensors")["loss"] for rank in range(world)]


def _run_broken(rank: int, world: int, folder: Path, options: MineOptions) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world)
    wrapped = DistributedDataParallel(Aligned(options), broadcast_buffers=False)
    batch = part(0, rank, world)
    assert batch.features is not None
    batch.features[[study == "a" for study in batch.studies]] = torch.nan
    value, _ = wrapped(batch)
    value.backward()
    assert any(not p.grad.isfinite().all() for p in wrapped.parameters() if p.grad is not None), "the step is lost on every rank"
    save_file({"loss": value.detach()}, folder / f"{rank}.safetensors")
    dist.barrier()
    dist.destroy_process_group()


def _train(options: MineOptions) -> dict[str, torch.Tensor]:
    rank, world = dist.get_rank(), dist.get_world_size()
    model = Aligned(options)
    wrapped = DistributedDataParallel(model, broadcast_buffers=False) if world > 1 else model
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    record: dict[str, torch.Tensor] = {}
    for step in range(len(STEPS)):
        batch = part(step, rank, world)
        torch.manual_seed(1000 * step + rank)
        total = torch.tensor(float(model.objective.count(batch)))
        dist.all_reduce(total)
        value, logs = wrapped(batch)
        (value * world / total.clamp_min(1)).backward()
        sums = torch.stack([value.detach(), *logs.values()])
        dist.all_reduce(sums)
        record[f"sums_{step}"] = sums / total.clamp_min(1)
        record |= {f"gradient_{step}.{name}": p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        record[f"averages_{step}"] = model.objective.estimator.log_average.clone()
        optimizer.step()
        optimizer.zero_grad()
    return record | {f"final.{name}": parameter.detach().clone() for name, parameter in model.named_parameters()}
