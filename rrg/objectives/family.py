"""The objectives of a recipe: options by kind, and what builds them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rrg.config.context import BuildContext
from rrg.config.family import Family
from rrg.config.ranges import check_number
from rrg.config.schema import option

if TYPE_CHECKING:
    from rrg.objectives.observations import ObservationHead
    from rrg.objectives.report import ReportObjective
    from rrg.objectives.words import WordContrast

OBJECTIVE = Family("objective")


@dataclass
class ReportOptions:
    kind: str = option("report", "next-token likelihood of the report")
    weight: float = option(1.0, "factor in the total loss")

    def check(self, path: str) -> None:
        check_number(f"{path}.weight", self.weight, least=0)


@OBJECTIVE.kind("report", ReportOptions)
def build_report(options: ReportOptions, context: BuildContext) -> ReportObjective:
    """Mean negative log-likelihood of the report tokens over the global batch."""
    from rrg.objectives.report import ReportObjective

    return ReportObjective(options)


@dataclass
class WordsOptions:
    kind: str = option("words", "contrast of films by the words of their reports, in the language model's embedding space")
    weight: float = option(1.0, "factor in the total loss")
    sharpness: float = option(10.0, "inverse temperature of the cosine between prefix tokens and words")

    def check(self, path: str) -> None:
        check_number(f"{path}.weight", self.weight, least=0)
        check_number(f"{path}.sharpness", self.sharpness, above=0)


@OBJECTIVE.kind("words", WordsOptions)
def build_words(options: WordsOptions, context: BuildContext) -> WordContrast:
    """Films told apart by the words of their reports, against the prefix."""
    from rrg.objectives.words import WordContrast

    return WordContrast(options, context.facts)


@dataclass
class ObservationsOptions:
    kind: str = option("observations", "a 14-way head on the visual tokens, trained on the studies' observation labels")
    weight: float = option(1.0, "factor in the total loss")
    positive_weight: float = option(1.0, "factor on positive labels, for rare observations")
    sharpness: float = option(2.0, "pooling of token logits by log-sum-exp: 0 is the mean, large values the maximum")

    def check(self, path: str) -> None:
        check_number(f"{path}.weight", self.weight, least=0)
        check_number(f"{path}.positive_weight", self.positive_weight, above=0)
        check_number(f"{path}.sharpness", self.sharpness, least=0)


@OBJECTIVE.kind("observations", ObservationsOptions)
def build_observations(options: ObservationsOptions, context: BuildContext) -> ObservationHead:
    """The fourteen observations from the visual tokens, beside the report."""
    from rrg.objectives.observations import ObservationHead

    return ObservationHead(options, context.facts)
