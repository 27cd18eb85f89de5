"""From the stored values of a film to grey levels: one table of at most 65,536 entries, so a film costs one look-up per pixel.

The chain is that of DICOM PS3.3: modality LUT or rescale (C.11.1), VOI LUT or window (C.11.2), inversion of MONOCHROME1
(C.7.6.3.1.2). `pydicom.pixels.apply_voi` wraps around where an 8-bit LUT meets deeper values, hence our own look-up.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from pydicom import Dataset

TONES = {
    "window": "the file's own VOI LUT or window; percentiles where it has none",
    "equalized": "stretched and histogram-equalised, as the films of MIMIC-CXR-JPG were made",
}
# Share of the pixels, in percent, that may become black and white where the file gives no window.
PERCENTILES = (0.5, 99.5)

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


class ToneError(ValueError):
    """The file's own rule for its grey levels makes no sense."""


@dataclass(frozen=True)
class Stored:
    """How values are stored: `bits` of them, two's complement where `signed`."""

    bits: int
    signed: bool

    def values(self) -> npt.NDArray[np.int64]:
        """The value that each pattern of bits stands for, int64 [2**bits]."""
        patterns = np.arange(1 << self.bits, dtype=np.int64)
        return np.where(patterns >= 1 << (self.bits - 1), patterns - (1 << self.bits), patterns) if self.signed else patterns


def tone_table(film: Dataset, stored: Stored, count: Callable[[], Counts], tones: str) -> npt.NDArray[np.uint8]:
    """Grey level of each pattern of bits, uint8 [2**bits], 255 where a film is dense.

    Args:
        film: the DICOM attributes.
        count: gives int64 [2**bits], how many pixels hold each pattern; called where the tones depend on it.
        tones: a key of `TONES`.

    Raises ToneError for a LUT or window that is cut short, of no width or not finite.
    """
    values = stored.values()
    padding = _padding(film, values)

    def seen() -> Counts:
        return np.where(padding, 0, count())

    inverted = film.get("PhotometricInterpretation") == "MONOCHROME1"
    if tones == "equalized":
        counts = seen()
        levels = _equalized(_stretched(values, counts, inverted), counts)
    else:
        share = _voi(film, _modality(film, values), seen)
        levels = np.floor(np.clip(1 - share if inverted else share, 0, 1) * 255 + 0.5)
    levels[padding] = 0
    return levels.astype(np.uint8)


def _padding(film: Dataset, values: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Which values are padding: PixelPaddingValue, or the range from it to PixelPaddingRangeLimit (C.7.5.1.1.2)."""
    edge = film.get("PixelPaddingValue")
    if edge is None:
        return np.zeros(values.shape, dtype=bool)
    limit = film.get("PixelPaddingRangeLimit")
    low, high = sorted((int(edge), int(edge if limit is None else limit)))
    inside: npt.NDArray[np.bool_] = (values >= low) & (values <= high)
    return inside


def _modality(film: Dataset, values: npt.NDArray[np.int64]) -> Floats:
    items = film.get("ModalityLUTSequence")
    if items:
        return _looked_up(items[0], values.astype(np.float64))[0]
    slope, intercept = _number(film, "RescaleSlope", 1.0), _number(film, "RescaleIntercept", 0.0)
    if slope == 0:
        raise ToneError("its rescale slope is 0")
    return values.astype(np.float64) * slope + intercept


def _voi(film: Dataset, values: Floats, count: Callable[[], Counts]) -> Floats:
    """Share of full white, 0 to 1, of each value."""
    items = film.get("VOILUTSequence")
    if items:
        levels, bits = _looked_up(items[0], values)
        return levels / ((1 << bits) - 1)
    if film.get("WindowCenter") is not None and film.get("WindowWidth") is not None:
        return windowed(values, _number(film, "WindowCenter"), _number(film, "WindowWidth"), _function(film))
    low, high = percentiles(values, count())
    return np.clip((values - low) / (high - low), 0, 1) if high > low else np.zeros(values.shape)


def windowed(values: Floats, center: float, width: float, function: str = "LINEAR") -> Floats:
    """The VOI functions LINEAR, LINEAR_EXACT and SIGMOID (C.11.2.1.2, C.11.2.1.3), scaled to 0 … 1. Raises ToneError."""
    if not (width >= 1 if function == "LINEAR" else width > 0):
        raise ToneError("its window has no width")
    if function == "SIGMOID":
        share: Floats = 1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -700, 700)))
        return share
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    if width == 0:
        return (values > center).astype(np.float64)
    return np.clip((values - center) / width + 0.5, 0, 1)


def percentiles(values: Floats, counts: Counts) -> tuple[float, float]:
    """The values below and above which `PERCENTILES` of the pixels lie; (0, 0) where there is no pixel."""
    total = int(counts.sum())
    if not total:
        return 0.0, 0.0
    order = np.argsort(values, kind="stable")
    below = np.cumsum(counts[order])
    places = (np.searchsorted(below, total * share / 100) for share in PERCENTILES)
    low, high = (float(values[order[min(int(place), len(order) - 1)]]) for place in places)
    return low, high


def _stretched(values: npt.NDArray[np.int64], counts: Counts, inverted: bool) -> npt.NDArray[np.uint8]:
    """Lowest to highest value of the film over 0 … 255, fractions cut, as published for MIMIC-CXR-JPG (Johnson et al. 2019)."""
    there = values[counts > 0]
    low, high = (int(there.min()), int(there.max())) if there.size else (0, 0)
    levels = (np.clip(values - low, 0, high - low) * 255 // max(high - low, 1)).astype(np.uint8)
    return 255 - levels if inverted else levels


def _equalized(levels: npt.NDArray[np.uint8], counts: Counts) -> Floats:
    """Histogram equalisation of 8-bit levels as OpenCV's `equalizeHist` does it."""
    histogram = np.bincount(levels, weights=counts, minlength=256)
    first = int(np.argmax(histogram > 0))
    rest = histogram.sum() - histogram[first]
    if rest <= 0:
        return levels.astype(np.float64)
    below = np.cumsum(histogram) - histogram[first]
    return np.rint(np.clip(below, 0, None) * 255 / rest)[levels]


def _looked_up(item: Dataset, values: Floats) -> tuple[Floats, int]:
    """An item of a LUT sequence applied to values, and the bits of its entries. Raises ToneError."""
    descriptor = item.get("LUTDescriptor")
    if descriptor is None or len(descriptor) != 3:
        raise ToneError("its LUT has no descriptor")
    entries, first, bits = (int(number) for number in descriptor)
    table = _entries(item.get("LUTData"))
    entries = (entries & 0xFFFF) or 1 << 16
    if not 1 <= bits <= 16 or len(table) < entries:
        raise ToneError("its LUT is shorter than it says")
    places = np.clip(np.rint(values) - first, 0, entries - 1).astype(np.int64)
    return np.minimum(table[places], (1 << bits) - 1), bits


def _entries(data: Any) -> Floats:
    """LUTData is a list of numbers (US) or bytes (OW), little-endian as all transfer syntaxes read here have it."""
    if isinstance(data, bytes | bytearray):
        return np.frombuffer(data[: len(data) // 2 * 2], dtype="<u2").astype(np.float64)
    return np.asarray([] if data is None else data, dtype=np.float64).ravel()


def _function(film: Dataset) -> str:
    name = str(film.get("VOILUTFunction") or "LINEAR").upper()
    if name not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise ToneError("its VOI LUT function is none of LINEAR, LINEAR_EXACT, SIGMOID")
    return name


def _number(film: Dataset, name: str, default: float | None = None) -> float:
    """A decimal attribute, the first of several. Raises ToneError where it is not finite."""
    value = film.get(name)
    if value is None or value == "":
        if default is None:
            raise ToneError(f"its {name} is empty")
        return default
    number = float(value if isinstance(value, str | int | float) else next(iter(value), math.nan))
    if not math.isfinite(number) or abs(number) > 1e12:
        raise ToneError(f"its {name} is no sensible number")
    return number
