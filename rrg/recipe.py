"""The recipe: every setting of a training run, its type, default and meaning. Parts add their own options by kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rrg.batching.film_policy import POLICIES, FilmPolicy
from rrg.batching.images import Augmentation
from rrg.config.load import Loaded, load
from rrg.config.schema import option, part, parts, plain, section
from rrg.config.training import TrainOptions
from rrg.connector.family import CONNECTOR
from rrg.data.cleaning import CLEANINGS
from rrg.data.protocols import PROTOCOLS, get_protocol
from rrg.errors import UserError
from rrg.language.decoding import Decoding
from rrg.language.family import LANGUAGE
from rrg.objectives.family import OBJECTIVE
from rrg.objectives.options import PAIRED
from rrg.observations.options import ObservationOptions
from rrg.shards.reading import Reading
from rrg.vision.family import VISION


@dataclass
class DataOptions:
    shards: str = option("", "folder written by `rrg prepare`, or its URL (https://…, s3://…)")
    section: str = option(
        "findings",
        "the text to write: findings | impression | findings_impression",
        choices=("findings", "impression", "findings_impression"),
    )
    cleaning: str = option(
        "clean_iu",
        f"cleaning of the target text: {' | '.join(CLEANINGS)}",
        choices=CLEANINGS,
    )
    views: str = option(
        "stored",
        "which films: stored (order of the shard) | frontal_first | frontal | frontal_lateral | ranked",
        choices=POLICIES,
    )
    empty_reports: str = option(
        "keep",
        "studies without any text in data.section: keep (an empty report) | leave_out (counted)",
        choices=("keep", "leave_out"),
    )
    max_views: int = option(2, "films of a study that are read, in the order of data.views", least=1)
    stitch: bool = option(
        False, "paste those films side by side into one picture (Gla-AI4BioMed); needs vision.resize: pad or squash"
    )
    prior: str = option(
        "none",
        "none | films (the patient's previous study is read too, as further views marked by the days between)",
        choices=("none", "films"),
    )
    train_share: float = option(
        1.0, "train on this share of the studies, for learning curves; smaller lie in larger ones", above=0, most=1
    )
    positive_repeats: int = option(
        1, "studies with a positive finding appear this often per epoch (class-balanced sampling)", least=1
    )
    window: int = option(4096, "samples are shuffled within windows of this many, so that reads stay near-sequential", least=1)
    workers: int = option(2, "loader processes; 0 loads in the training process", least=0)
    prefetch: int = option(4, "batches each loader process keeps ready", least=1)
    max_damaged: float = option(0.0, "unreadable studies to put up with: a share of the split below 1, or a count", least=0)
    cache_dir: str = option(
        "", "shards behind a URL: local folder of the cache; empty: $RRG_CACHE/shards, else ~/.cache/rrg/shards"
    )
    cache_gb: float = option(20.0, "shards behind a URL: most the cache of a node may hold; 0 reads without one", least=0)
    read_timeout: float = option(30.0, "shards behind a URL: seconds that one request may take", least=0)
    read_retries: int = option(5, "shards behind a URL: further attempts after a request failed, with growing pauses", least=0)

    @property
    def damage_budget(self) -> int | float:
        """`max_damaged` as a number of studies (int) or a share of a split (float below 1)."""
        return int(self.max_damaged) if self.max_damaged == int(self.max_damaged) else self.max_damaged

    @property
    def reading(self) -> Reading:
        """How shards behind a URL are read. Raises UserError for a value that cannot work."""
        return Reading(self.cache_dir, round(self.cache_gb * 1e9), self.read_timeout, self.read_retries)

    @property
    def films(self) -> FilmPolicy:
        """Which films of a study are used, and how. Raises UserError for an unknown word."""
        return FilmPolicy(self.views, self.max_views, self.stitch)

    def check(self, path: str) -> None:
        _ = self.reading
        if self.max_damaged > 1 and self.max_damaged != int(self.max_damaged):
            raise UserError(f"{path}.max_damaged: {self.max_damaged}; write a whole number of studies, or a share below 1")


@dataclass
class AugmentOptions:
    """Seeded by (seed, epoch, study, view), so that a resumed run sees the same films. Off by default."""

    kind: str = option("none", "geometry: none | affine | random_crop (R2Gen)")
    rotation: float = option(5.0, "affine: largest rotation in degrees")
    translate: float = option(0.05, "affine: largest shift, as a share of the side")
    scale: float = option(0.05, "affine: largest change of scale, as a share")
    resize: int = option(256, "random_crop: shorter side before the crop to the input size")
    brightness: float = option(0.0, "largest change of brightness, as a share")
    contrast: float = option(0.0, "largest change of contrast, as a share")
    shear: float = option(0.0, "affine: largest shear along the rows, in degrees")
    pair_prior: bool = option(False, "a study's films and its prior's are changed alike, plane by plane")
    flip: float = option(0.0, "probability of mirroring left and right; off, for it puts the heart on the wrong side")

    def augmentation(self) -> Augmentation:
        """Raises UserError for a value out of range."""
        return Augmentation(**plain(self))

    def check(self, path: str) -> None:
        self.augmentation()


STRATEGIES = ("ddp", "zero2", "zero3", "fsdp2", "hsdp")


@dataclass
class GenerateOptions(Decoding):
    batch_size: int = option(8, "studies written at one time", least=1)


@dataclass
class ScoreOptions:
    protocol: str = option("r2gen_iu", "named scoring protocol: `rrg score --help` lists them", choices=PROTOCOLS)
    bootstrap: int = option(1000, "resamples for the intervals", least=0)


@dataclass
class Recipe:
    """One experiment."""

    name: str = option("unnamed", "the run directory is named after it")
    output: str = option("runs/${name}", "run directory")
    seed: int = option(42, "one seed for order, augmentation, initial weights and dropout", least=0, most=2**63 - 1)
    strategy: str = option(
        "ddp",
        "how processes share the model: ddp | zero2 | zero3 | fsdp2 | hsdp; may change when a run resumes",
        choices=STRATEGIES,
    )
    data: DataOptions = section(DataOptions, "what is read")
    augment: AugmentOptions = section(AugmentOptions, "what is done to training films")
    observations: ObservationOptions = section(ObservationOptions, "n-grams of observations that go with the films")
    vision: Any = part(VISION, "swin", "films to visual tokens")
    connector: Any = part(CONNECTOR, "linear", "visual tokens to the prefix of the prompt")
    language: Any = part(LANGUAGE, "causal_lm", "prefix and prompt to the report")
    objectives: Any = parts(OBJECTIVE, {"report": "report"}, "what is minimised, by name")
    train: TrainOptions = section(TrainOptions, "how it is trained")
    generate: GenerateOptions = section(GenerateOptions, "how reports are written")
    score: ScoreOptions = section(ScoreOptions, "how they are scored")
    stages: dict[str, Any] = option({}, "stages trained before this one, in order: name -> what differs from this recipe")

    @property
    def reads_ngrams(self) -> bool:
        """Whether n-grams go with the films of a study; a text-only stage inherits the section and reads none."""
        return bool(self.observations.ngrams) and self.vision.kind != "none"

    @property
    def writes(self) -> bool:
        """Whether what is trained writes reports; two towers with a shared space do not."""
        return bool(getattr(self.language, "writes", True))

    def check(self, path: str) -> None:
        for key in ("name", "output"):
            if not getattr(self, key).strip():
                raise UserError(f"{key}: empty; write a name for the run, and the folder it is kept in")
        self._check_towers()
        self._check_views()
        self._check_ngrams()
        if self.vision.kind == "none" and self.connector.kind not in ("none", "words"):
            raise UserError(f"connector.kind: {self.connector.kind!r} needs films, and vision.kind is none; write words or none")
        if self.vision.kind != "none" and self.writes and self.connector.kind in ("none", "words"):
            raise UserError(
                f"connector.kind: {self.connector.kind!r} takes no film; write vision.kind: none, or another connector"
            )
        self._check_parts()
        if self.vision.kind == "none" and self.train.validate_reports and self.train.validate_every:
            raise UserError("train.validate_reports: a text-only stage writes no reports of films; write false")
        for name, objective in self.objectives.items():
            if objective.kind in ("words", "observations", "mine", "infonce") and self.vision.kind == "none":
                raise UserError(f"objectives.{name}: needs films, and vision.kind is none; write {name}: null")
            if objective.kind == "mine" and not getattr(self.connector, "align", False):
                raise UserError(f"objectives.{name}: needs connector.align: true, on one that has it; or write {name}: null")
        for name in self.train.clip_norm_of:
            part, _, inner = name.partition(".")
            if part == "objectives" and inner and inner.partition(".")[0] not in self.objectives:
                raise UserError(f"train.clip_norm_of.{name}: there is no such objective; write train.clip_norm_of.{name}=null")
        scored = get_protocol(self.score.protocol).section
        if scored != self.data.section:
            raise UserError(
                f"score.protocol: {self.score.protocol!r} scores {scored}, and data.section is {self.data.section!r}: choose a "
                "protocol of that section"
            )
        if not self.objectives:
            raise UserError("objectives: none; write at least report: {kind: report}")
        if getattr(self.vision, "cache", "") and self.augment.augmentation().active:
            raise UserError("vision.cache: cached features and augment.* exclude each other; clear one of them")

    def _check_parts(self) -> None:
        """Each part declares what it takes and gives (`takes`, `gives` of its options); neighbours have to agree."""
        vision, connector, language = self.vision, self.connector, self.language
        connectors: dict[str, Any] = CONNECTOR.kinds
        languages: dict[str, Any] = LANGUAGE.kinds
        if not set(vision.gives) & set(connector.takes):
            fitting = [name for name, kind in connectors.items() if set(vision.gives) & set(kind.options.takes)]
            raise UserError(
                f"connector.kind: {connector.kind!r} takes {' or '.join(connector.takes)}, and vision.kind: {vision.kind} gives "
                f"{' and '.join(vision.gives)}; write connector.kind: {' | '.join(fitting)}, or another vision.kind"
            )
        if connector.gives != language.takes:
            fitting = [name for name, kind in languages.items() if kind.options.takes == connector.gives]
            raise UserError(
                f"language.kind: {language.kind!r} takes {language.takes}, and connector.kind: {connector.kind} gives "
                f"{connector.gives}; write language.kind: {' | '.join(fitting)}, or another connector.kind"
            )

    def _check_towers(self) -> None:
        """Two towers (language.kind: text) and a report generator have other connectors and objectives."""
        paired = [name for name, objective in self.objectives.items() if objective.kind in PAIRED]
        others = [name for name in self.objectives if name not in paired]
        if self.writes:
            if self.connector.kind == "shared_space" or self.vision.kind == "mrm":
                raise UserError(
                    f"language.kind: {self.language.kind!r} writes reports, and vision {self.vision.kind}, connector "
                    f"{self.connector.kind} align films with reports; write language.kind: text, or other parts"
                )
            if paired:
                raise UserError(f"objectives.{paired[0]}: compares two towers; write language.kind: text, or {paired[0]}: null")
            return
        if self.connector.kind != "shared_space" or self.vision.kind == "none":
            raise UserError(
                "language.kind: text aligns reports with films; write connector.kind: shared_space, and a vision.kind that reads "
                "films"
            )
        if others:
            raise UserError(f"objectives.{others[0]}: a text tower writes no report; write {others[0]}: null")
        if any(objective.kind == "masked_image" for objective in self.objectives.values()) and self.vision.kind != "mrm":
            raise UserError("objectives: masked_image needs the image decoder of vision.kind: mrm; write masked_image: null")
        if self.strategy not in ("ddp", "zero2"):
            raise UserError(
                f"strategy: {self.strategy} spreads the weights of a language model; two towers run with ddp or zero2"
            )
        if self.train.validate_reports:
            raise UserError("train.validate_reports: a text tower writes none; write false")
        if getattr(self.vision, "cache", "") or self.data.stitch or self.reads_ngrams:
            raise UserError("language.kind: text reads films as they are; write vision.cache: '', data.stitch: false, no n-grams")
        if self.vision.kind == "mrm" and (self.data.views not in ("frontal", "frontal_lateral") or self.data.max_views > 2):
            raise UserError("data.views: vision.kind mrm has a place for one frontal and one lateral film; write frontal_lateral")

    def _check_ngrams(self) -> None:
        if self.vision.kind == "none":
            return
        wanted = getattr(self.connector, "enhance", False)
        if wanted and not self.observations.ngrams:
            raise UserError(
                "connector.enhance: needs n-grams; write observations.ngrams: TABLE (of `rrg prepare ngrams`), or "
                "connector.enhance: false"
            )
        if self.observations.ngrams and not wanted:
            raise UserError(
                f"observations.ngrams: the connector ({self.connector.kind}) reads none; write observations.ngrams: '', or a "
                "connector that does (connector.enhance)"
            )

    def _check_views(self) -> None:
        if self.vision.kind == "none":
            return
        if self.data.stitch and self.vision.resize not in ("pad", "squash"):
            raise UserError(
                "data.stitch: a wide picture would lose its outer films to a centre crop; write vision.resize: pad (or squash)"
            )
        if self.data.stitch and self.augment.kind == "random_crop":
            raise UserError("data.stitch: augment.kind random_crop would cut films off; write affine or none")
        shown = 1 if self.data.stitch else self.data.max_views
        if getattr(self.connector, "views", "") == "concat" and self.connector.max_views < shown:
            raise UserError(
                f"connector.max_views: {self.connector.max_views}, but data.max_views is {shown}: each film of a study has an "
                f"embedding of its place; write connector.max_views: {shown}"
            )


def load_recipe(recipe: str | Path, overrides: Sequence[str] = ()) -> Loaded[Recipe]:
    """The typed recipe, with every stage checked too."""
    from rrg.stages import check_connectors

    loaded = load(Recipe, recipe, overrides)
    check_connectors(loaded)
    return loaded
