"""The metrics that run as programs of their own, in `rrg score`: which are asked for, and where their values go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rrg.errors import UserError, nearest

if TYPE_CHECKING:
    from rrg.data.protocol import Protocol
    from rrg.metrics.external.scoring import Conditions
    from rrg.metrics.scoring import Scores

OWN_SET = "protocol"


def external_names(asked: str | None, protocol: Protocol) -> tuple[str, ...]:
    """The external metrics to run. Raises UserError for a name that is none, or where the protocol has no set of its own."""
    if asked is None:
        return ()
    from rrg.metrics.external.catalogue import METRICS

    words = [word.strip() for word in asked.split(",") if word.strip()]
    if OWN_SET in words and not protocol.external:
        raise UserError(f"--external {OWN_SET}: protocol {protocol.name!r} names no such metrics; write {', '.join(METRICS)}")
    names = tuple(dict.fromkeys(name for word in words for name in (protocol.external if word == OWN_SET else (word,))))
    unknown = next((name for name in names if name not in METRICS), None)
    if unknown is not None or not names:
        raise UserError(f"--external {unknown or asked!r}: no such metric; {nearest(unknown or '', METRICS)}")
    return names


def with_external(
    scores: Scores,
    names: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    bootstrap: int,
    seed: int,
    conditions: Conditions | None = None,
) -> tuple[Scores, dict[str, Any]]:
    """The scores with the values of external metrics as entries, and the record of how each was made (with values per study and
    the studies that failed). A metric that cannot be computed here is an entry that says why."""
    if not names:
        return scores, {}
    from rrg.cli.external_conditions import notes
    from rrg.cli.progress import Meter
    from rrg.metrics.external.scoring import score_external
    from rrg.metrics.scored import Value

    columns = ([row[key] for row in rows] for key in ("study", "generated", "reference"))
    with Meter("external metrics", "studies") as progress:
        found = score_external(
            names,
            *columns,
            conditions=conditions,
            bootstrap=bootstrap,
            seed=seed,
            progress=lambda _, done, total: progress(done, total),
        )
    for line in notes(found):
        print(line)
    for name, result in found.items():
        scores = scores.without_entry(name)
        missing = {name: Value(None, len(rows), missing=result.missing)}
        scores = scores.with_entries(missing if result.missing else result.scores)
    return scores, {name: result.to_json() for name, result in found.items()}
