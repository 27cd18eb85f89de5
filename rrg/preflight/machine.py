"""One node looks at itself: versions, devices, disks, shards."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from rrg.digest import digest_json
from rrg.errors import UserError
from rrg.preflight.compatibility import fits, ranges
from rrg.preflight.disk import free_gib, read_speed, write_and_read
from rrg.preflight.finding import WARNING, Finding
from rrg.preflight.topology import Topology

_TELLING = 2**20  # bytes: reading less tells the delay of a file system, not its speed
_SIDE = 1024  # of the matrices that tell how fast a device computes


@dataclass(frozen=True)
class Wishes:
    """What to look at, and what is too little. `size` in bytes, `least_free` in GiB; `slow`: a share of the others' median."""

    output: str = ""
    shards: str = ""
    size: int = 32 * 2**20
    least_free: float = 1.0
    slow: float = 0.5
    least_gbps: float = 0.0
    seconds: float = 30.0  # for a node to answer


@dataclass
class Facts:
    """What a node measured. Speeds of disks are in MB/s, `compute` in GFLOP/s of its slowest device."""

    node: str
    versions: str = ""  # digest, to compare nodes
    devices: list[str] = field(default_factory=list)
    compute: float = 0.0
    free_gib: float | None = None
    write: float | None = None
    read: float | None = None
    shards: str = ""  # digest of the manifest
    shards_read: float | None = None
    seconds: float = 0.0
    findings: list[Finding] = field(default_factory=list)


def look(place: Topology, wishes: Wishes, at: Callable[[str], None]) -> Facts:
    """Everything about this node; problems are findings, not exceptions. `at` is told what is being done."""
    began = time.perf_counter()
    facts = Facts(place.name)
    checks: tuple[tuple[str, Callable[[], None]], ...] = (
        ("versions", lambda: _versions(facts)),
        ("devices", lambda: _devices(facts, place.processes)),
        ("disk", lambda: _disk(facts, wishes)),
        ("shards", lambda: _shards(facts, wishes, place.node)),
    )
    for name, check in checks:
        at(name)
        try:
            check()
        except UserError as error:
            facts.findings.append(Finding(place.name, name, str(error)))
        except OSError as error:  # a disk that fails, a folder that this node does not have
            facts.findings.append(Finding(place.name, name, str(error), setting=False))
    facts.seconds = time.perf_counter() - began
    return facts


def _versions(facts: Facts) -> None:
    found = list(fits(ranges()))
    facts.versions = digest_json([[fit.package, fit.version] for fit in found])
    for fit in found:
        if not fit.ok:
            what = f"{fit.package} {fit.version or 'missing'}, needed {fit.range or 'any'}: {fit.advice}"
            facts.findings.append(Finding(facts.node, "versions", what))


def _devices(facts: Facts, processes: int) -> None:
    import torch

    if not torch.cuda.is_available():
        facts.compute = _gflops(torch.device("cpu"))
        return
    count = torch.cuda.device_count()
    if count < processes:
        raise UserError(
            f"{processes} processes and {count} visible GPUs; set RRG_PROCESSES_PER_NODE={count} or ask for more GPUs"
        )
    speeds = []
    for index in range(count):
        facts.devices.append(torch.cuda.get_device_name(index))
        try:
            speeds.append(_gflops(torch.device("cuda", index)))
        except RuntimeError as error:  # what PyTorch raises for a GPU that is broken or full
            facts.findings.append(Finding(facts.node, "devices", f"GPU {index}: {_first_line(error)}", setting=False))
    facts.compute = min(speeds, default=0.0)
    if len(set(facts.devices)) > 1:
        names = ", ".join(sorted(set(facts.devices)))
        facts.findings.append(Finding(facts.node, "devices", f"different GPUs ({names}): all wait for the slowest", WARNING))


def _gflops(device: object) -> float:
    """GFLOP/s of a matrix product, best of five. Raises RuntimeError where the device computes something else."""
    import torch

    matrix = torch.ones(_SIDE, _SIDE, device=device)  # type: ignore[call-overload]
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        last = float((matrix @ matrix)[-1, -1])
        best = min(best, time.perf_counter() - began)
    if last != _SIDE:
        raise RuntimeError(f"computes {last} for {_SIDE}")
    return 2 * _SIDE**3 / best / 1e9


def _disk(facts: Facts, wishes: Wishes) -> None:
    if not wishes.output:
        return
    facts.free_gib = free_gib(Path(wishes.output))
    if facts.free_gib < wishes.least_free:
        raise UserError(f"{facts.free_gib:.1f} GiB free for {wishes.output}, less than {wishes.least_free:g}; make room")
    facts.write, facts.read = write_and_read(Path(wishes.output), wishes.size)


def _shards(facts: Facts, wishes: Wishes, node: int) -> None:
    """The manifest, every tar with the size it says, and the speed of one tar, another on each node."""
    if not wishes.shards:
        return
    from rrg.shards.manifest import read_manifest
    from rrg.shards.storage import open_storage

    storage = open_storage(wishes.shards)
    manifest = read_manifest(storage)
    facts.shards = digest_json([[shard.name, shard.sha256] for shard in manifest.shards])
    sizes = storage.sizes(shard.name for shard in manifest.shards)
    wrong = [shard.name for shard in manifest.shards if sizes.get(shard.name) != shard.bytes]
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise UserError(f"{wishes.shards}: {wrong[0]}{more} missing or of another size than the manifest says; copy them again")
    large = [shard for shard in manifest.shards if shard.bytes >= _TELLING]
    if "://" not in wishes.shards and large:
        shard = large[node % len(large)]
        facts.shards_read = read_speed(Path(wishes.shards, shard.name), wishes.size)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
