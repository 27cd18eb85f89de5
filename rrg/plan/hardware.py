"""GPUs and the links between them, as their vendors state them.

Sources: NVIDIA's datasheets of V100, A100, L40S, H100 and H200 (dense rates, without sparsity; NVLink per direction, half of the
total that a datasheet names; PCIe 4.0 and 5.0 x16 per direction). An A100, H100 or H200 without `-pcie` in its name is the module
with NVLink (SXM). Nothing here was measured by this project.
"""

from __future__ import annotations

from dataclasses import dataclass

from rrg.errors import UserError, nearest


@dataclass(frozen=True)
class Gpu:
    """`memory` in bytes as CUDA reports it, `flops` dense bf16 (V100: fp16) per second, `hbm` and `link` in bytes per second."""

    name: str
    memory: float
    flops: float
    hbm: float
    link: float
    link_name: str
    bf16: bool = True


_GIB = 2**30
GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("v100-16g", 15.8 * _GIB, 125e12, 900e9, 150e9, "NVLink 2", bf16=False),
        Gpu("v100-32g", 31.7 * _GIB, 125e12, 900e9, 150e9, "NVLink 2", bf16=False),
        Gpu("a100-40g", 39.4 * _GIB, 312e12, 1555e9, 300e9, "NVLink 3"),
        Gpu("a100-80g", 79.2 * _GIB, 312e12, 2039e9, 300e9, "NVLink 3"),
        Gpu("a100-40g-pcie", 39.4 * _GIB, 312e12, 1555e9, 32e9, "PCIe 4 x16"),
        Gpu("a100-80g-pcie", 79.2 * _GIB, 312e12, 1935e9, 32e9, "PCIe 4 x16"),
        Gpu("a6000", 47.5 * _GIB, 155e12, 768e9, 32e9, "PCIe 4 x16"),
        Gpu("l40s", 44.5 * _GIB, 362e12, 864e9, 32e9, "PCIe 4 x16"),
        Gpu("h100-80g", 79.1 * _GIB, 989e12, 3350e9, 450e9, "NVLink 4"),
        Gpu("h100-80g-pcie", 79.1 * _GIB, 756e12, 2000e9, 64e9, "PCIe 5 x16"),
        Gpu("h200-141g", 139.8 * _GIB, 989e12, 4800e9, 450e9, "NVLink 4"),
    )
}
_ALSO = {"a100": "a100-80g", "h100": "h100-80g", "h200": "h200-141g", "v100": "v100-32g"}
# Kept free: CUDA's context and libraries, NCCL's buffers, and what the caching allocator cannot use for its pieces.
RUNTIME, SLACK = 1.2 * _GIB, 0.05
NETWORK = 25e9  # bytes per second and node: one port of 200 Gb/s


def find_gpu(name: str) -> Gpu:
    """The GPU called `name`. Raises UserError for one that is not in the table."""
    known = _ALSO.get(name.lower(), name.lower())
    if known not in GPUS:
        raise UserError(f"--gpu {name}: no such GPU; {nearest(name.lower(), GPUS)} (`--gpu LIST` prints all with their figures)")
    return GPUS[known]


@dataclass(frozen=True)
class Cluster:
    """`gpus` of one kind on nodes of `per_node`; `network` in bytes per second of a node, each way."""

    gpu: Gpu
    gpus: int
    per_node: int
    network: float = NETWORK

    @property
    def nodes(self) -> int:
        return self.gpus // self.per_node

    @property
    def usable(self) -> float:
        """Bytes for tensors on a GPU."""
        return (self.gpu.memory - RUNTIME) * (1 - SLACK)

    def speed(self, group: int) -> float:
        """Bytes per second of a ring over `group` neighbouring GPUs: that of its slowest link."""
        return self.gpu.link if group <= self.per_node else min(self.gpu.link, self.network)

    def words(self) -> str:
        """For example `8 × a100-40g on 1 node`."""
        return f"{self.gpus} × {self.gpu.name} on {self.nodes} node{'s' if self.nodes > 1 else ''}"


def make_cluster(gpu: str, gpus: int, per_node: int | None, network_gbit: float | None) -> Cluster:
    """Raises UserError for numbers that make no cluster. Without `per_node`, nodes hold eight."""
    if gpus < 1:
        raise UserError(f"--gpus {gpus}: write 1 or more")
    found = find_gpu(gpu)
    if per_node is None:
        per_node = gpus if gpus < 8 else 8
        if gpus % per_node:
            raise UserError(f"--gpus {gpus}: no whole number of nodes of 8; write --gpus-per-node too")
    if per_node < 1 or gpus % per_node:
        raise UserError(f"--gpus-per-node {per_node}: does not divide --gpus {gpus}; write a divisor of it")
    if network_gbit is not None and network_gbit <= 0:
        raise UserError(f"--network {network_gbit:g}: gigabits per second of a node; write a number above 0")
    return Cluster(found, gpus, per_node, NETWORK if network_gbit is None else network_gbit * 1e9 / 8)
