"""From what all nodes measured to what is wrong, with the node named."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence

from rrg.preflight.finding import BAD, WARNING, Finding
from rrg.preflight.links import Links
from rrg.preflight.machine import Facts, Wishes

_LEAST_MBPS = 50.0  # a disk below it holds up checkpoints and shards


def judge(
    names: Sequence[str],
    facts: Mapping[int, Facts],
    links: Mapping[int, Links],
    present: Sequence[int],
    wishes: Wishes,
    silent: Sequence[int] = (),
) -> list[Finding]:
    """`facts` and `links` by number of the node; `present` numbers the ranks of `links`: a partner is a place in it.

    Of `silent` nodes it is known that they stopped answering: their links are not told again.
    """
    found = [finding for node in sorted(facts) for finding in facts[node].findings]
    found += _unequal(facts)
    found += _slow_disks(facts)
    gpus = {node: fact.compute for node, fact in facts.items() if fact.devices}  # a CPU is shared: its speed tells nothing
    found += _slow_nodes(gpus, names, wishes.slow, "devices", "computes")
    return found + _links(names, _speeds(links, present, silent), wishes)


def _unequal(facts: Mapping[int, Facts]) -> list[Finding]:
    """Nodes whose versions, devices or shards are not those of most."""
    found = []
    for check, values, what, grade, setting in (
        ("versions", {n: f.versions for n, f in facts.items()}, "other versions of packages than", BAD, True),
        ("devices", {n: str(len(f.devices)) for n, f in facts.items()}, "another number of GPUs than", BAD, False),
        ("devices", {n: " ".join(sorted(set(f.devices))) for n, f in facts.items()}, "other GPUs than", WARNING, False),
        ("shards", {n: f.shards for n, f in facts.items() if f.shards}, "other shards than", BAD, True),
    ):
        if len(set(values.values())) > 1:
            usual = Counter(values.values()).most_common(1)[0][0]
            odd = [node for node, value in values.items() if value != usual]
            found += [Finding(facts[node].node, check, f"{what} the other nodes", grade, setting) for node in odd]
    return found


def _slow_disks(facts: Mapping[int, Facts]) -> list[Finding]:
    found = []
    for fact in facts.values():
        for what, speed in (("output: writes", fact.write), ("shards: reads", fact.shards_read)):
            if speed is not None and speed < _LEAST_MBPS:
                found.append(Finding(fact.node, "disk", f"{what} {speed:.0f} MB/s, below {_LEAST_MBPS:.0f}", WARNING, False))
    return found


def _slow_nodes(speeds: Mapping[int, float], names: Sequence[str], share: float, check: str, what: str) -> list[Finding]:
    """Nodes below a share of the median of the others."""
    found = []
    for node, speed in speeds.items():
        others = [value for other, value in speeds.items() if other != node]
        if others and speed < share * statistics.median(others):
            part = speed / statistics.median(others)
            found.append(Finding(names[node], check, f"slow: {what} at {part:.2f} of the others' median", WARNING, False))
    return found


Pair = tuple[int, int]


def _speeds(links: Mapping[int, Links], present: Sequence[int], silent: Sequence[int]) -> dict[Pair, float | None]:
    """GB/s between two nodes, the lower of what the two say; None where one of them had no answer."""
    speeds: dict[Pair, float | None] = {}
    for node, measured in links.items():
        for place, speed in measured.pairs.items():
            other = present[place]
            if other in silent:
                continue
            pair = (min(node, other), max(node, other))
            former = speeds.get(pair, speed)
            speeds[pair] = None if speed is None or former is None else min(speed, former)
    return speeds


def _links(names: Sequence[str], speeds: Mapping[Pair, float | None], wishes: Wishes) -> list[Finding]:
    """Dead nodes, else dead links; slow nodes, else slow links. Of two nodes it cannot be said which one is to blame."""
    best: dict[int, float] = {}
    for pair, speed in speeds.items():
        for node in pair:
            best[node] = max(best.get(node, 0.0), speed or 0.0)
    several = len(best) > 2
    dead = {node for node, speed in best.items() if several and not speed}
    found = [Finding(names[node], "links", "answers none of its neighbours", setting=False) for node in sorted(dead)]
    live = {node: speed for node, speed in best.items() if several and node not in dead}
    slow = _slow_nodes(live, names, wishes.slow, "links", "its best link runs")
    told = {names[node] for node in dead} | {finding.node for finding in slow}
    usual = statistics.median([speed for speed in speeds.values() if speed] or [0.0])
    for (one, other), speed in sorted(speeds.items()):
        if not told & {names[one], names[other]}:
            slow += _link(f"{names[one]}-{names[other]}", speed, usual, wishes)
    return found + slow


def _link(between: str, speed: float | None, usual: float, wishes: Wishes) -> list[Finding]:
    if speed is None:
        return [Finding(between, "links", "no answer between the two", setting=False)]
    if speed < wishes.least_gbps:
        return [Finding(between, "links", f"{speed:.2f} GB/s, below --least-gbps {wishes.least_gbps:g}", setting=False)]
    if speed < wishes.slow * usual:
        return [Finding(between, "links", f"slow: {speed:.2f} GB/s, the others' median is {usual:.2f}", WARNING, False)]
    return []
