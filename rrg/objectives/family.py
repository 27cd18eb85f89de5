"""The objectives of a recipe: options by kind, and what builds them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rrg.config.context import BuildContext
from rrg.config.family import Family
from rrg.config.ranges import check_number
from rrg.config.schema import check_choice, option
from rrg.errors import UserError

if TYPE_CHECKING:
    from rrg.objectives.mine import MineAlignment
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


MARGINALS = ("derangement", "several", "all_pairs")
POOLINGS = ("mean", "distinct")


@dataclass
class MineOptions:
    kind: str = option("mine", "mutual information of image code and report with their fusion, by a neural critic (CmEAA)")
    weight: float = option(0.1, "factor in the total loss")
    hidden: int = option(256, "width of the statistics network's two hidden layers")
    bound: float = option(10.0, "c: its score t is c·tanh(t / c); 0 leaves it unbounded")
    corrected: bool = option(True, "a moving average of mean exp T in the gradient's denominator, for small batches")
    rate: float = option(0.01, "weight of a batch in that average")
    marginal: str = option("derangement", "pairs that stand for independence: derangement (one) | several | all_pairs")
    derangements: int = option(4, "marginal: several: how many, at most the studies less one")
    gather: bool = option(True, "the samples of all processes' micro-batches together; false: each process for itself")
    pooling: str = option("mean", "the report's vector: mean of its tokens' embeddings | distinct (each token counts once)")
    text_norm: bool = option(False, "layer-normalise that vector first: embeddings of a language model are small")

    def check(self, path: str) -> None:
        check_choice(f"{path}.marginal", self.marginal, MARGINALS)
        check_choice(f"{path}.pooling", self.pooling, POOLINGS)
        for name, least in (("weight", 0), ("bound", 0), ("hidden", 1), ("derangements", 1)):
            check_number(f"{path}.{name}", getattr(self, name), least=least)
        check_number(f"{path}.rate", self.rate, above=0, most=1)


@OBJECTIVE.kind("mine", MineOptions)
def build_mine(options: MineOptions, context: BuildContext) -> MineAlignment:
    """Image code and report aligned by their mutual information with the sum of both."""
    from rrg.objectives.mine import MineAlignment

    if context.facts.get("code_width") is None:
        raise UserError(
            "objectives.mine: needs connector.align: true, on one that has it: no other gives the image code that is aligned; "
            "or write mine: null"
        )
    return MineAlignment(options, context.facts)
