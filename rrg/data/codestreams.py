"""The size that a compressed film states of itself, read before any decoder is let near it.

A decoder allocates what the codestream asks for, so a file of a few hundred bytes may ask for gigabytes. JPEG and JPEG-LS state
their size in the first frame header (ITU-T T.81 B.2.2, T.87 C.2.2), JPEG 2000 in the SIZ marker (ITU-T T.800 A.5.1).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

# Real progressive films have about ten scans; each scan costs a decoder a pass over all coefficients.
MOST_SCANS = 64

_SOI = b"\xff\xd8"
_SOC_SIZ = b"\xff\x4f\xff\x51"
_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7})
_BARE = frozenset({0x01, 0xD8, *range(0xD0, 0xD8)})  # markers without a length
_START_OF_SCAN = b"\xff\xda"


class Extent(NamedTuple):
    """Rows and columns in pixels, and the number of components (1 is grey)."""

    rows: int
    columns: int
    components: int

    @property
    def pixels(self) -> int:
        """Rows times columns."""
        return self.rows * self.columns


def stated_extent(data: bytes) -> Extent:
    """The extent that a JPEG, JPEG-LS or JPEG 2000 codestream (also inside JP2) states. Raises ValueError where there is none."""
    if data.startswith(_SOI):
        return _jpeg_extent(data)
    start = data.find(_SOC_SIZ, 0, 4096)  # JP2 puts a few boxes before the codestream
    if start < 0:
        raise ValueError("neither a JPEG nor a JPEG 2000 codestream")
    if len(data) < start + 42:
        raise ValueError("cut short in its header")
    right, lower, left, upper = struct.unpack_from(">4I", data, start + 8)
    (components,) = struct.unpack_from(">H", data, start + 40)
    return Extent(lower - upper, right - left, components)


def count_scans(data: bytes) -> int:
    """How often a JPEG starts a scan; inside the coded data no other bytes look like the marker."""
    return data.count(_START_OF_SCAN)


def _jpeg_extent(data: bytes) -> Extent:
    place = 2
    while place + 4 <= len(data):
        if data[place] != 0xFF:
            raise ValueError("no marker where one is due")
        marker = data[place + 1]
        if marker == 0xFF or marker in _BARE:  # a fill byte, or a marker of two bytes
            place += 1 if marker == 0xFF else 2
            continue
        if marker in _FRAMES:
            if place + 10 > len(data):
                break
            rows, columns, components = struct.unpack_from(">HHB", data, place + 5)
            return Extent(rows, columns, components)
        if marker in (0xD9, 0xDA):
            raise ValueError("no frame header before its pixels")
        place += 2 + max(2, int.from_bytes(data[place + 2 : place + 4], "big"))
    raise ValueError("cut short in its header")
