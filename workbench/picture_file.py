"""A picture file of any of the usual kinds -> 8-bit RGB, exactly the pixels that Darknet built with OpenCV would see.

Here every strange file (alpha, palette, 16 bits, CMYK, turned by EXIF, damaged, huge, not a picture at all) either
becomes those pixels or is refused with words. `workbench.image` goes on from there.
"""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from workbench.errors import PictureError

if TYPE_CHECKING:
    from PIL.Image import Image

U8: TypeAlias = npt.NDArray[np.uint8]

MAX_PIXELS = 2**26
"""Largest picture read, in pixels (67 megapixels: Pillow needs up to 0.9 GB on the way)."""

# Only formats that are decoded by a library, never by an external program (as EPS would be).
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP")

# What decoders raise on damaged files, besides their own OSError.
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error, zlib.error)

# EXIF orientation -> what brings the stored pixels upright, as methods of PIL.Image.Transpose.
_UPRIGHT = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
_ORIENTATION_TAG = 0x0112


def load_picture(path: str | Path) -> U8:
    """Read a picture as Darknet built with OpenCV does: 8-bit RGB, turned upright by its EXIF orientation.

    Returns uint8 (H, W, 3). Alpha is dropped, not blended; grey becomes three equal channels; 16 bits lose their low
    byte. Colour profiles and the orientation in XMP are ignored, as cv::imread ignores them. Of a TIFF with alpha
    OpenCV premultiplies the colours; here they stay as stored.

    Raises PictureError: missing, a directory, not a picture, truncated or damaged, more than MAX_PIXELS.
    Source: pjreddie src/image_opencv.cpp load_image_cv (cv::imread with IMREAD_COLOR).
    """
    path = Path(path)
    _refuse_non_files(path)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # Pillow's remarks about size, palettes and metadata are answered here by errors
        return _decode(path)


def _refuse_non_files(path: Path) -> None:
    if os.path.isdir(path):
        raise PictureError(str(path), "is a directory", expected="one picture", next_step="Name a file inside it.")
    if not os.path.exists(path):
        raise PictureError(str(path), "no such file", expected="a picture", next_step="Check the spelling of the path.")
    if not os.path.isfile(path):
        raise PictureError(str(path), "is not a regular file", expected="a picture on disk", found="a device or pipe")


def _decode(path: Path) -> U8:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path, formats=_FORMATS) as image:
            _refuse_absurd_size(path, f"{image.width}x{image.height}", image.width * image.height)
            image.load()
            return np.ascontiguousarray(_to_rgb(path, _turn_upright(image)))
    except Image.DecompressionBombError as error:
        raise _absurd_size(path, "far more") from error
    except UnidentifiedImageError as error:
        raise _not_a_picture(path) from error
    except PermissionError as error:
        raise PictureError(str(path), "may not be read", next_step="Give yourself read permission.") from error
    except _DAMAGE as error:
        raise PictureError(
            str(path),
            "the picture is truncated or damaged",
            expected="a complete picture",
            found=str(error) or type(error).__name__,
            cause="An interrupted download or copy.",
            next_step="Fetch the file again, or save it anew with an image editor.",
        ) from error


def _refuse_absurd_size(path: Path, size: str, pixels: int) -> None:
    if pixels > MAX_PIXELS:
        raise _absurd_size(path, size)


def _absurd_size(path: Path, found: str) -> PictureError:
    return PictureError(
        str(path),
        "the picture is too large",
        expected=f"at most {MAX_PIXELS} pixels",
        found=found,
        cause="A broken or malicious header, or a scan.",
        next_step="Scale it down first: the network sees a few hundred pixels a side.",
    )


def _not_a_picture(path: Path) -> PictureError:
    with path.open("rb") as file:
        head = file.read(12)
    return PictureError(
        str(path),
        "not a picture that can be read",
        expected=" or ".join((", ".join(_FORMATS[:-1]), _FORMATS[-1])),
        found=f"first bytes {head!r}" if head else "an empty file",
        cause="The name's ending does not decide, the content does.",
        next_step="Save it as JPEG or PNG.",
    )


def _turn_upright(image: Image) -> Image:
    """Apply the orientation of the EXIF block alone: Image.getexif would believe XMP too, which cv::imread does not."""
    from PIL import Image as Pillow

    exif = Pillow.Exif()
    try:
        exif.load(image.info.get("exif", b""))
        turn = _UPRIGHT.get(exif.get(_ORIENTATION_TAG, 1))
    except _DAMAGE:  # an EXIF block that cannot be read says nothing about orientation; the pixels are intact
        return image
    return image.transpose(Pillow.Transpose[turn]) if turn else image


def _to_rgb(path: Path, image: Image) -> U8:
    if image.mode.startswith("I;16") or (image.mode, image.format) == ("I", "PPM"):
        return np.repeat((np.asarray(image) >> 8).astype(np.uint8)[:, :, None], 3, axis=2)
    if image.mode == "CMYK":
        return _cmyk_to_rgb(np.asarray(image))
    if image.mode in ("I", "F"):
        raise PictureError(
            str(path),
            "the picture has 32 bits a sample",
            expected="8 or 16 bits",
            found=f"mode {image.mode}",
            next_step="Convert it to 8 bits: how bright its values are meant to be is not written in the file.",
        )
    return np.asarray(image.convert("RGB"))


def _cmyk_to_rgb(cmyk: U8) -> U8:
    """OpenCV's integer formula (icvCvt_CMYK2BGR_8u_C4C3R), on the inverted inks that JPEG stores."""
    ink = 255 - cmyk.astype(np.int32)
    black = ink[:, :, 3:]
    return (black - ((255 - ink[:, :, :3]) * black >> 8)).astype(np.uint8)
