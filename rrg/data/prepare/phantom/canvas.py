"""An anti-aliased drawing surface in body coordinates.

Body coordinates: x to the right of the image, y down, the origin in the middle of the chest, one unit about twenty centimetres.
A `Pose` says how the body lies on the film, so shapes are described once and every rotation, scale and shift is exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

Plane = npt.NDArray[np.float32]  # [height, width]
Outline = npt.NDArray[np.float64]  # [points, 2], body coordinates
Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels


@dataclass(frozen=True)
class Pose:
    """How the body lies on one film: turned by `angle` radians, `scale` times its usual size, shifted by (dx, dy) units."""

    angle: float = 0.0
    scale: float = 1.0
    dx: float = 0.0
    dy: float = 0.0


def curve(points: Sequence[tuple[float, float]], closed: bool = False, per: int = 8) -> Outline:
    """A smooth (Catmull-Rom) curve through `points`, `per` samples to each span."""
    p = np.asarray(points, dtype=np.float64)
    ring = np.vstack([p[-1:], p, p[:2]]) if closed else np.vstack([2 * p[0] - p[1], p, 2 * p[-1] - p[-2]])
    a, b, c, d = ring[:-3, None], ring[1:-2, None], ring[2:-1, None], ring[3:, None]
    t = (np.arange(per) / per)[None, :, None]
    body = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    flat: Outline = body.reshape(-1, 2)
    return flat if closed else np.vstack([flat, p[-1:]])


def ribbon(line: Outline, width: float | Plane | npt.NDArray[np.float64]) -> Outline:
    """The outline of a band of `width` (a number, or one per point) along `line`."""
    along = np.empty_like(line)
    along[1:-1] = line[2:] - line[:-2]
    along[0], along[-1] = line[1] - line[0], line[-1] - line[-2]
    along /= np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-9)[:, None]
    half = np.broadcast_to(np.asarray(width, dtype=np.float64) / 2, (len(line),))
    across = np.stack([-along[:, 1], along[:, 0]], axis=1) * half[:, None]
    return np.vstack([line + across, (line - across)[::-1]])


def ellipse(x: float, y: float, rx: float, ry: float, turn: float = 0.0, points: int = 28) -> Outline:
    """The outline of an ellipse turned by `turn` radians."""
    t = np.linspace(0, 2 * math.pi, points, endpoint=False)
    u, v = rx * np.cos(t), ry * np.sin(t)
    c, s = math.cos(turn), math.sin(turn)
    return np.stack([x + c * u - s * v, y + s * u + c * v], axis=1)


class Canvas:
    """A film of `height` × `width` pixels on which a body lies in `pose`. Every method returns a new plane; nothing is kept."""

    def __init__(self, height: int, width: int, pose: Pose) -> None:
        self.height, self.width = height, width
        self.scale = pose.scale * min(width, height) / 2.1  # pixels per unit
        c, s = self.scale * math.cos(pose.angle), self.scale * math.sin(pose.angle)
        self._matrix = np.array([[c, s], [-s, c]])
        self._origin = np.array([width / 2 + pose.dx * self.scale, height / 2 + pose.dy * self.scale])

    def pixels(self, outline: Outline) -> Outline:
        """Body coordinates to pixel coordinates (column, row)."""
        moved: Outline = outline @ self._matrix + self._origin
        return moved

    def blank(self) -> Plane:
        """A plane of zeros."""
        return np.zeros((self.height, self.width), dtype=np.float32)

    @cached_property
    def grid(self) -> tuple[Plane, Plane]:
        """Body coordinates (x, y) of every pixel."""
        inverse = np.linalg.inv(self._matrix)
        column = (np.arange(self.width) + 0.5 - self._origin[0])[None, :]
        row = (np.arange(self.height) + 0.5 - self._origin[1])[:, None]
        x = column * inverse[0, 0] + row * inverse[1, 0]
        y = column * inverse[0, 1] + row * inverse[1, 1]
        return x.astype(np.float32), y.astype(np.float32)

    def fill(self, *outlines: Outline, soft: float = 0.0, levels: Sequence[float] | None = None) -> Plane:
        """The union of `outlines`, 1 inside and 0 outside, edges blurred by a Gaussian of `soft` units.

        `levels` gives each outline its own value in 0..1; where outlines overlap, the later one counts.
        """
        plane = self.blank()
        if not outlines:
            return plane
        points = self.pixels(np.vstack(outlines))
        sigma = soft * self.scale
        box = self._box(points, 2 + 3 * sigma)
        if box is None:
            return plane
        shapes = np.split(points, np.cumsum([len(outline) for outline in outlines[:-1]]))
        values = [round(255 * level) for level in levels] if levels is not None else [255] * len(shapes)
        left, top, right, bottom = box
        plane[top:bottom, left:right] = _raster(shapes, values, sigma, box)
        return plane

    def blob(self, x: float, y: float, rx: float, ry: float, turn: float = 0.0, edge: float = 1.0) -> Plane:
        """A soft ellipse: exp(-(r²)^edge); `edge` 1 is a Gaussian cloud, 3 a ball with a firm border."""
        plane = self.blank()
        box = self._box(self.pixels(ellipse(x, y, 2.2 * rx, 2.2 * ry, turn)), 1)
        if box is None:
            return plane
        left, top, right, bottom = box
        gx, gy = (g[top:bottom, left:right] for g in self.grid)
        c, s = math.cos(turn), math.sin(turn)
        u, v = (c * (gx - x) + s * (gy - y)) / rx, (c * (gy - y) - s * (gx - x)) / ry
        plane[top:bottom, left:right] = np.exp(-((u * u + v * v) ** edge))
        return plane

    def _box(self, points: Outline, margin: float) -> Box | None:
        low, high = np.floor(points.min(axis=0) - margin), np.ceil(points.max(axis=0) + margin)
        left, top = max(0, int(low[0])), max(0, int(low[1]))
        right, bottom = min(self.width, int(high[0])), min(self.height, int(high[1]))
        return (left, top, right, bottom) if right > left and bottom > top else None


def _raster(shapes: Sequence[Outline], values: Sequence[int], sigma: float, box: Box) -> Plane:
    """Polygons drawn inside `box` and blurred by `sigma` pixels.

    A wide blur leaves no detail, so it is drawn on coarse cells and scaled up. Edges are smooth because each cell is drawn as
    four.
    """
    left, top, right, bottom = box
    cell = min(8, max(1, int(sigma / 2)))
    pad = math.ceil(3 * sigma / cell) if sigma > 2 else 0  # the blur must see what lies beyond the box
    wide, high = (right - left) / cell, (bottom - top) / cell
    image = Image.new("L", (2 * (math.ceil(wide) + 2 * pad), 2 * (math.ceil(high) + 2 * pad)))
    pen = ImageDraw.Draw(image)
    for shape, value in zip(shapes, values, strict=True):
        pen.polygon((2 * ((shape - (left, top)) / cell + pad) - 0.5).ravel().tolist(), fill=value)
    image = image.reduce(2)
    if sigma > 1:
        image = image.filter(ImageFilter.GaussianBlur(sigma / cell))
    if image.size != (right - left, bottom - top):
        grown = (pad, pad, pad + wide, pad + high)
        image = image.resize((right - left, bottom - top), Image.Resampling.BICUBIC, box=grown)
    return np.asarray(image, dtype=np.float32) * np.float32(1 / 255)
