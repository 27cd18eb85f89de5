"""All nodes look at themselves, tell the first one, and measure their links; the first says who did not.

Whatever hangs on a node (a disk, a device, a link), the others wait for it no longer than stated: `seconds` until every node
came, `seconds` more until every link was measured.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from rrg.errors import UserError
from rrg.preflight.finding import BAD, Finding
from rrg.preflight.judge import judge
from rrg.preflight.links import Links, measure
from rrg.preflight.machine import Facts, Wishes, look
from rrg.preflight.topology import Topology

_LINKS_AT_A_TIME = 6  # three rounds of pairs and an all-reduce fit into the time for all links, with some left
_SLACK = 15.0  # seconds that a node waits for the first one to judge


@dataclass
class Report:
    """What was measured, by number of the node, and what is wrong."""

    nodes: tuple[str, ...]
    facts: dict[int, Facts] = field(default_factory=dict)
    links: dict[int, Links] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def code(self) -> int:
        """0: a run can start. 2: something the user can mend. 1: a machine is to blame."""
        bad = [finding for finding in self.findings if finding.grade == BAD]
        return 0 if not bad else 2 if all(finding.setting for finding in bad) else 1

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"code": self.code}


def check(place: Topology, wishes: Wishes) -> Report | None:
    """This node's part. On the first node the report on all; None on the others.

    Raises:
        UserError: the first node is not to be reached, or its port is taken.
    """
    began = time.perf_counter()
    report = _alone(place, wishes) if len(place.nodes) == 1 else _together(place, wishes)
    if report is not None:
        report.seconds = time.perf_counter() - began
    return report


def _alone(place: Topology, wishes: Wishes) -> Report:
    facts = {0: look(place, wishes, lambda doing: None)}
    return Report(place.nodes, facts, findings=judge(place.nodes, facts, {}, [0], wishes))


def _together(place: Topology, wishes: Wishes) -> Report | None:
    store = _store(place, wishes.seconds)
    at = _telling(store, place.node)
    facts = look(place, wishes, at)
    store.set(f"facts/{place.node}", json.dumps(asdict(facts)))
    if place.node == 0:
        came = _gathered(store, "facts", range(len(place.nodes)), time.monotonic() + wishes.seconds)
        store.set("present", json.dumps(sorted(came)))
    present = json.loads(_awaited(place, store, "present", wishes.seconds + _SLACK))
    if place.node not in present:
        raise UserError(
            f"{place.name}: came after the {wishes.seconds:g} s that the others wait for a node; --seconds sets another"
        )
    store.set(f"links/{place.node}", json.dumps(asdict(_measured(place, present, wishes, store, at))))
    if place.node:
        _awaited(place, store, "judged", wishes.seconds + _SLACK)  # the first node serves the others until they are through
        store.set(f"left/{place.node}", "")
        return None
    links = _gathered(store, "links", present, time.monotonic() + wishes.seconds)
    report = _report(place, wishes, store, came, links, present)
    store.set("judged", "")
    _gathered(store, "left", sorted(set(links) - {0}), time.monotonic() + 2.0)
    return report


def _store(place: Topology, seconds: float) -> Any:
    """A table on the first node that all read and write. Raises UserError."""
    from torch.distributed import TCPStore

    limit = datetime.timedelta(seconds=seconds)
    try:
        return TCPStore(place.address, place.port, None, place.node == 0, limit, wait_for_workers=False)
    except RuntimeError as error:  # what PyTorch raises for any fault of the network
        said = str(error).splitlines()[0][:160]
        if place.node == 0:
            raise UserError(f"{place.name}: port {place.port} cannot be opened ({said}); set RRG_PORT to a free one") from None
        raise UserError(
            f"{place.name}: no answer from the first node {place.address} at port {place.port} within {seconds:g} s ({said})"
        ) from None


def _telling(store: Any, node: int) -> Callable[[str], None]:
    """A function that tells the first node what this one is about to do."""

    def at(doing: str) -> None:
        with contextlib.suppress(RuntimeError):  # the first node is gone: it is said where an answer is awaited
            store.set(f"at/{node}", doing)

    return at


def _measured(place: Topology, present: list[int], wishes: Wishes, store: Any, at: Callable[[str], None]) -> Links:
    """In a thread of its own, which is left behind where it hangs."""
    found = Links()

    def work() -> None:
        import torch
        import torch.distributed as dist

        nonlocal found
        rank, limit = present.index(place.node), datetime.timedelta(seconds=wishes.seconds / 2)
        at("joining the process group")
        try:
            backend = "nccl" if torch.cuda.is_available() else "gloo"
            inner = dist.PrefixStore("group", store)
            dist.init_process_group(backend, store=inner, rank=rank, world_size=len(present), timeout=limit)
        except RuntimeError:
            return
        found = measure(rank, len(present), wishes.size, wishes.seconds / _LINKS_AT_A_TIME, at)

    if len(present) > 1:
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(wishes.seconds)
    return found


def _gathered(store: Any, what: str, nodes: Any, deadline: float) -> dict[int, Any]:
    """What the nodes put down as `what`, of those that did before the deadline."""
    found: dict[int, Any] = {}
    while True:
        for node in nodes:
            if node not in found and store.check([f"{what}/{node}"]):
                text = store.get(f"{what}/{node}").decode()
                found[node] = json.loads(text) if text else None
        if len(found) == len(nodes) or time.monotonic() > deadline:
            return found
        time.sleep(0.02)


def _awaited(place: Topology, store: Any, key: str, seconds: float) -> str:
    try:
        store.wait([key], datetime.timedelta(seconds=seconds))
        return str(store.get(key).decode())
    except RuntimeError:
        raise UserError(f"{place.name}: the first node {place.address} stopped answering") from None


def _report(
    place: Topology, wishes: Wishes, store: Any, came: dict[int, Any], measured: dict[int, Any], present: list[int]
) -> Report:
    names = place.nodes
    facts = {node: Facts(**{**record, "findings": [Finding(**f) for f in record["findings"]]}) for node, record in came.items()}
    links = {
        node: Links({int(other): speed for other, speed in record["pairs"].items()}, record["all_reduce"])
        for node, record in measured.items()
    }
    findings = [
        Finding(names[node], "links", f"did not come within {wishes.seconds:g} s{_last(store, node)}", setting=False)
        for node in range(len(names))
        if node not in came
    ]
    silent = [node for node in present if node not in measured]
    findings += [Finding(names[node], "links", f"stopped answering{_last(store, node)}", setting=False) for node in silent]
    return Report(names, facts, links, findings + judge(names, facts, links, present, wishes, silent))


def _last(store: Any, node: int) -> str:
    """What a node said it was about to do."""
    if not store.check([f"at/{node}"]):
        return ""
    return f"; it was last at: {store.get(f'at/{node}').decode()}"
