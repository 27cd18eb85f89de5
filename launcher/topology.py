"""From where a node stands among the others to the command that starts its processes."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from rrg.preflight.topology import Topology, counts, hosts, job_port, processes, topology

__all__ = ["Topology", "counts", "hosts", "job_port", "launch", "processes", "topology"]


def launch(place: Topology, environment: Mapping[str, str]) -> list[str]:
    """The `accelerate launch …` of this node; the script and its arguments follow."""
    words = [sys.executable, "-m", "accelerate.commands.launch"]
    words += ["--config_file", str(Path(__file__).resolve().with_name("accelerate.yaml"))]
    words += ["--num_cpu_threads_per_process", environment.get("OMP_NUM_THREADS", "1")]
    words += ["--num_machines", str(len(place.nodes)), "--num_processes", str(place.world), "--machine_rank", str(place.node)]
    if len(place.nodes) > 1:
        return [*words, "--multi_gpu", "--main_process_ip", place.address, "--main_process_port", str(place.port)]
    # One machine: its launcher finds a free port itself, whatever else runs there.
    return [*words, "--main_process_port", str(place.port if place.source == "Slurm" else 0)]
