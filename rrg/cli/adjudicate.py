"""`rrg prepare labels --adjudicate URL`: a language model's labels in place of the rules', study by study."""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from rrg.errors import UserError
from rrg.observations.adjudicator import PROMPT_VERSION, Adjudicator, Journal
from rrg.observations.endpoint import Endpoint, checked_address

if TYPE_CHECKING:
    from rrg.cli.label_sources import Made

_SHOWN = 10


def adjudicated(
    made: Made, options: argparse.Namespace, metering: Callable[[str], AbstractContextManager[Callable[[int, int], None]]]
) -> Made:
    """`made` with the endpoint's labels. Answers so far lie beside the label file until it is written.

    Raises UserError where the address is not on the command line, or more studies than `--max-failed` got no usable answer.
    """
    url = checked_address(options.adjudicate)
    endpoint = Endpoint(url, options.model, os.environ.get(options.key_env, ""))
    work = {"url": url, "model": options.model, "source": made.source, "described": made.described}
    work["head"] = bool(made.probabilities)
    journal = Journal(options.out.with_name(f".{options.out.name}.answers.jsonl"), work)
    adjudicator = Adjudicator(endpoint)
    with metering(f"asking {url}") as progress:
        for number, line in enumerate(made.lines):
            progress(number, len(made.lines))
            if line.study not in journal.answers:
                found = adjudicator.labels(line.study, made.probabilities.get(line.study), made.reports[line.study])
                if found is not None:
                    journal.add(line.study, found)
        progress(len(made.lines), len(made.lines))
    failed = adjudicator.failed
    if len(failed) > options.max_failed:
        study, reason = next(iter(failed.items()))
        raise UserError(
            f"{url}: {len(failed)} studies got no labels, first {study}: {reason}; run the same command again (answers are "
            f"kept), or allow so many with --max-failed {len(failed)}"
        )
    lines = [dataclasses.replace(line, labels=journal.answers[line.study]) for line in made.lines if line.study not in failed]
    journal.remove()
    counts = ", ".join(f"{count:,} {what}" for what, count in sorted(endpoint.counts.items()))
    notes = [f"no labels: study {study}: {reason}" for study, reason in list(failed.items())[:_SHOWN]]
    described = made.described | {"adjudicator": {"model": options.model, "prompt": PROMPT_VERSION, "failed": len(failed)}}
    return dataclasses.replace(made, lines=lines, described=described, notes=[*made.notes, *notes, f"{url}: {counts}"])
