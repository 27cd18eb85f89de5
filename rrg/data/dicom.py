"""Films in DICOM files: one grey frame, decoded by pydicom and its plug-ins, toned by the file's own rules.

Only the attributes that decide the pixels are parsed; nothing about the patient is read. What is refused, in words: colour,
several frames, more pixels than any film has, deflated and big-endian files, codestreams whose size is not the header's.
"""

from __future__ import annotations

import importlib
import io
import logging
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rrg.data.codestreams import MOST_SCANS, count_scans, stated_extent
from rrg.data.dicom_tones import Stored, ToneError, tone_table
from rrg.errors import UserError

if TYPE_CHECKING:
    from pydicom import Dataset

# The largest detectors give 20 million pixels; a file that says 80 million is no film.
MOST_PIXELS = 80_000_000

_TAGS = (
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "RescaleSlope",
    "RescaleIntercept",
    "ModalityLUTSequence",
    "VOILUTSequence",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "PixelData",
)
_PLAIN: Any = {"correct_unused_bits": False}  # `_patterns` does it, high bit included
_META = 132  # bytes of preamble and "DICM"
_BARE_STREAMS = (b"\xff\xd8", b"\xff\x4f")  # JPEG and JPEG 2000 without boxes: both end with the marker ff d9
_NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")
_RLE = "1.2.840.10008.1.2.5"
_LIBJPEG, _OPENJPEG = "pylibjpeg-libjpeg", "pylibjpeg-openjpeg"
# Transfer syntax -> its name, and the package that decodes it.
_COMPRESSED = {
    "1.2.840.10008.1.2.4.50": ("JPEG", _LIBJPEG),
    "1.2.840.10008.1.2.4.51": ("JPEG, 12 bits", _LIBJPEG),
    "1.2.840.10008.1.2.4.57": ("lossless JPEG", _LIBJPEG),
    "1.2.840.10008.1.2.4.70": ("lossless JPEG", _LIBJPEG),
    "1.2.840.10008.1.2.4.80": ("JPEG-LS", _LIBJPEG),
    "1.2.840.10008.1.2.4.81": ("JPEG-LS", _LIBJPEG),
    "1.2.840.10008.1.2.4.90": ("JPEG 2000", _OPENJPEG),
    "1.2.840.10008.1.2.4.91": ("JPEG 2000", _OPENJPEG),
    "1.2.840.10008.1.2.4.201": ("HTJ2K", _OPENJPEG),
    "1.2.840.10008.1.2.4.202": ("HTJ2K", _OPENJPEG),
    "1.2.840.10008.1.2.4.203": ("HTJ2K", _OPENJPEG),
}


class DicomError(ValueError):
    """The bytes are not a film in DICOM that can be read. The message holds no text of the file, so no patient data."""


def is_dicom(data: bytes) -> bool:
    """Whether the bytes begin as a DICOM file does: a preamble of 128 bytes, then DICM."""
    return data[128:132] == b"DICM"


def require_dicom() -> None:
    """Raises UserError where pydicom is missing."""
    try:
        importlib.import_module("pydicom")
    except ImportError:
        raise UserError("films are DICOM files and pydicom is not installed: pip install 'rrg[dicom]'") from None


def read_dicom(data: bytes, tones: str = "window") -> npt.NDArray[np.uint8]:
    """The film of a DICOM file as uint8 [H, W], 255 where it is dense.

    Args:
        data: the whole file.
        tones: a key of `dicom_tones.TONES`.

    Raises:
        DicomError: the file is damaged, or no single grey film.
        UserError: a package is missing that its transfer syntax needs.
    """
    require_dicom()
    # pydicom warns with the values of attributes, which may name the patient.
    logging.getLogger("pydicom").addHandler(logging.NullHandler())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _film(data, tones)


def _film(data: bytes, tones: str) -> npt.NDArray[np.uint8]:
    film = _parsed(data)
    stored = _checked(film)
    patterns = _patterns(film, stored)
    try:
        table = tone_table(film, stored, lambda: np.bincount(patterns.ravel(), minlength=1 << stored.bits), tones)
    except ToneError as error:
        raise DicomError(str(error)) from None
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DicomError(f"its attributes of grey levels cannot be read ({type(error).__name__})") from None
    levels: npt.NDArray[np.uint8] = table[patterns]
    return levels


def _parsed(data: bytes) -> Dataset:
    """The attributes of `_TAGS` of a file whose transfer syntax can be read."""
    from pydicom import config, dcmread
    from pydicom.filereader import read_dataset

    config.settings.reading_validation_mode = config.IGNORE
    try:
        # The syntax first: pydicom would inflate a deflated file whole, and a megabyte may hold a gigabyte.
        file = io.BytesIO(data)
        file.seek(_META)
        meta = read_dataset(file, is_implicit_VR=False, is_little_endian=True, stop_when=lambda tag, *_: tag.group != 2)
        syntax = str(meta.get("TransferSyntaxUID", ""))
        if syntax not in (*_NATIVE, _RLE, *_COMPRESSED):
            raise DicomError(f"its transfer syntax {_short(syntax)} is none that is read here")
        film = dcmread(io.BytesIO(data), specific_tags=list(_TAGS))
        for _ in film.iterall():  # values are converted when first looked at: look at all of them here, where it may fail
            pass
    except (DicomError, MemoryError):
        raise
    except Exception as error:  # a parser of hostile bytes raises whatever the bytes make it raise
        raise DicomError(f"its header cannot be read ({type(error).__name__})") from error
    if film.file_meta.get("TransferSyntaxUID") != syntax:
        raise DicomError("its header states two transfer syntaxes")
    return film


def _short(uid: str) -> str:
    return uid[:64] if uid and all(letter.isdigit() or letter == "." for letter in uid) else "(none)"


def _checked(film: Dataset) -> Stored:
    """How the values of a single grey film are stored. Raises DicomError for everything else."""
    try:
        samples, frames = int(film.get("SamplesPerPixel") or 1), int(film.get("NumberOfFrames") or 1)
        rows, columns = int(film.Rows), int(film.Columns)
        allocated = int(film.BitsAllocated)
        bits = int(film.get("BitsStored") or allocated)
        high = int(film.get("HighBit", bits - 1))
        signed = bool(int(film.get("PixelRepresentation") or 0))
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise DicomError(f"it states no rows, columns or bits: no film, or cut short ({type(error).__name__})") from None
    if samples != 1 or film.get("PhotometricInterpretation") not in ("MONOCHROME1", "MONOCHROME2"):
        raise DicomError("it is a colour picture; a film is MONOCHROME1 or MONOCHROME2 with one sample per pixel")
    if frames != 1:
        raise DicomError(f"it has {frames} frames; a film has one")
    if rows < 1 or columns < 1 or rows * columns > MOST_PIXELS:
        raise DicomError(f"{rows} x {columns} pixels is not the size of a film")
    if allocated not in (8, 16) or not 1 <= bits <= allocated or not bits - 1 <= high < allocated:
        raise DicomError(f"{bits} bits stored in {allocated}, the highest {high}, is no way to store a film")
    film.HighBit, film.BitsStored, film.SamplesPerPixel = high, bits, 1
    return Stored(bits, signed)


def _patterns(film: Dataset, stored: Stored) -> npt.NDArray[np.unsignedinteger[Any]]:
    """The stored bits of each pixel, [H, W], without what other bits of the word may hold (overlays of old files)."""
    pixels = _decoded(film)
    if pixels.shape != (film.Rows, film.Columns) or pixels.dtype.kind not in "iu" or pixels.dtype.itemsize > 2:
        raise DicomError("its pixels are not what its header says")
    mask, shift = (1 << stored.bits) - 1, 0
    if film.file_meta.TransferSyntaxUID in _NATIVE:
        shift = film.HighBit + 1 - stored.bits
    elif int(pixels.max()) > mask or int(pixels.min()) < (-1 - (mask >> 1) if stored.signed else 0):
        raise DicomError(f"its pixels need more than the {stored.bits} bits that its header says")
    words: npt.NDArray[np.unsignedinteger[Any]] = pixels.view(f"u{pixels.dtype.itemsize}")
    if shift or stored.bits < 8 * words.itemsize:
        words = (words >> words.dtype.type(shift)) & words.dtype.type(mask)
    return words


def _decoded(film: Dataset) -> npt.NDArray[np.int_]:
    from pydicom.pixels import get_decoder

    syntax = film.file_meta.TransferSyntaxUID
    if "PixelData" not in film:
        raise DicomError("it holds no pixels")
    if syntax in _COMPRESSED:
        _check_codestream(film)
        _require_decoder(syntax)
    # pylibjpeg-rle panics on a run that leads beyond the file; pydicom's own decoder takes 0.5 s a film and does not.
    plugin = "pydicom" if syntax == _RLE else ""
    try:
        pixels: npt.NDArray[np.int_] = get_decoder(syntax).as_array(film, index=0, raw=True, decoding_plugin=plugin, **_PLAIN)[0]
    except MemoryError:
        raise
    except Exception as error:  # decoders in C raise whatever hostile bytes make them raise
        raise DicomError(f"its pixels cannot be decoded ({type(error).__name__})") from error
    return pixels


def _check_codestream(film: Dataset) -> None:
    """Raises DicomError where the compressed frame is of another size than the header says, before it is decoded."""
    from pydicom.encaps import get_frame

    try:
        frame = get_frame(film.PixelData, 0, number_of_frames=1)
        extent = stated_extent(frame)
    except Exception as error:  # fragments and offsets are hostile bytes too
        raise DicomError(f"its compressed pixels cannot be found ({type(error).__name__})") from error
    if extent != (film.Rows, film.Columns, 1):
        raise DicomError("its compressed pixels are of another size or colour than its header says")
    if frame.startswith(_BARE_STREAMS) and not frame.rstrip(b"\0\xff").endswith(b"\xff\xd9"):
        raise DicomError("its compressed pixels are cut short")  # the decoders fill up with grey
    if count_scans(frame) > MOST_SCANS:
        raise DicomError("its JPEG has more scans than any film")


def _require_decoder(syntax: str) -> None:
    """Raises UserError where no installed package decodes the transfer syntax."""
    from pydicom.pixels import get_decoder

    if get_decoder(syntax).is_available:
        return
    name, package = _COMPRESSED[syntax]
    raise UserError(
        f"a film is compressed as {name} (transfer syntax {syntax}) and nothing installed decodes it: "
        f"pip install pylibjpeg {package}, or 'rrg[dicom]'"
    )
