"""Which studies a page shows when it cannot show all of them."""

from __future__ import annotations

import random
from collections.abc import Sequence


def balanced(groups: Sequence[Sequence[str]], count: int, seed: int) -> list[int]:
    """Positions of `count` items, ascending, drawn so that rare groups show as often as common ones while they last.

    `groups[i]` are the groups of item i. The groups take turns, and each turn takes that group's next item in an order
    shuffled by `seed`; items of no group form one more group.
    """
    if count >= len(groups):
        return list(range(len(groups)))
    order = list(range(len(groups)))
    random.Random(seed).shuffle(order)
    queues = {name: [i for i in reversed(order) if name in groups[i]] for name in sorted({n for g in groups for n in g})}
    queues[""] = [i for i in reversed(order) if not groups[i]]
    chosen: set[int] = set()
    while len(chosen) < count:
        for queue in queues.values():
            while queue and queue[-1] in chosen:
                queue.pop()
            if queue and len(chosen) < count:
                chosen.add(queue.pop())
    return sorted(chosen)
