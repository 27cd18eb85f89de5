"""From the parameters of a film to the bytes of its JPEG."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from rrg.data.prepare.phantom.canvas import Canvas, Plane
from rrg.data.prepare.phantom.frontal import frontal
from rrg.data.prepare.phantom.lateral import lateral
from rrg.data.prepare.phantom.truth import Film, StudyTruth, generator

QUALITY = 92


def draw(truth: StudyTruth, film: Film) -> npt.NDArray[np.uint8]:
    """One film of a study, [rows, columns], white is dense."""
    canvas = Canvas(film.rows, film.columns, film.pose)
    plane = lateral(canvas, truth) if film.view == "LATERAL" else frontal(canvas, truth)
    return _marked(_exposed(plane, film), film, canvas.scale)


def jpeg(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Grayscale JPEG bytes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def _exposed(plane: Plane, film: Film) -> npt.NDArray[np.uint8]:
    """Contrast, exposure, a little scatter from one side, quantum noise."""
    rng = generator(film.seed)
    tilt = rng.uniform(-0.03, 0.03)
    plane = (plane - 0.45) * film.contrast + 0.45 * film.exposure
    plane += np.linspace(-tilt, tilt, film.columns, dtype=np.float32)[None, :] * (plane > 0.12)
    noise = rng.standard_normal(plane.shape, dtype=np.float32)
    plane += film.noise * noise
    grey: npt.NDArray[np.uint8] = np.clip(255 * plane, 4, 255).astype(np.uint8)
    return grey


def _marked(pixels: npt.NDArray[np.uint8], film: Film, scale: float) -> npt.NDArray[np.uint8]:
    """The letter that radiographers put on the film: the patient's left, and AP where it is one."""
    image = Image.fromarray(pixels)
    font = ImageFont.load_default(size=max(8, 0.085 * scale))
    place = (0.90 * film.columns, 0.05 * film.rows)
    ImageDraw.Draw(image).text(
        place, {"AP": "L\nAP"}.get(film.view, "L"), fill=235, font=font, anchor="ma" if film.view != "AP" else None
    )
    return np.asarray(image)
