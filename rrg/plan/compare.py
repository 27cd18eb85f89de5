"""What a dry run counted, and the estimate of the same."""

from __future__ import annotations

from collections.abc import Iterator

from rrg.plan.account import account, meta_model
from rrg.plan.dry_run import DryRun
from rrg.plan.planning import Plan, costs
from rrg.plan.strategies import Memory, memory, shares


def estimate(plan: Plan, strategy: str) -> Memory:
    """The estimate for operations as this machine's PyTorch has them on a CPU, without what the loss keeps to itself: a dry run
    goes through the loss as one operation."""
    model = meta_model(plan.recipe, plan.work.ngrams)
    parts = costs(plan.recipe, model, plan.work, gpu=False)
    parts.language.held -= parts.language.inside
    cached = bool(getattr(plan.recipe.vision, "cache", ""))
    return memory(shares(strategy, account(model), plan.cluster, cached=cached), parts)


def beside(plan: Plan, found: DryRun) -> Iterator[tuple[str, float, float, str]]:
    """(what, counted, estimated, unit) of a dry run of one micro-batch."""
    cached = bool(getattr(plan.recipe.vision, "cache", ""))
    share = shares(found.strategy, plan.sums, plan.cluster, cached=cached)
    yield "peak", found.peak, estimate(plan, found.strategy).total, "bytes"
    for kind in sorted({flow.kind for flow in share.flows} | {kind for kind in found.bytes if kind != "broadcast"}):
        flows = [flow for flow in share.flows if flow.kind == kind]
        yield f"{kind}, bytes of the tensors", found.bytes.get(kind, 0), sum(flow.size * flow.times for flow in flows), "bytes"
