"""One rank of a test that measures what loading and sharding a base costs it."""

from __future__ import annotations

import json
import os
import re
import threading
from pathlib import Path


def private_bytes() -> int:
    """Anonymous resident memory of this process: without pages of files, which processes share."""
    return 1024 * int(re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())[1])


class Peak:
    """The largest growth of private memory inside, sampled in a thread."""

    def __enter__(self):
        self.start, self.most, self._end = private_bytes(), 0, threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()
        return self

    def _sample(self):
        while not self._end.wait(0.002):
            self.most = max(self.most, private_bytes() - self.start)

    def __exit__(self, *error):
        self._end.set()
        self._thread.join()
        self.after = private_bytes() - self.start


def load_on_a_rank(rank, world, port, strategy, shards, base, out):
    """Build a recipe's system and take it over, as a run does; write what it cost."""
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(world))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), GLOO_SOCKET_IFNAME="lo")
    import torch

    from rrg.recipe import load_recipe
    from rrg.strategy.family import place, take_over
    from rrg.system import System, open_split
    from rrg.train import checkpoint
    from rrg.train.optim import build_optimizer
    from rrg.train.team import start

    swin = "{embed_dim: 16, depths: [1, 1], num_heads: [2, 4], window_size: 4, patch_size: 4}"
    words = [f"data.shards={shards}", f"strategy={strategy}", f"language.name={base}", "language.dtype=float32"]
    words += ["vision.name=random", "vision.image_size=64", f"vision.architecture={swin}"]
    recipe = load_recipe("r2gengpt_iu", words).value
    team = start(1, 0, strategy)
    warm = torch.nn.Linear(512, 512)(torch.ones(4, 512)).sum()  # what the libraries take when they first compute
    warm.backward()
    team.wait()
    with Peak() as peak:
        system = System.build(recipe, None, open_split(recipe, "train"))
        place(system.model, team.device, strategy)
        checkpoint.frozen_digest(system.model)
        taken = take_over(recipe, system.model, build_optimizer(system.model, recipe.train), team.accelerator)
    total, here = taken.frozen()
    told = {"total": total, "frozen_here": here, "peak": peak.most, "after": peak.after}
    (Path(out) / f"{rank}.json").write_text(json.dumps(told))
    team.end()
    os._exit(0)
