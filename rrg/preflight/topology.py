"""Nodes, processes, addresses and port of a run, from what the scheduler or launcher left in the environment.

Pure functions of a mapping of environment variables: nothing is asked of the scheduler, whose commands may be missing on a
compute node.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rrg.errors import UserError

# Below the range that Linux gives out to outgoing connections (32768 and up), above what services use.
_FIRST_PORT, _PORTS = 15000, 16000
_STEP = 7919  # a prime: steps of one job that run at a time get ports apart


@dataclass(frozen=True)
class Topology:
    """This node among those of the run. `processes` is per node; `source` says who told."""

    nodes: tuple[str, ...]
    node: int
    processes: int
    port: int
    source: str

    @property
    def address(self) -> str:
        """Where the ranks meet: the first node."""
        return self.nodes[0]

    @property
    def world(self) -> int:
        return len(self.nodes) * self.processes

    @property
    def name(self) -> str:
        return self.nodes[self.node]


def topology(environment: Mapping[str, str]) -> Topology:
    """Of the node this runs on.

    Slurm's step (`srun`, one task per node) is asked first, then processes that torchrun or Accelerate started, then RRG_NODES (a
    host list) with RRG_NODE (this node's number) of another scheduler; else it is one machine. Processes per node are
    RRG_PROCESSES_PER_NODE, else one for each GPU the node was given, else one.

    Raises:
        UserError: several tasks of Slurm on a node, or variables that contradict one another.
    """
    if "SLURM_JOB_ID" in environment and "SLURM_NODEID" in environment:
        return _slurm(environment)
    if "WORLD_SIZE" in environment and "LOCAL_WORLD_SIZE" in environment:
        return _launched(environment)
    if "RRG_NODES" in environment:
        nodes = hosts(environment["RRG_NODES"])
        return _checked(nodes, environment, "RRG_NODE", "RRG_NODES", _number(environment, "RRG_PORT", 29500))
    return Topology(("localhost",), 0, processes(environment), _number(environment, "RRG_PORT", 0), "one machine")


def _slurm(environment: Mapping[str, str]) -> Topology:
    tasks = environment.get("SLURM_STEP_TASKS_PER_NODE", "1")
    if "SLURM_STEP_ID" in environment and set(counts(tasks)) != {1}:
        raise UserError(
            f"srun: {tasks} tasks per node (SLURM_STEP_TASKS_PER_NODE); one launcher starts all processes of its node: write "
            "--ntasks-per-node=1, and RRG_PROCESSES_PER_NODE for the processes"
        )
    listed = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST") or environment.get("SLURM_NODELIST")
    if not listed:
        raise UserError("Slurm: SLURM_JOB_NODELIST is not set beside SLURM_JOB_ID; start this with srun inside the job")
    job, step = _number(environment, "SLURM_JOB_ID"), _number(environment, "SLURM_STEP_ID", 0)
    port = _number(environment, "RRG_PORT", job_port(job, step))
    return _checked(hosts(listed), environment, "SLURM_NODEID", "Slurm", port)


def _launched(environment: Mapping[str, str]) -> Topology:
    """Of processes that exist already: torchrun tells the address of the first node only."""
    world, local = _number(environment, "WORLD_SIZE"), _number(environment, "LOCAL_WORLD_SIZE")
    if local < 1 or world % local:
        raise UserError(f"WORLD_SIZE {world} is no multiple of LOCAL_WORLD_SIZE {local}: nodes run equally many processes")
    first = environment.get("MASTER_ADDR", "localhost")
    nodes = (first, *(f"node {number}" for number in range(1, world // local)))
    node = _number(environment, "GROUP_RANK", _number(environment, "RANK", 0) // local)
    return Topology(nodes, node, local, _number(environment, "MASTER_PORT", 29500), "torchrun")


def _checked(nodes: tuple[str, ...], environment: Mapping[str, str], key: str, source: str, port: int) -> Topology:
    node = _number(environment, key)
    if not 0 <= node < len(nodes):
        raise UserError(f"{key}: {node} is no node of {len(nodes)} ({', '.join(nodes)})")
    return Topology(nodes, node, processes(environment), port, source)


def processes(environment: Mapping[str, str]) -> int:
    """Processes to start on this node."""
    if "RRG_PROCESSES_PER_NODE" in environment:
        count = _number(environment, "RRG_PROCESSES_PER_NODE")
        if count < 1:
            raise UserError(f"RRG_PROCESSES_PER_NODE: {count} is below 1")
        return count
    visible = environment.get("CUDA_VISIBLE_DEVICES", "")
    if visible not in ("", "NoDevFiles", "-1"):
        return len(visible.split(","))
    given = environment.get("SLURM_GPUS_ON_NODE", "")
    return max(1, int(given)) if given.isdecimal() else 1


def job_port(job: int, step: int = 0) -> int:
    """A port that every node works out alike and that jobs sharing a node do not share, short of chance."""
    return _FIRST_PORT + (job + _STEP * step) % _PORTS


def hosts(text: str) -> tuple[str, ...]:
    """The names of a host list as Slurm writes it: `node[01-03,7],login` is node01, node02, node03, node7, login.

    Raises:
        UserError: it is none.
    """
    found = tuple(name for part in _parts(text) for name in _expand(part))
    if not found or not all(re.fullmatch(r"[A-Za-z0-9_.:-]+", name) for name in found):
        raise UserError(f"host list {text!r}: not readable; it is written as node[01-03,7],login")
    return found


def counts(text: str) -> tuple[int, ...]:
    """The numbers of a list as Slurm writes it: `2(x3),1` is 2, 2, 2, 1."""
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if match is None:
            raise UserError(f"list of numbers {text!r}: not readable; it is written as 2(x3),1")
        found += [int(match[1])] * int(match[2] or 1)
    return tuple(found)


def _parts(text: str) -> Iterator[str]:
    """Split at commas outside brackets."""
    depth, start = 0, 0
    for place, letter in enumerate(text):
        depth += (letter == "[") - (letter == "]")
        if letter == "," and not depth:
            yield text[start:place]
            start = place + 1
    yield text[start:]


def _expand(part: str) -> Iterator[str]:
    """One part of a host list, with any number of brackets."""
    match = re.fullmatch(r"([^\[\]]*)\[([0-9,-]+)\](.*)", part)
    if match is None:
        yield part
        return
    before, ranges, after = match.groups()
    for span in ranges.split(","):
        first, _, last = span.partition("-")
        if not first or (_ and not last):
            yield ""
            return
        for number in range(int(first), int(last or first) + 1):
            for rest in _expand(after):
                yield f"{before}{number:0{len(first)}d}{rest}"


def _number(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environment.get(name, "" if default is None else str(default))
    if not re.fullmatch(r"\d+", text):
        raise UserError(f"{name}: {text!r} is not a whole number")
    return int(text)
