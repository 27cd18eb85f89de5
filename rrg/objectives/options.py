"""Options of the objectives, by kind."""

from __future__ import annotations

from dataclasses import dataclass

from rrg.config.schema import option


@dataclass
class ReportOptions:
    kind: str = option("report", "next-token likelihood of the report")
    weight: float = option(1.0, "factor in the total loss", least=0)


@dataclass
class WordsOptions:
    kind: str = option("words", "contrast of films by the words of their reports, in the language model's embedding space")
    weight: float = option(1.0, "factor in the total loss", least=0)
    sharpness: float = option(10.0, "inverse temperature of the cosine between prefix tokens and words", above=0)


@dataclass
class ObservationsOptions:
    kind: str = option("observations", "a 14-way head on the visual tokens, trained on the studies' observation labels")
    weight: float = option(1.0, "factor in the total loss", least=0)
    positive_weight: float = option(1.0, "factor on positive labels, for rare observations", above=0)
    sharpness: float = option(2.0, "pooling of token logits by log-sum-exp: 0 is the mean, large values the maximum", least=0)
    reads: str = option(
        "tokens", "tokens (the vision part's) | prefix (what the connector makes of them)", choices=("tokens", "prefix")
    )


MARGINALS = ("derangement", "several", "all_pairs")


POOLINGS = ("mean", "distinct")


@dataclass
class MineOptions:
    kind: str = option("mine", "mutual information of image code and report with their fusion, by a neural critic (CmEAA)")
    weight: float = option(0.1, "factor in the total loss", least=0)
    hidden: int = option(256, "width of the statistics network's two hidden layers", least=1)
    bound: float = option(10.0, "c: its score t is c·tanh(t / c); 0 leaves it unbounded", least=0)
    corrected: bool = option(True, "a moving average of mean exp T in the gradient's denominator, for small batches")
    rate: float = option(0.01, "weight of a batch in that average", above=0, most=1)
    marginal: str = option(
        "derangement", "pairs that stand for independence: derangement (one) | several | all_pairs", choices=MARGINALS
    )
    derangements: int = option(4, "marginal: several: how many, at most the studies less one", least=1)
    gather: bool = option(True, "the samples of all processes' micro-batches together; false: each process for itself")
    pooling: str = option(
        "mean", "the report's vector: mean of its tokens' embeddings | distinct (each token counts once)", choices=POOLINGS
    )
    text_norm: bool = option(False, "layer-normalise that vector first: embeddings of a language model are small")


@dataclass
class InfonceOptions:
    kind: str = option("infonce", "mean prefix token and mean input embedding of the report told apart by studies (CG-VLM)")
    weight: float = option(0.1, "factor in the total loss", least=0)
    temperature: float = option(0.1, "of the cosines", above=0)
    gather: bool = option(True, "the studies of all processes' micro-batches together; false: each process for itself")


# Of films and reports in one space, by two towers (language.kind: text).
PAIRED = ("contrast", "local_contrast", "masked_image", "masked_words", "prototypes")


@dataclass
class ContrastOptions:
    kind: str = option("contrast", "films and reports told apart by the cosine of their vectors (InfoNCE), both ways")
    weight: float = option(1.0, "factor in the total loss", least=0)
    gather: bool = option(True, "the studies of all processes' micro-batches together; false: each process for itself")


@dataclass
class LocalContrastOptions:
    kind: str = option("local_contrast", "films and reports told apart by patches that answer to words (GLoRIA), both ways")
    weight: float = option(1.0, "factor in the total loss", least=0)
    gather: bool = option(True, "the studies of all processes' micro-batches together; false: each process for itself")
    start: str = option(
        "published", "the three scales at the start: published (1/.07 each) | gloria (4, 5, 10)", choices=("published", "gloria")
    )
    chunk: int = option(
        1 << 23, "word-patch pairs held at a time; more are worked out in pieces and again in the backward pass", least=1
    )


@dataclass
class MaskedImageOptions:
    kind: str = option("masked_image", "hidden patches of the current frontal film from the seen ones")
    weight: float = option(1.0, "factor in the total loss", least=0)


@dataclass
class MaskedWordsOptions:
    kind: str = option("masked_words", "hidden words of the report from the others and the image")
    weight: float = option(1.0, "factor in the total loss", least=0)


@dataclass
class PrototypesOptions:
    kind: str = option("prototypes", "films and reports agree on learned prototypes, without negatives (nCLIP)")
    weight: float = option(0.5, "factor in the total loss", least=0)
    prototypes: int = option(256, "how many", least=2)
    temperature: float = option(0.1, "of both distributions over them", above=0)
    spread: float = option(1.0, "bonus on the entropy of the mean distribution: all prototypes are used", least=0)
    sharpness: float = option(0.0, "penalty on the mean entropy: each study decides", least=0)
    gather: bool = option(True, "means over the studies of all processes' micro-batches; false: each process for itself")
