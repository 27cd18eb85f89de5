"""DICOM films for tests to read: any bit depth, sign and tone rule, every transfer syntax that can be written here."""

from __future__ import annotations

import io

import numpy as np
import simplejpeg
from pydicom import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    RLELossless,
)

SYNTAXES = {
    "explicit": ExplicitVRLittleEndian,
    "implicit": ImplicitVRLittleEndian,
    "rle": RLELossless,
    "jpeg2000": JPEG2000Lossless,
    "lossless_jpeg": JPEGLosslessSV1,
}


def dicom(
    pixels: np.ndarray, syntax: str = ExplicitVRLittleEndian, *, bits: int = 12, signed: bool = False, **attributes
) -> bytes:
    """A film of stored values [H, W] with further attributes by keyword; `bits` of them in 8 or 16."""
    allocated = 8 if bits <= 8 else 16
    film = Dataset()
    film.file_meta = FileMetaDataset()
    film.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    film.file_meta.MediaStorageSOPClassUID = film.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    film.file_meta.MediaStorageSOPInstanceUID = film.SOPInstanceUID = "1.2.3"
    film.PatientName = "Secret^Patient"
    film.SamplesPerPixel, film.PhotometricInterpretation = 1, "MONOCHROME2"
    film.Rows, film.Columns = pixels.shape[:2]
    film.BitsAllocated, film.BitsStored, film.HighBit = allocated, bits, bits - 1
    film.PixelRepresentation = int(signed)
    for name, value in attributes.items():
        setattr(film, name, value)
    words = np.ascontiguousarray(pixels).astype(f"<{'i' if signed else 'u'}{allocated // 8}")
    data = words.tobytes()
    film.PixelData = data + b"\0" * (len(data) % 2)
    film["PixelData"].VR = "OW" if allocated == 16 else "OB"
    if syntax in (JPEG2000Lossless, RLELossless):
        film.compress(syntax, generate_instance_uid=False)
    elif syntax == JPEGLosslessSV1:
        encapsulated(film, lossless_jpeg(words.view(f"u{allocated // 8}"), bits), syntax)
    elif syntax == JPEGBaseline8Bit:
        encapsulated(film, simplejpeg.encode_jpeg(pixels[..., None], 95, "GRAY", "Gray"), syntax)
    else:
        film.file_meta.TransferSyntaxUID = syntax
    return stored(film)


def encapsulated(film: Dataset, frame: bytes, syntax: str) -> None:
    film.file_meta.TransferSyntaxUID = syntax
    film.PixelData = encapsulate([frame])
    film["PixelData"].VR = "OB"
    film["PixelData"].is_undefined_length = True


def stored(film: Dataset) -> bytes:
    file = io.BytesIO()
    film.save_as(file, enforce_file_format=True)
    return file.getvalue()


def lossless_jpeg(words: np.ndarray, bits: int) -> bytes:
    """JPEG process 14, selection value 1 (ITU-T T.81 annex H): each value coded as its difference from its left neighbour."""
    values = words.astype(np.int64) & ((1 << bits) - 1)
    before = np.empty_like(values)
    before[:, 1:] = values[:, :-1]
    before[1:, 0] = values[:-1, 0]
    before[0, 0] = 1 << (bits - 1)
    steps = (values - before + (1 << 15)) % (1 << 16) - (1 << 15)
    steps = steps.ravel()
    size = np.where(steps == 0, 0, np.floor(np.log2(np.maximum(np.abs(steps), 1))).astype(np.int64) + 1)
    extra = np.where(steps < 0, steps + (1 << size) - 1, steps)
    # Seventeen Huffman codes of five bits each: the code of a size is the size itself.
    length = 5 + np.where(size == 16, 0, size)
    code = np.where(size == 16, size, (size << np.where(size == 16, 0, size)) | extra)
    ends = np.cumsum(length)
    stream = np.ones((int(ends[-1]) + 7) // 8 * 8, dtype=np.uint8)
    for place in range(int(length.max())):
        there = length > place
        stream[ends[there] - 1 - place] = (code[there] >> place) & 1
    coded = np.packbits(stream).tobytes().replace(b"\xff", b"\xff\x00")
    table = bytes([0, 0, 0, 0, 0, 17, *([0] * 11), *range(17)])
    rows, columns = words.shape
    frame = bytes([bits]) + rows.to_bytes(2, "big") + columns.to_bytes(2, "big") + b"\x01\x01\x11\x00"
    return (
        b"\xff\xd8"
        + _segment(0xC3, frame)
        + _segment(0xC4, table)
        + _segment(0xDA, b"\x01\x01\x00\x01\x00\x00")
        + coded
        + b"\xff\xd9"
    )


def _segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2, "big") + body
