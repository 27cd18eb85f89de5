"""One rank of a test that measures what loading a base and sharding it adds to the memory that a process shares with no other."""

from __future__ import annotations

import json
import os
import re
import threading
from pathlib import Path

_SWIN = "{embed_dim: 16, depths: [1, 1], num_heads: [2, 4], window_size: 4, patch_size: 4}"
_VISION = ("vision.name=random", "vision.image_size=64", f"vision.architecture={_SWIN}")


def resident(kind: str) -> int:
    """Bytes of this process in memory: `RssAnon` (its own), `RssFile` (pages of files, one copy for all processes)."""
    return 1024 * int(re.search(rf"{kind}:\s+(\d+)", Path("/proc/self/status").read_text())[1])


class Growth:
    """How much anonymous memory grew at most inside (`peak`), and what of it is there at the end (`stays`)."""

    def __enter__(self):
        self._start, self.peak, self._end = resident("RssAnon"), 0, threading.Event()
        self._files = resident("RssFile")
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()
        return self

    def _sample(self):
        while not self._end.wait(0.002):
            self.peak = max(self.peak, resident("RssAnon") - self._start)

    def __exit__(self, *error):
        self._end.set()
        self._thread.join()
        self.stays, self.mapped = resident("RssAnon") - self._start, resident("RssFile") - self._files
        self.peak = max(self.peak, self.stays)


def load_on_a_rank(rank, world, local, port, strategy, dtype, shards, small, base, out):
    """Build a recipe's system and take it over, as a run does: first with a small base, for what libraries load and keep, then
    with `base`; write what that cost."""
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world), LOCAL_RANK=str(rank % local), LOCAL_WORLD_SIZE=str(local))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), GLOO_SOCKET_IFNAME="lo")
    from rrg.train.team import start

    team = start(1, 0, strategy)
    warm = _loaded(team, strategy, dtype, shards, small)
    team.wait()
    with Growth() as growth:
        taken = _loaded(team, strategy, dtype, shards, base)
    total, here = taken.frozen()
    told = {"total": total, "frozen_here": here, "peak": growth.peak, "stays": growth.stays, "mapped": growth.mapped}
    (Path(out) / f"{rank}.json").write_text(json.dumps(told))
    team.wait()
    del warm
    os._exit(0)


def _loaded(team, strategy, dtype, shards, base):
    from rrg.recipe import load_recipe
    from rrg.strategy.family import place, take_over
    from rrg.system import System, open_split
    from rrg.train import checkpoint
    from rrg.train.optim import build_optimizer

    words = [f"data.shards={shards}", f"strategy={strategy}", f"language.name={base}", f"language.dtype={dtype}", *_VISION]
    recipe = load_recipe("r2gengpt_iu", words).value
    system = System.build(recipe, None, open_split(recipe, "train"))
    place(system.model, team.device, strategy)
    checkpoint.frozen_digest(system.model)
    return take_over(recipe, system.model, build_optimizer(system.model, recipe.train), team.accelerator)
