"""What one rank measures while it trains: seconds by phase, what each forward pass read, blocked communication, peak memory."""

from __future__ import annotations

import resource
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from rrg.batching.batch import Batch, Prefix
from rrg.bench.flops import MicroBatch
from rrg.language.causal import CausalLanguage
from rrg.model import ReportGenerator
from rrg.train.phases import phases


class Meter:
    """Attach it to a model before its first step. Phases then end with the device's work done, so that their seconds are its own:
    this costs what the device and this process would otherwise do at one time."""

    def __init__(self, device: torch.device, warmup: int) -> None:
        self.device, self.warmup = device, warmup
        self.seconds: dict[int, dict[str, float]] = defaultdict(dict)  # by step, from 1, and phase
        self._reads: dict[int, list[tuple[Tensor, Tensor, int, int]]] = defaultdict(list)
        self._prefix: Prefix | None = None
        self._batch: Batch | None = None
        self._begins, self._packs = 0, False
        self._blocked: dict[int, Callable[[], float]] = {}
        self._ready: Callable[[], float] | None = None

    def attach(self, model: ReportGenerator, strategy: Any) -> None:
        """Listen to `model` and to the gradients that `strategy` exchanges."""
        phases.told = self._told
        if self.device.type == "cuda":
            phases.synchronize = torch.cuda.synchronize
        model.register_forward_pre_hook(self._reading)
        if model.connector is not None:
            model.connector.register_forward_hook(self._prefixed)
        if isinstance(model.language, CausalLanguage):
            self._begins, self._packs = int(model.language.tokenizer.bos_token_id is not None), model.language.packs
            decoder: Any = model.language.model.get_decoder()
            decoder.register_forward_pre_hook(self._decoding, with_kwargs=True)
        if strategy.name == "ddp" and strategy.world > 1:
            self._watch_exchange(strategy)

    def close(self) -> None:
        """Leave the phases as they were."""
        phases.told = phases.synchronize = None

    def micro_batches(self, step: int) -> list[MicroBatch]:
        """What the forward passes of a step read on this rank."""
        return [
            MicroBatch(tuple(lengths.tolist()), padded, int(reports.sum()), films)
            for lengths, reports, padded, films in self._reads.get(step, [])
        ]

    def blocked(self, step: int) -> float | None:
        """Seconds from the last gradient to the end of the backward pass: the part of the exchange that nothing hid, or None."""
        measured = self._blocked.get(step)
        return None if measured is None else measured()

    def peak_memory(self) -> dict[str, float]:
        """Bytes: of tensors on the GPU after the warm-up, and of the whole process."""
        scale = 1 if sys.platform == "darwin" else 1024
        found = {"process": float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale)}
        if self.device.type == "cuda":
            found["gpu"] = float(torch.cuda.max_memory_allocated(self.device))
            found["gpu_reserved"] = float(torch.cuda.max_memory_reserved(self.device))
        return found

    # -- hooks ----------------------------------------------------------------------------------------------------------------

    def _told(self, step: int, seconds: dict[str, float]) -> None:
        row = self.seconds[step]
        for name, value in seconds.items():
            row[name] = row.get(name, 0.0) + value
        if step == self.warmup and self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def _reading(self, module: Any, inputs: tuple[Batch]) -> None:
        self._batch, self._prefix = inputs[0], None

    def _prefixed(self, module: Any, inputs: Any, prefix: Prefix) -> None:
        self._prefix = prefix

    def _decoding(self, module: Any, inputs: Any, options: dict[str, Any]) -> None:
        embeds, batch = options.get("inputs_embeds"), self._batch
        if embeds is None or batch is None:
            return
        reports = batch.report_mask.sum(1)
        texts = sum((mask.sum(1) for mask in (batch.before_mask, batch.after_mask)), reports)
        lengths = texts + self._prefix_lengths(batch) + self._begins
        padded = 0 if self._packs else int(embeds.shape[1])
        self._reads[phases.where.step].append((lengths, reports, padded, int(batch.view_mask.sum())))
        self._batch = None  # recomputation in the backward pass reads nothing new

    def _prefix_lengths(self, batch: Batch) -> Tensor | int:
        prefix = self._prefix
        if prefix is None:
            return 0
        return int(prefix.embeds.shape[1]) if prefix.mask is None else prefix.mask.sum(1)

    def _watch_exchange(self, strategy: Any) -> None:
        """DDP's own all-reduce, with a note of when the last bucket was full."""
        from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

        def exchange(state: Any, bucket: Any) -> Any:
            if bucket.is_last():
                self._ready = self._clock()
            return allreduce_hook(state, bucket)

        # DDP compares the types themselves, and here they are text.
        exchange.__annotations__ = {"bucket": dist.GradBucket, "return": torch.futures.Future[torch.Tensor]}
        strategy._wrapped.register_comm_hook(None, exchange)
        backward = strategy.backward

        def timed(loss: Tensor, last: bool) -> None:
            backward(loss, last)
            if last and self._ready is not None:
                self._blocked[phases.where.step] = _between(self._ready, self._clock())

        strategy.backward = timed

    def _clock(self) -> Any:
        """A point in time on the device that computes."""
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def _between(first: Any, second: Any) -> Callable[[], float]:
    if isinstance(first, float):
        return lambda: second - first
    return lambda: first.elapsed_time(second) / 1e3
