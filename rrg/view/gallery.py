"""The gallery: films beside the reference and the generated report of one study."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from rrg.view.agreement import FINDINGS, NO_FINDING, Agreement, compare
from rrg.view.films import Film, Films
from rrg.view.phrases import side_by_side
from rrg.view.rundir import Prediction, Run
from rrg.view.selection import balanced

DEFAULT_STUDIES = 60


@dataclass(frozen=True)
class Card:
    """One study: its films, both reports with their shared phrases marked, and what they agree on."""

    study: str
    films: tuple[Film, ...]
    reference: Markup
    generated: Markup
    agreement: Agreement


@dataclass(frozen=True)
class Gallery:
    """The chosen cards out of `total` studies. `findings` and `kinds` count cards per filter; `notes` are sentences."""

    cards: tuple[Card, ...]
    total: int
    section: str
    films: bool
    findings: tuple[tuple[str, int], ...]
    kinds: dict[str, int]
    notes: tuple[str, ...]


def gallery(run: Run, studies: int | None = DEFAULT_STUDIES) -> Gallery:
    """Cards of a run's predictions: at most `studies` of them, balanced over findings by the recipe's seed, or all (None)."""
    agreements = [compare(one.reference, one.generated) for one in run.predictions]
    count = len(agreements) if studies is None else studies
    seed = run.setting("seed")
    chosen = balanced([one.present for one in agreements], count, seed if isinstance(seed, int) else 0)
    films = Films(run.setting("data.shards"), run.split, prior=run.setting("data.prior") == "films")
    cards = tuple(_card(run.predictions[place], agreements[place], films) for place in chosen)
    present = Counter(name for card in cards for name in card.agreement.present)
    return Gallery(
        cards=cards,
        total=len(run.predictions),
        section=", ".join(sorted({one.section for one in run.predictions if one.section})),
        films=not films.absent,
        findings=tuple((name, present[name]) for name in (*FINDINGS, NO_FINDING) if present[name]),
        kinds=dict(Counter(kind for card in cards for kind in card.agreement.kinds)),
        notes=tuple(_notes(run, cards, films)),
    )


def _card(prediction: Prediction, agreement: Agreement, films: Films) -> Card:
    reference, generated = side_by_side(prediction.reference, prediction.generated)
    return Card(prediction.study, films.of(prediction.study), reference, generated, agreement)


def _notes(run: Run, cards: Sequence[Card], films: Films) -> list[str]:
    notes = []
    if films.absent:
        notes.append(f"Films are not shown: {films.absent}.")
    else:
        without = [card.study for card in cards if not card.films and card.study not in films.damaged]
        notes += _named("not in the shards", without)
        notes += _named("with a film that does not decode", films.damaged)
    if run.torn:
        notes.append("The last line of the predictions is incomplete and left out; the file may still be being written.")
    return notes


def _named(what: str, studies: Sequence[str]) -> list[str]:
    names = list(dict.fromkeys(studies))
    if not names:
        return []
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return [f"{len(names)} {'study' if len(names) == 1 else 'studies'} {what}: {', '.join(names[:8])}{more}."]
