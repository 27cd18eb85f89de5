"""What observation labels were read from, and which of them a model may be given (spec cmeaa §8, traps 1 and 2).

A training study's labels may come from anywhere. What is given to a model for a validation or test study may only come from its
films (`image`) or from training reports that were retrieved for it (`retrieved`), never from its own report (`report`).
`ModelInputs` is the one door: whatever hands labels to a model takes them through it.
"""

from __future__ import annotations

from typing import Literal, Protocol

from rrg.data.study import Study
from rrg.errors import UserError, nearest

Source = Literal["image", "retrieved", "report"]
SOURCES: tuple[Source, ...] = ("image", "retrieved", "report")


class LabelProvider(Protocol):
    """Gives the observation labels of a study; `source` says what they were read from."""

    @property
    def source(self) -> Source:
        """`image`, `retrieved` or `report`."""
        ...

    def labels(self, study: Study) -> dict[str, int]:
        """Observation → 1, 0 or -1; what is not mentioned has no key. Raises UserError where the provider lacks the study."""
        ...


def checked_source(word: object, where: str) -> Source:
    """`word` as a source. Raises UserError where it is none."""
    for source in SOURCES:
        if word == source:
            return source
    raise UserError(f"{where}: source {str(word)[:20]!r}; {nearest(str(word)[:20], SOURCES)}")


class ModelInputs:
    """Labels as inputs of a model. `name` is how the user named the provider: a setting or a file."""

    def __init__(self, provider: LabelProvider, name: str) -> None:
        self.provider, self.name = provider, name
        checked_source(provider.source, name)

    def labels(self, study: Study) -> dict[str, int]:
        """As the provider gives them. Raises UserError for labels of the own report of a study that is not a training study."""
        self.check_split(study.split)
        return self.provider.labels(study)

    def check_split(self, split: str) -> None:
        """Raise UserError where the provider's labels may not be given to a model for studies of `split`."""
        if split != "train" and self.provider.source == "report":
            raise UserError(
                f"{self.name}: its labels come from the studies' own reports, which a model must not see for split {split!r}; "
                "write labels with 'rrg prepare labels --from image' or '--from retrieved'"
            )
