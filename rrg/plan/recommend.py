"""Which strategy, and why, in words."""

from __future__ import annotations

from rrg.plan.planning import Plan, Row, fitting

GB = 1e9
ORDER = ("ddp", "zero2", "hsdp", "fsdp2", "zero3")  # simplest first
EQUAL = 1.03  # step times that the model of the machine does not tell apart


def recommended(plan: Plan) -> Row | None:
    """The simplest of the fastest that fit; None where nothing does."""
    there = fitting(plan.rows)
    if not there:
        return None
    best = min(row.pace.step for row in there if row.pace)
    equal = [row for row in there if row.pace and row.pace.step <= EQUAL * best]
    return min(equal, key=lambda row: ORDER.index(row.strategy))


def in_words(plan: Plan) -> list[str]:
    """Sentences: the recommendation, why not the others, what to write."""
    choice = recommended(plan)
    if choice is None:
        return _nothing_fits(plan)
    assert choice.memory is not None and choice.pace is not None
    spare = (plan.cluster.usable - choice.memory.total) / GB
    lines = [
        f"{choice.strategy}: {choice.memory.total / GB:.1f} of {plan.cluster.usable / GB:.1f} GB that one "
        f"{plan.cluster.gpu.name} has for tensors ({spare:.1f} GB to spare), {choice.pace.step:.2f} s a step."
    ]
    lines += [line for row in plan.rows if row is not choice and (line := _beside(row, choice, plan))]
    lines += _larger(choice, plan)
    lines.append(f"Write strategy={choice.strategy} train.micro_batch_size={plan.work.studies}.")
    return lines


def _beside(row: Row, choice: Row, plan: Plan) -> str:
    assert choice.memory is not None and choice.pace is not None
    if row.memory is None or row.pace is None:
        return ""
    if not row.fits:
        return f"{row.strategy} does not fit: {row.memory.total / GB:.1f} GB."
    saved = (choice.memory.total - row.memory.total) / GB
    ratio = row.pace.step / choice.pace.step
    speed = f"{ratio:.2f} times the time of a step" if ratio > EQUAL else "in about the same time"
    if saved < 0.5:
        cost = f"saves nothing ({-saved:+.1f} GB)" if saved <= 0 else f"saves {saved:.1f} GB"
        return f"{row.strategy} {cost}, {speed}."
    if row.micro > choice.micro:
        return f"{row.strategy} saves {saved:.1f} GB, room for micro-batches of {row.micro}, {speed}."
    return f"{row.strategy} saves {saved:.1f} GB that nothing here needs, {speed}."


def _larger(choice: Row, plan: Plan) -> list[str]:
    if choice.micro <= plan.work.studies:
        return []
    return [
        f"The largest power of two that fits is train.micro_batch_size={choice.micro} (now {plan.work.studies} a forward pass): "
        "worth it where the global batch is as large."
    ]


def _nothing_fits(plan: Plan) -> list[str]:
    rows = [row for row in plan.rows if row.memory is not None]
    least = min(rows, key=lambda row: row.memory.total if row.memory else 0.0)
    assert least.memory is not None
    lines = [
        f"Nothing fits: {least.strategy} holds least, {least.memory.total / GB:.1f} GB of {plan.cluster.usable / GB:.1f} GB "
        f"that one {plan.cluster.gpu.name} has for tensors."
    ]
    return lines + [f"  {advice}" for advice in _advice(plan, rows)]


def _advice(plan: Plan, rows: list[Row]) -> list[str]:
    recipe, advice = plan.recipe, []
    best = max(rows, key=lambda row: row.micro)
    if best.micro:
        advice.append(f"train.micro_batch_size={best.micro} fits with strategy={best.strategy}")
    kept = plan.parts.language.kept_bytes
    if not recipe.language.gradient_checkpointing:
        saved = f"{kept / GB:.1f} GB of activations"
        advice.append(f"language.gradient_checkpointing=true gives most of {saved} back, for a third more time")
    if recipe.language.dtype == "float32" or any(term.name.startswith("weights cast") for term in plan.parts.language.kept):
        advice.append("language.dtype=bfloat16: half the weights, and no copies of them")
    if recipe.vision.kind != "none" and recipe.vision.train == "frozen" and not recipe.vision.cache:
        advice.append("vision.cache=auto: the encoder does not run in training")
    if not best.micro and plan.sums.frozen_bytes > plan.cluster.usable / 2:
        advice.append("more GPUs with strategy=fsdp2, so that each holds less of the weights")
    return advice
