"""Ways to damage one file of a small MIMIC-CXR tree, each a function of a generator of chance."""

from __future__ import annotations

import gzip
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from dicom_films import SYNTAXES, dicom, encapsulated, lossless_jpeg, stored
from mimic_tree import CASES, REPORT
from PIL import Image
from pydicom import dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless, JPEGLosslessSV1

Chance = np.random.Generator
PIXELS = np.add.outer(np.arange(61), np.arange(47)) * 38
MEMBER = "files/p10/p10000001/s50000001.txt"


def cut(data: bytes, chance: Chance) -> bytes:
    return data[: int(chance.integers(len(data)))]


def flipped(data: bytes, chance: Chance) -> bytes:
    changed = bytearray(data)
    for place in chance.integers(0, len(data), int(chance.integers(1, 9))):
        changed[place] ^= 1 << int(chance.integers(8))
    return bytes(changed)


def overwritten(data: bytes, chance: Chance) -> bytes:
    start = int(chance.integers(len(data)))
    span = int(chance.integers(1, 60))
    return data[:start] + chance.bytes(min(span, len(data) - start)) + data[start + span :]


def replaced(data: bytes, chance: Chance) -> bytes:
    return [b"", b"\0" * 900, b"<html>404</html>", chance.bytes(700), data + data][int(chance.integers(5))]


BYTES = {"cut": cut, "flipped": flipped, "overwritten": overwritten, "replaced": replaced}


def spoil(path: Path, how: str, chance: Chance) -> None:
    path.write_bytes(BYTES[how](path.read_bytes(), chance))


# --- films -------------------------------------------------------------------------------------------------------------------


def jpeg_bomb(chance: Chance) -> bytes:
    """A small JPEG whose header asks for 65,500 x 65,500 pixels."""
    file = io.BytesIO()
    Image.fromarray(PIXELS.astype(np.uint8)).save(file, "JPEG", progressive=bool(chance.integers(2)))
    return file.getvalue().replace(struct.pack(">HH", 61, 47), struct.pack(">HH", 65500, 65500), 1)


def scan_bomb(_: Chance) -> bytes:
    """A progressive JPEG that repeats its last scan a thousand times."""
    file = io.BytesIO()
    Image.fromarray(PIXELS.astype(np.uint8)).resize((900, 900)).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * 1000 + b"\xff\xd9"


def png_bomb(_: Chance) -> bytes:
    """A PNG of 50,000 x 50,000 black pixels in a few hundred kilobytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = zlib.compress(bytes(100 << 20), 9)
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def dicom_film(chance: Chance) -> bytes:
    syntax = list(SYNTAXES.values())[int(chance.integers(len(SYNTAXES)))]
    return dicom(PIXELS, syntax, WindowCenter=2048, WindowWidth=4096)


HEADERS = (
    {"Rows": 65535, "Columns": 65535},
    {"Rows": 0},
    {"Columns": 1},
    {"BitsAllocated": 64},
    {"BitsStored": 40},
    {"HighBit": 200},
    {"SamplesPerPixel": 3},
    {"NumberOfFrames": "2000000000"},
    {"PhotometricInterpretation": "PALETTE COLOR"},
    {"WindowCenter": "1e308", "WindowWidth": "1e-308"},
    {"RescaleSlope": "nan", "RescaleIntercept": "0"},
    {"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 65535},
    {"PixelRepresentation": 1},
)


def dicom_header(chance: Chance) -> bytes:
    return dicom(PIXELS, **HEADERS[int(chance.integers(len(HEADERS)))])


def dicom_bomb(chance: Chance) -> bytes:
    """Compressed pixels, or a deflated file, that grow without end when they are opened."""
    film = dcmread(io.BytesIO(dicom(PIXELS, JPEG2000Lossless)))
    kind = int(chance.integers(3))
    if kind == 0:
        frame = film.PixelData[film.PixelData.index(b"\xff\x4f\xff\x51") :]
        encapsulated(film, frame[:8] + struct.pack(">II", 60_000, 60_000) + frame[16:], JPEG2000Lossless)
    elif kind == 1:
        frame = lossless_jpeg(PIXELS.astype(np.uint16), 12)
        encapsulated(film, frame.replace(struct.pack(">HH", 61, 47), struct.pack(">HH", 65000, 65000)), JPEGLosslessSV1)
    else:
        film = dcmread(io.BytesIO(dicom(PIXELS)))
        film.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        whole = stored(film)
        return whole[:300] + zlib.compress(bytes(200 << 20), 9, wbits=-15)
    return stored(film)


def nested_dicom(_: Chance) -> bytes:
    """Sequences inside sequences, thousands deep."""
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    sequence = struct.pack("<HH2sHI", 0x0028, 0x3010, b"SQ", 0, 0xFFFFFFFF)
    return dicom(PIXELS) + (sequence + item) * 5000


# --- tables ------------------------------------------------------------------------------------------------------------------

TABLES = ("metadata", "split", "chexpert")


def table_text(text: str, chance: Chance) -> bytes:
    """One of the ways in which a table is wrong as text."""
    lines = text.splitlines(keepends=True)
    row = int(chance.integers(1, len(lines)))
    columns = lines[0].strip().split(",")
    gone = columns[int(chance.integers(len(columns)))]
    ways: tuple[Callable[[], bytes], ...] = (
        lambda: text.replace(gone, "unknown", 1).encode(),
        lambda: "".join([*lines[:row], lines[row][: len(lines[row]) // 2] + "\n", *lines[row + 1 :]]).encode(),
        lambda: "".join([*lines[:row], lines[row].strip() + ",1\n", *lines[row + 1 :]]).encode(),
        lambda: "".join([*lines[:row], '"' + lines[row], *lines[row + 1 :]]).encode(),
        lambda: text.encode("utf-16"),
        lambda: text.replace("0", "\u00d8", 3).encode("latin-1"),
        lambda: text.encode().replace(b"0", b"\0", 2),
        lambda: (text + lines[row]).encode(),
        lambda: lines[0].encode(),
        lambda: (lines[0] + "x" * 3_000_000 + "\n").encode(),
        lambda: text.replace("\n", "\r\n").encode("utf-8-sig"),
        lambda: (lines[0] + ",".join('"' + "a" * 200_000 + '"' for _ in columns) + "\n").encode(),
    )
    return ways[int(chance.integers(len(ways)))]()


def table(root: Path, chance: Chance) -> None:
    path = root / f"mimic-cxr-2.0.0-{TABLES[int(chance.integers(3))]}.csv"
    path.write_bytes(table_text(path.read_text(), chance))


def packed_table(root: Path, chance: Chance) -> None:
    """A gzip file that is cut, flipped, or a bomb: 300 MB of one line in 300 kB."""
    path = root / f"mimic-cxr-2.0.0-{TABLES[int(chance.integers(3))]}.csv"
    data = gzip.compress(path.read_bytes(), mtime=0)
    path.unlink()
    kind = int(chance.integers(4))
    bomb = zlib.compressobj(9, wbits=31)
    whole = (cut, flipped, overwritten)[kind](data, chance) if kind < 3 else bomb.compress(bytes(300 << 20)) + bomb.flush()
    path.with_name(path.name + ".gz").write_bytes(whole)


# --- reports -----------------------------------------------------------------------------------------------------------------


def zip_names(root: Path, chance: Chance) -> None:
    """Members that point elsewhere, twice the same study, or an archive of folders."""
    names = (
        "../../outside.txt",
        "/outside.txt",
        "files\\..\\outside.txt",
        "C:\\outside.txt",
        f"../{MEMBER}",
        f"other/{MEMBER}",
    )
    with zipfile.ZipFile(root / "mimic-cxr-reports.zip", "a") as archive:
        archive.writestr(names[int(chance.integers(len(names)))], REPORT)


def zip_members(root: Path, chance: Chance) -> None:
    """A report that is a bomb, encrypted, packed in an odd way, or says another size."""
    path = root / "mimic-cxr-reports.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(MEMBER, b"a" * (80 << 20) if chance.integers(2) else REPORT)
    data = bytearray(path.read_bytes())
    place = data.rindex(b"PK\x01\x02")
    where, what = ((8, 1), (10, 9), (20, 77), (24, 77), (28, 3), (42, 200))[int(chance.integers(6))]
    data[place + where] = what
    path.write_bytes(bytes(data))


def report(root: Path, chance: Chance) -> None:
    """A text file that is no text, in another encoding, too long or empty."""
    (root / "mimic-cxr-reports.zip").unlink()
    for case in CASES:
        path = root / "mimic-cxr-reports" / f"files/p{str(case.subject)[:2]}/p{case.subject}/s{case.study}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(REPORT)
    text = REPORT.replace("lungs", "l\u00fcngs")
    texts = [b"", b"\0" * 300, chance.bytes(900), text.encode("utf-16"), text.encode("utf-16-be"), text.encode("latin-1")]
    texts += [REPORT.encode() * 40_000, text.encode("utf-32"), flipped(REPORT.encode(), chance), cut(REPORT.encode(), chance)]
    (root / "mimic-cxr-reports" / MEMBER).write_bytes(texts[int(chance.integers(len(texts)))])


def annotation(folder: Path, chance: Chance) -> Path:
    """A damaged mimic_annotation.json."""
    records = {
        split: [
            {"study_id": case.study, "subject_id": case.subject, "report": "clear .", "split": split, "id": case.films[0][0]}
            | {"image_path": [f"p{str(case.subject)[:2]}/p{case.subject}/s{case.study}/{case.films[0][0]}.jpg"]}
            for case in cases
        ]
        for split, cases in {"train": CASES[:2], "val": CASES[2:3], "test": CASES[3:]}.items()
    }
    how = list(BYTES)[int(chance.integers(len(BYTES)))]
    path = folder / "annotation.json"
    path.write_bytes(BYTES[how](json.dumps(records).encode(), chance))
    return path


def exceptions(folder: Path, chance: Chance) -> Path:
    """A damaged list of exceptions."""
    text = "study_id,reason\n50000002,too dark\n" if chance.integers(2) else "s50000002 too dark\n"
    path = folder / "exceptions"
    path.write_bytes(BYTES[list(BYTES)[int(chance.integers(len(BYTES)))]](text.encode(), chance))
    return path
