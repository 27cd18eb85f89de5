"""From the bytes of a film to the tensor an encoder reads.

`Preprocessing` is what the encoder was trained with (spec common §4); `Augmentation` is what training adds. An augmentation is a
pure function of (seed, epoch, study, view): whichever worker or rank prepares a film, the pixels are the same.
"""

from __future__ import annotations

import functools
import hashlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, UnidentifiedImageError

from rrg.errors import UserError, nearest

if TYPE_CHECKING:
    from torch import Tensor

RESIZES = ("squash", "shorter_crop", "pad")
INTERPOLATIONS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
KINDS = ("none", "affine", "random_crop")
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def _require(legal: bool, message: str) -> None:
    if not legal:
        raise UserError(message)


@dataclass(frozen=True)
class Preprocessing:
    """How a film becomes the square an encoder expects.

    `size` S in pixels; `resize`: `squash` resizes straight to S×S, `shorter_crop` brings the shorter side to `shorter` (S where
    None) and cuts the centre, `pad` pads to a centred square filled with `fill` (a grey value, 0 black, or a colour) and resizes
    that. `mean` and `std` belong to pixel values in [0, 1] and have one entry for all channels or one for each of the three.
    """

    size: int = 224
    resize: str = "squash"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: str = "bicubic"
    shorter: int | None = None
    fill: int | tuple[int, int, int] = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", tuple(float(value) for value in self.mean))
        object.__setattr__(self, "std", tuple(float(value) for value in self.std))
        _require(self.size >= 1, f"preprocessing.size is {self.size}; write the side in pixels, such as 224")
        _require(self.resize in RESIZES, f"preprocessing.resize {self.resize!r}: {nearest(self.resize, RESIZES)}")
        _require(
            self.interpolation in INTERPOLATIONS,
            f"preprocessing.interpolation {self.interpolation!r}: {nearest(self.interpolation, INTERPOLATIONS)}",
        )
        for name, values in (("mean", self.mean), ("std", self.std)):
            _require(len(values) in (1, 3), f"preprocessing.{name} has {len(values)} values; write 1 or 3")
        _require(min(self.std) > 0, f"preprocessing.std {list(self.std)} must be above 0")
        values = (self.fill,) if isinstance(self.fill, int) else tuple(self.fill)
        legal = len(values) in (1, 3) and all(0 <= value <= 255 for value in values)
        _require(legal, f"preprocessing.fill {self.fill} must be a grey value from 0 to 255, or three of them")
        _require(
            self.shorter is None or (self.resize == "shorter_crop" and self.shorter >= self.size),
            f"preprocessing.shorter {self.shorter}: only with resize shorter_crop, and not below size {self.size}",
        )


@dataclass(frozen=True)
class Augmentation:
    """What training does to a film, by strength; evaluation uses none.

    `kind` chooses the geometry: `none`; `affine` turns by up to ±`rotation` degrees, moves by up to ±`translate` of the side,
    scales by up to 1±`scale` and shears along the rows by up to ±`shear` degrees; `random_crop` brings the shorter side to
    `resize` and cuts a random S×S (R2Gen: 256, then 224; it takes the place of the preprocessing's own resize). `brightness` and
    `contrast` multiply by 1±strength. `flip` is the probability of mirroring, off unless asked for: it puts the heart on the
    wrong side. `pair_prior`: a study and its prior are changed alike, frontal films by one draw and lateral ones by another.
    """

    kind: str = "none"
    rotation: float = 5.0
    translate: float = 0.05
    scale: float = 0.05
    resize: int = 256
    brightness: float = 0.0
    contrast: float = 0.0
    flip: float = 0.0
    shear: float = 0.0
    pair_prior: bool = False

    def __post_init__(self) -> None:
        _require(self.kind in KINDS, f"augmentation.kind {self.kind!r}: {nearest(self.kind, KINDS)}")
        _require(0 <= self.rotation <= 180, f"augmentation.rotation {self.rotation} must be 0 to 180 degrees")
        for name in ("translate", "scale", "brightness", "contrast"):
            _require(0 <= getattr(self, name) < 1, f"augmentation.{name} {getattr(self, name)} must be at least 0 and below 1")
        _require(0 <= self.shear < 90, f"augmentation.shear {self.shear} must be at least 0 and below 90 degrees")
        _require(0 <= self.flip <= 1, f"augmentation.flip {self.flip} is a probability; write 0 to 1")

    @property
    def active(self) -> bool:
        """Whether any film is changed at all (a feature cache allows only False)."""
        return self.kind != "none" or max(self.brightness, self.contrast, self.flip) > 0


def decode(data: bytes, shorter: int | None = None) -> np.ndarray:
    """Decode a film to uint8 [H, W] (grey) or [H, W, 3].

    With `shorter`, a JPEG is decoded at 1/2, 1/4 or 1/8 scale where the shorter side stays at least that long; the entropy
    decoding that dominates is not saved, the transform and the later resize are. Raises ValueError where the bytes are not a
    whole, undamaged image of eight bits.
    """
    if data[:2] == b"\xff\xd8":
        return _decode_jpeg(data, shorter)
    return _decode_pillow(data)


def _decode_jpeg(data: bytes, shorter: int | None) -> np.ndarray:
    try:
        import simplejpeg
    except ImportError:
        return _decode_pillow(data, shorter)
    height, width, space, _ = simplejpeg.decode_jpeg_header(data)
    if space in ("CMYK", "YCCK"):
        return _decode_pillow(data, shorter)
    divisor = _decode_scale(min(height, width), shorter)
    # simplejpeg takes the smallest scale n/8 with both sides at least this long: the exact fraction picks 1/divisor.
    pixels = simplejpeg.decode_jpeg(
        data,
        "GRAY" if space == "Gray" else "RGB",
        min_height=-(-height // divisor) if divisor > 1 else 0,
        min_width=-(-width // divisor) if divisor > 1 else 0,
    )
    return pixels[..., 0] if pixels.shape[-1] == 1 else pixels


def _decode_scale(side: int, shorter: int | None) -> int:
    return next((divisor for divisor in (8, 4, 2) if shorter and side // divisor >= shorter), 1)


def _decode_pillow(data: bytes, shorter: int | None = None) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(data)) as image:
            divisor = _decode_scale(min(image.size), shorter) if image.format == "JPEG" else 1
            if divisor > 1:
                image.draft(None, (image.width // divisor, image.height // divisor))
            if image.mode.startswith(("I", "F")):
                raise ValueError(f"pixels of mode {image.mode} are not 8 bits; prepare the film to 8 bits first")
            grey = image.mode in ("1", "L", "LA")
            return np.array(image.convert("L" if grey else "RGB"))
    except UnidentifiedImageError:  # its own text holds a memory address, and reasons are recorded
        raise ValueError("not an image of a known format") from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"not a readable image: {error}") from None


def least_side(preprocessing: Preprocessing, augmentation: Augmentation | None = None) -> int:
    """What `decode` has to leave of a film's shorter side, in pixels.

    Twice the size that is needed, so that the resize still averages and published pixels keep to rounding.
    """
    longest = max(preprocessing.size, preprocessing.shorter or 0)
    if augmentation is not None and augmentation.kind == "random_crop":
        longest = max(longest, augmentation.resize)
    return 2 * longest


def prepare_film(
    data: bytes,
    preprocessing: Preprocessing,
    augmentation: Augmentation | None = None,
    *,
    seed: int = 0,
    epoch: int = 0,
    study: str = "",
    view: int = 0,
) -> Tensor:
    """The film as float32 [3, S, S], normalised. Raises ValueError on damaged bytes, as `decode` does."""
    pixels = decode(data, shorter=least_side(preprocessing, augmentation))
    return prepare_pixels(pixels, preprocessing, augmentation, seed=seed, epoch=epoch, study=study, view=view)


def prepare_pixels(
    pixels: np.ndarray,
    preprocessing: Preprocessing,
    augmentation: Augmentation | None = None,
    *,
    seed: int = 0,
    epoch: int = 0,
    study: str = "",
    view: int = 0,
) -> Tensor:
    """`prepare_film` for pixels that are decoded already, uint8 [H, W] or [H, W, 3]."""
    image = Image.fromarray(pixels)
    if augmentation is None or not augmentation.active:
        return _normalise(np.asarray(_square(image, preprocessing)), preprocessing)
    draws = _draws(seed, epoch, study, view)
    if augmentation.kind == "random_crop":
        image = _random_crop(image, preprocessing, augmentation, draws)
    else:
        image = _square(image, preprocessing)
    if augmentation.kind == "affine":
        image = _affine(image, augmentation, draws)
    values = _jitter(np.asarray(image, dtype=np.float32), augmentation, draws)
    if draws["flip"] < augmentation.flip:
        values = values[:, ::-1]
    return _normalise(values, preprocessing)


def _square(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    size, resample = preprocessing.size, INTERPOLATIONS[preprocessing.interpolation]
    if preprocessing.resize == "squash":
        return image.resize((size, size), resample)
    if preprocessing.resize == "pad":
        side = max(image.size)
        fill = preprocessing.fill
        if isinstance(fill, int):
            canvas = Image.new(image.mode, (side, side), fill if image.mode == "L" else (fill,) * 3)
        else:
            image = image.convert("RGB")
            canvas = Image.new("RGB", (side, side), fill)
        canvas.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
        return canvas.resize((size, size), resample)
    image = _resize_shorter(image, preprocessing.shorter or size, resample)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))


def _resize_shorter(image: Image.Image, shorter: int, resample: Image.Resampling) -> Image.Image:
    """The longer side is cut to a whole number of pixels, as the Hugging Face and torchvision resizes do."""
    short, long = sorted(image.size)
    longer = int(shorter * long / short)
    return image.resize((shorter, longer) if image.width <= image.height else (longer, shorter), resample)


def _draws(seed: int, epoch: int, study: str, view: int) -> dict[str, float]:
    """Every random number of one film, uniform in [0, 1), always drawn in one order, so that the strength of one augmentation
    never shifts the draws of another. The hash is part of the data order: changing it changes every augmented run."""
    key = hashlib.blake2b(f"{seed}\0{epoch}\0{study}\0{view}".encode(), digest_size=16).digest()
    generator = np.random.Generator(np.random.PCG64(int.from_bytes(key, "little")))
    names = ("rotation", "right", "down", "scale", "left", "top", "brightness", "contrast", "flip", "shear")
    return dict(zip(names, generator.random(len(names)).tolist(), strict=True))


def _random_crop(
    image: Image.Image, preprocessing: Preprocessing, augmentation: Augmentation, draws: dict[str, float]
) -> Image.Image:
    size = preprocessing.size
    _require(
        augmentation.resize >= size,
        f"augmentation.resize {augmentation.resize} is below the encoder's size {size}; write at least {size}",
    )
    image = _resize_shorter(image, augmentation.resize, INTERPOLATIONS[preprocessing.interpolation])
    left = int(draws["left"] * (image.width - size + 1))
    top = int(draws["top"] * (image.height - size + 1))
    return image.crop((left, top, left + size, top + size))


def _affine(image: Image.Image, augmentation: Augmentation, draws: dict[str, float]) -> Image.Image:
    """Rotation, shear and scale about the centre, then a shift; what comes in from outside is black, as collimation is."""
    angle = np.deg2rad((2 * draws["rotation"] - 1) * augmentation.rotation)
    zoom = 1 + (2 * draws["scale"] - 1) * augmentation.scale
    right = (2 * draws["right"] - 1) * augmentation.translate * image.width
    down = (2 * draws["down"] - 1) * augmentation.translate * image.height
    slant = np.tan(np.deg2rad((2 * draws["shear"] - 1) * augmentation.shear))
    # Pillow asks for the inverse map: output pixel to input pixel.
    cos, sin = np.cos(angle) / zoom, np.sin(angle) / zoom
    x, y = image.width / 2, image.height / 2
    a, b = cos + slant * sin, sin - slant * cos
    row_x = (a, b, x - a * (x + right) - b * (y + down))
    row_y = (-sin, cos, y + sin * (x + right) - cos * (y + down))
    return image.transform(image.size, Image.Transform.AFFINE, (*row_x, *row_y), Image.Resampling.BICUBIC)


def _jitter(values: np.ndarray, augmentation: Augmentation, draws: dict[str, float]) -> np.ndarray:
    if augmentation.brightness == 0 and augmentation.contrast == 0:
        return values
    values = values * (1 + (2 * draws["brightness"] - 1) * augmentation.brightness)
    mean = values.mean()
    values = mean + (values - mean) * (1 + (2 * draws["contrast"] - 1) * augmentation.contrast)
    return values.clip(0, 255)


def _normalise(values: np.ndarray, preprocessing: Preprocessing) -> Tensor:
    import torch

    x_chw = values[None] if values.ndim == 2 else values.transpose(2, 0, 1)
    if values.dtype == np.uint8:
        return _looked_up(x_chw, _levels(preprocessing.mean, preprocessing.std))
    return torch.from_numpy(_scaled(x_chw, preprocessing.mean, preprocessing.std))


def _scaled(x_chw: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    """float32 [3, H, W]: [1 or 3, H, W] of 0 to 255, normalised."""
    x_chw = np.broadcast_to(x_chw, (3, *x_chw.shape[1:]))
    columns = [np.asarray(values, dtype=np.float32).reshape(-1, 1, 1) for values in (mean, std)]
    return (x_chw * np.float32(1 / 255) - columns[0]) / columns[1]


@functools.lru_cache(maxsize=8)
def _levels(mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """float32 [3, 256]: what each grey value becomes in each channel."""
    import torch

    return torch.from_numpy(_scaled(np.arange(256, dtype=np.uint8).reshape(1, 1, 256), mean, std)[:, 0].copy())


def _looked_up(x_chw: np.ndarray, levels: Tensor) -> Tensor:
    """`_scaled` of eight-bit values, bit for bit, by table: the arithmetic makes three arrays of a film's size on its way."""
    import torch

    places = torch.from_numpy(x_chw.astype(np.int32)).view(len(x_chw), -1)
    out = torch.empty(3, places.shape[1])
    for channel in range(3):
        torch.index_select(levels[channel], 0, places[channel % len(places)], out=out[channel])
    return out.view(3, *x_chw.shape[1:])
