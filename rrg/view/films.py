"""Films of a study, small enough to live inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from rrg.data.study import View
from rrg.errors import UserError

if TYPE_CHECKING:
    from rrg.shards.reader import Sample, ShardSet

SIDE = 256  # pixels of the longer side
QUALITY = 72


@dataclass(frozen=True)
class Film:
    """A film as a data URI, its size in pixels and the name of its view."""

    uri: str
    width: int
    height: int
    view: str


class Films:
    """The films of one split, read from the shards of a run.

    With `prior`, the films of a study's prior follow its own. `absent` says in words why there are none at all; a film that does
    not decode is left out and its study is in `damaged`.
    """

    def __init__(self, shards: object, split: str, prior: bool = False) -> None:
        self._prior = prior
        self.absent = ""
        self.damaged: list[str] = []
        self._places: dict[str, int] = {}
        self._set: ShardSet | None = None
        if not isinstance(shards, str) or not shards:
            self.absent = "the recipe names no shards (data.shards)"
        elif "://" not in shards and not Path(shards).is_dir():
            hint = "" if Path(shards).is_absolute() else ", a path relative to where `rrg view` is run"
            self.absent = f"there are no shards at {shards} (any more){hint}"
        else:
            self._open(shards, split)

    def of(self, study: str) -> tuple[Film, ...]:
        """Every film of a study in the order of its views; none where the shards do not have the study."""
        sample = self._read(study)
        if sample is None:
            return ()
        films = self._shrunk(sample, "")
        before = self._read(sample.study.prior) if self._prior and sample.study.prior else None
        if before is not None:
            days = sample.study.prior_days
            films += self._shrunk(before, "prior" if days is None else f"{days:,.4g} days before")
        return tuple(films)

    def _read(self, study: str) -> Sample | None:
        from rrg.shards.reader import DamagedSample

        place = self._places.get(study)
        if self._set is None or place is None:
            return None
        try:
            return self._set.read(place)
        except (DamagedSample, UserError, OSError):
            self.damaged.append(study)
            return None

    def _shrunk(self, sample: Sample, when: str) -> list[Film]:
        films = []
        for number, image in enumerate(sample.images):
            view = _view_name(sample.study.views, number)
            try:
                films.append(shrink(image, f"{view}, {when}" if view and when else view or when))
            except (OSError, Image.DecompressionBombError):
                self.damaged.append(sample.study.id)
        return films

    def _open(self, shards: str, split: str) -> None:
        from rrg.shards.reader import ShardSet

        try:
            self._set = ShardSet(shards, split)
        except (UserError, OSError) as error:
            self.absent = f"the shards cannot be read: {error}"
            return
        self._places = {study: place for place, study in enumerate(self._set.ids)}


def shrink(image: bytes, view: str = "") -> Film:
    """A film as grey JPEG of at most `SIDE` pixels. Raises OSError (of Pillow) where `image` does not decode."""
    with Image.open(io.BytesIO(image)) as film:
        film.draft("L", (SIDE, SIDE))
        small = film.convert("L")
        small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    uri = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    return Film(uri, small.width, small.height, view)


def _view_name(views: Sequence[View], number: int) -> str:
    if number >= len(views):
        return ""
    return str(views[number].projection or views[number].plane).lower()
