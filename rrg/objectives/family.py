"""What builds the objectives of a recipe, by kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rrg.config.context import BuildContext
from rrg.config.family import Family
from rrg.errors import UserError
from rrg.objectives.options import (
    ContrastOptions,
    InfonceOptions,
    LocalContrastOptions,
    MaskedImageOptions,
    MaskedWordsOptions,
    MineOptions,
    ObservationsOptions,
    PrototypesOptions,
    ReportOptions,
    WordsOptions,
)

if TYPE_CHECKING:
    from rrg.objectives.contrast import Contrast
    from rrg.objectives.local_contrast import LocalContrast
    from rrg.objectives.masked import MaskedImage, MaskedWords
    from rrg.objectives.mine import MineAlignment
    from rrg.objectives.observations import ObservationHead
    from rrg.objectives.prefix_contrast import PrefixContrast
    from rrg.objectives.prototypes import Prototypes
    from rrg.objectives.report import ReportObjective
    from rrg.objectives.words import WordContrast

OBJECTIVE = Family("objective")


@OBJECTIVE.kind("report", ReportOptions)
def build_report(options: ReportOptions, context: BuildContext) -> ReportObjective:
    """Mean negative log-likelihood of the report tokens over the global batch."""
    from rrg.objectives.report import ReportObjective

    return ReportObjective(options)


@OBJECTIVE.kind("words", WordsOptions)
def build_words(options: WordsOptions, context: BuildContext) -> WordContrast:
    """Films told apart by the words of their reports, against the prefix."""
    from rrg.objectives.words import WordContrast

    return WordContrast(options, context.facts)


@OBJECTIVE.kind("observations", ObservationsOptions)
def build_observations(options: ObservationsOptions, context: BuildContext) -> ObservationHead:
    """The fourteen observations from the visual tokens, beside the report."""
    from rrg.objectives.observations import ObservationHead

    return ObservationHead(options, context.facts)


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


@OBJECTIVE.kind("infonce", InfonceOptions)
def build_infonce(options: InfonceOptions, context: BuildContext) -> PrefixContrast:
    """Films and reports told apart in the language model's space, beside the report."""
    from rrg.objectives.prefix_contrast import PrefixContrast

    return PrefixContrast(options, context.facts)


@OBJECTIVE.kind("contrast", ContrastOptions)
def build_contrast(options: ContrastOptions, context: BuildContext) -> Contrast:
    """Symmetric InfoNCE of films and reports, with a learned scale."""
    from rrg.objectives.contrast import Contrast

    return Contrast(options)


@OBJECTIVE.kind("local_contrast", LocalContrastOptions)
def build_local_contrast(options: LocalContrastOptions, context: BuildContext) -> LocalContrast:
    """Word-level contrast, with three learned scales."""
    from rrg.objectives.local_contrast import LocalContrast

    return LocalContrast(options)


@OBJECTIVE.kind("masked_image", MaskedImageOptions)
def build_masked_image(options: MaskedImageOptions, context: BuildContext) -> MaskedImage:
    """Mean squared error over hidden patches, each normalised."""
    from rrg.objectives.masked import MaskedImage

    return MaskedImage(options)


@OBJECTIVE.kind("masked_words", MaskedWordsOptions)
def build_masked_words(options: MaskedWordsOptions, context: BuildContext) -> MaskedWords:
    """Mean cross-entropy over hidden words."""
    from rrg.objectives.masked import MaskedWords

    return MaskedWords(options)


@OBJECTIVE.kind("prototypes", PrototypesOptions)
def build_prototypes(options: PrototypesOptions, context: BuildContext) -> Prototypes:
    """Cross-entropy of the two distributions over prototypes, both ways, with entropy terms."""
    from rrg.objectives.prototypes import Prototypes

    return Prototypes(options, context.facts["shared_width"])
