"""PNG, JPEG and TIFF pictures, 8 and 16 bit, to display values.

Choices, each recorded in ``Image.source``:

- Values are divided by the largest that the file's bits can hold, so that 0 is black and 1 is white in every picture.
- Palettes become gray where every colour of the palette is gray, else RGB.
- Alpha is dropped where every pixel is opaque, else the picture is composed over black; all transparent is an error.
- The orientation of EXIF or TIFF is applied. Gamma and colour profiles are not.
- 16-bit colour keeps its 16 bits, although Pillow alone would drop eight of them.
- 32-bit and float TIFF have no presentation: their numbers stay as they are, unit ``raw``.
- Several pages or frames are an error, except in JPEG, where the first is the picture and others are previews.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image as Pillow
from PIL import ImageFile, ImageOps, UnidentifiedImageError

from medgcsam.errors import DataError
from medgcsam.imaging.faults import check_finite, check_size, faults_of
from medgcsam.imaging.image import Image

DEEP_GRAY = ("I;16", "I;16L", "I;16B", "I;16N")
TIFF_BITS, TIFF_PHOTOMETRIC, TIFF_PLANAR, TIFF_SAMPLE_FORMAT = 258, 262, 284, 339
SIGNED = 2


@dataclass(frozen=True)
class Decoded:
    """A picture as stored, upright: samples (row, column, channels), the last channel alpha where there are 2 or 4."""

    samples: np.ndarray
    mode: str
    bits: int
    palette: np.ndarray | None = None
    """(entries, 3) uint8; samples are indices into it."""


def read_raster(data: bytes, where: str, *, kind: str) -> Image:
    """Display values (1 or 3, row, column) in 0..1, float32; ``raw`` for 32-bit and float TIFF. Raises DataError."""
    picture = decode_raster(data, where, kind=kind)
    source = {"kind": kind, "mode": picture.mode, "bits": picture.bits}
    if picture.mode in ("I", "F"):
        array = np.ascontiguousarray(np.moveaxis(picture.samples, -1, 0), dtype=np.float32)
        check_finite(array, where)
        return Image(array=array, unit="raw", source=source)
    values = _without_palette(picture).astype(np.float32) / np.float32(_white(picture))
    if values.shape[-1] in (2, 4):
        values, source["alpha"] = _without_alpha(values, where)
    return Image(array=np.ascontiguousarray(np.moveaxis(values, -1, 0)), unit="display", source=source)


def decode_raster(data: bytes, where: str, *, kind: str) -> Decoded:
    """The samples of a picture as stored (see ``Decoded``). Raises DataError."""
    with faults_of(where, kind.upper()):
        picture = _opened(data, kind)
        frames = getattr(picture, "n_frames", 1) if kind != "jpeg" else 1
        bits, deep_colour = _bits(picture, data, kind), ""
        mode = _mode(picture, bits)
    check_size(picture.size[::-1], where)
    if frames > 1:
        raise DataError(f"{where} holds {frames} pages and only single pictures are read; save each as a file.")
    if mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "I", "F", *DEEP_GRAY):
        raise DataError(f"{where} has the colour mode {mode}; save it as gray or RGB.")
    if bits > 8 and mode in ("LA", "RGB", "RGBA"):
        deep_colour = mode
        if kind == "tiff" and picture.tag_v2.get(TIFF_PLANAR, 1) != 1:
            raise DataError(f"{where} is 16-bit colour in separate planes; save it with interleaved colours.")
    if kind == "tiff" and bits <= 8 and SIGNED in picture.tag_v2.get(TIFF_SAMPLE_FORMAT, ()):
        raise DataError(f"{where} holds signed 8-bit numbers, which have no gray scale; save it as 8- or 16-bit gray.")
    if bits > 8 and "transparency" in picture.info:
        raise DataError(f"{where} is a 16-bit PNG with a transparent colour; save it without transparency.")
    with faults_of(where, kind.upper()):
        if kind == "png":
            _opened(data, kind).verify()  # the checksum of every chunk, which loading alone does not look at
        samples = _deep_colour(data, kind, deep_colour) if deep_colour else _samples(picture, mode)
        palette = _palette(picture) if mode in ("P", "PA") else None
        white_is_zero = kind == "tiff" and mode in DEEP_GRAY and picture.tag_v2.get(TIFF_PHOTOMETRIC) == 0
    if white_is_zero:  # Pillow inverts these for 1 and 8 bit, but not for 16
        samples = np.uint16(2**bits - 1) - samples
    if samples.ndim == 2:
        samples = samples[..., None]
    return Decoded(samples=samples, mode=mode, bits=bits, palette=palette)


def _opened(data: bytes, kind: str) -> Pillow.Image:
    try:
        return Pillow.open(BytesIO(data), formats=[kind.upper(), "MPO"] if kind == "jpeg" else [kind.upper()])
    except UnidentifiedImageError as error:  # its own message shows a memory address
        raise ValueError("its header is cut off, damaged or of a variant that Pillow does not know") from error


def _upright(picture: Pillow.Image) -> Pillow.Image:
    ImageFile.LOAD_TRUNCATED_IMAGES = False  # another library may have set it, and a half-gray image would pass
    picture.load()
    return ImageOps.exif_transpose(picture)


def _mode(picture: Pillow.Image, bits: int) -> str:
    """Pillow's mode, with its two disguises of 16-bit PNG taken off."""
    if picture.format == "PNG" and picture.mode == "I":
        return "I;16"
    if picture.format == "PNG" and bits == 16 and picture.tile and picture.tile[0].args == "LA;16B":
        return "LA"
    return picture.mode


def _bits(picture: Pillow.Image, data: bytes, kind: str) -> int:
    if kind == "png":
        return data[24]  # IHDR: signature 8, length 4, name 4, width 4, height 4
    return max(picture.tag_v2.get(TIFF_BITS, (1,))) if kind == "tiff" else 8


def _samples(picture: Pillow.Image, mode: str) -> np.ndarray:
    """(row, column[, channels]); a transparent colour or transparent palette entries become an alpha channel."""
    transparent = "transparency" in picture.info
    picture = _upright(picture)
    if picture.mode in ("L", "RGB") and transparent:
        picture = picture.convert({"L": "LA", "RGB": "RGBA"}[picture.mode])
    samples = np.asarray(picture)
    if picture.mode == "P" and transparent:
        alpha = np.asarray(picture.convert("RGBA"))[..., 3]
        samples = np.stack([samples, alpha], axis=-1)
    return samples.astype(np.uint16) if mode in DEEP_GRAY else samples


def _deep_colour(data: bytes, kind: str, mode: str) -> np.ndarray:
    """16-bit colour as uint16 (row, column, channels).

    Pillow has no such mode and keeps the high bytes; told the opposite byte order it keeps the low ones. Gray with
    alpha in 16 bit has four bytes per pixel, which it hands over untouched when told that they are RGBA.
    """
    if mode == "LA":
        picture = _opened(data, kind)
        picture._mode = "RGBA"
        picture.tile = [tile._replace(args="RGBA") for tile in picture.tile]
        four = np.asarray(_upright(picture)).astype(np.uint16)
        return four[..., 0::2] * np.uint16(256) + four[..., 1::2]
    high, low = (np.asarray(_upright(_reordered(_opened(data, kind), swap=swap))) for swap in (False, True))
    return high.astype(np.uint16) * np.uint16(256) + low


def _reordered(picture: Pillow.Image, *, swap: bool) -> Pillow.Image:
    if swap:
        tiles = []
        for tile in picture.tile:
            first, *rest = tile.args if isinstance(tile.args, tuple) else (tile.args,)
            name, _, order = first.partition(";16")
            if order not in ("B", "L", "N"):
                raise DataError(f"16-bit colour is stored as {first}, which is not read")
            swapped = f"{name};16{'L' if order == 'B' else 'B'}"
            tiles.append(tile._replace(args=(swapped, *rest) if rest else swapped))
        picture.tile = tiles
    return picture


def _palette(picture: Pillow.Image) -> np.ndarray:
    colours = np.frombuffer(bytes(picture.palette.tobytes() if picture.palette.mode == "RGB" else b""), dtype=np.uint8)
    if colours.size == 0:
        colours = np.asarray(picture.getpalette("RGB"), dtype=np.uint8)
    return colours.reshape(-1, 3)


def _without_palette(picture: Decoded) -> np.ndarray:
    """(row, column, channels) with colours looked up; alpha, where there is one, stays last."""
    if picture.palette is None:
        return picture.samples
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(picture.palette)] = picture.palette
    is_gray = bool((picture.palette == picture.palette[:, :1]).all())
    looked_up = colours[picture.samples[..., 0]][..., : 1 if is_gray else 3]
    return np.concatenate([looked_up, picture.samples[..., 1:]], axis=-1)


def _white(picture: Decoded) -> int:
    """The value of white in the samples: Pillow widens fewer than 8 bits to 8, and two levels to True and False."""
    if picture.mode == "1":
        return 1
    return 255 if picture.bits <= 8 or picture.palette is not None else 2**picture.bits - 1


def _without_alpha(values: np.ndarray, where: str) -> tuple[np.ndarray, str]:
    alpha = values[..., -1:]
    if alpha.min() == 1:
        return values[..., :-1], "opaque, dropped"
    if alpha.max() == 0:
        raise DataError(f"{where} is transparent in every pixel; save it without an alpha channel.")
    return values[..., :-1] * alpha, "composed over black"
