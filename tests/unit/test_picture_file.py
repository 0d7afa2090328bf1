"""Every kind of picture file against OpenCV, pixel for pixel, and every refusal by its words."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from workbench import picture_file
from workbench.errors import PictureError
from workbench.picture_file import load_picture


def noise(rng: np.random.Generator, height: int, width: int, channels: int = 3) -> np.ndarray:
    return rng.integers(0, 256, (height, width, channels), dtype=np.uint8)


def picture_of_every_kind(folder: Path) -> list[Path]:
    """The same noise in the modes and depths that JPEG, PNG, BMP, WebP, GIF, PNM and TIFF know."""
    rng = np.random.default_rng(4)
    rgba, deep = noise(rng, 37, 53, 4), rng.integers(0, 65536, (37, 53, 4), dtype=np.uint16)
    smooth = cv2.resize(noise(rng, 5, 6, 4), (53, 37), interpolation=cv2.INTER_CUBIC)
    rgb = Image.fromarray(rgba[..., :3])
    for name, image in {
        "rgb.png": rgb,
        "alpha.png": Image.fromarray(rgba),
        "grey.png": Image.fromarray(rgba[..., 0]),
        "grey_alpha.png": Image.fromarray(rgba).convert("LA"),
        "palette.png": rgb.quantize(16),
        "palette_alpha.png": Image.fromarray(rgba).quantize(16),
        "one_bit.png": Image.fromarray(rgba[..., 0] > 128),
        "rgb.bmp": rgb,
        "palette.gif": rgb.quantize(16),
        "rgb.ppm": rgb,
        "rgb.tif": rgb,
        "rgb.webp": Image.fromarray(smooth[..., :3]),
        "rgb.jpg": Image.fromarray(smooth[..., :3]),
        "grey.jpg": Image.fromarray(smooth[..., 0]),
        "cmyk.jpg": Image.fromarray(smooth).convert("CMYK"),
    }.items():
        image.save(folder / name)
    Image.fromarray(smooth[..., :3]).save(folder / "progressive.jpg", progressive=True, subsampling=2)
    for name, array in {"grey16.png": deep[..., 0], "rgb16.png": deep[..., :3], "alpha16.png": deep}.items():
        assert cv2.imwrite(str(folder / name), array)
    assert cv2.imwrite(str(folder / "grey16.pgm"), deep[..., 0])
    return sorted(folder.iterdir())


def read_with_opencv(path: Path) -> np.ndarray:
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    assert picture is not None
    return np.ascontiguousarray(picture[..., ::-1])


def test_every_kind_of_picture_reads_as_opencv_reads_it(tmp_path: Path) -> None:
    paths = picture_of_every_kind(tmp_path)
    assert len(paths) == 20
    for path in paths:
        picture = load_picture(path)
        assert picture.dtype == np.uint8
        assert picture.flags.c_contiguous
        np.testing.assert_array_equal(picture, read_with_opencv(path), err_msg=path.name)


@pytest.mark.parametrize("orientation", range(10))  # 0 and 9 are not orientations: ignored by both
@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_exif_orientation_is_applied_as_opencv_does(orientation: int, ending: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned.{ending}"
    Image.fromarray(noise(np.random.default_rng(5), 16, 24)).save(path, exif=exif)
    picture = load_picture(path)
    assert picture.shape == ((24, 16, 3) if 5 <= orientation <= 8 else (16, 24, 3))
    np.testing.assert_array_equal(picture, read_with_opencv(path))


def test_a_broken_exif_block_leaves_the_picture_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "broken_exif.jpg"
    Image.fromarray(noise(np.random.default_rng(6), 16, 24)).save(path, exif=b"Exif\0\0MM\0*\0\0\xff\xff rubbish")
    np.testing.assert_array_equal(load_picture(path), read_with_opencv(path))


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match=r"absent\.jpg: no such file; expected a picture\. Check the spelling"):
        load_picture(tmp_path / "absent.jpg")


def test_a_directory_is_not_a_picture(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match=r"is a directory; expected one picture\. Name a file inside it."):
        load_picture(str(tmp_path))


def test_a_device_is_not_opened() -> None:
    with pytest.raises(PictureError, match="/dev/null: is not a regular file"):
        load_picture("/dev/null")


@pytest.mark.parametrize(
    "content, found", [(b"<html>not found</html>", "first bytes b'<html>not fo'"), (b"", "an empty file")]
)
def test_a_file_that_is_no_picture_shows_its_first_bytes(content: bytes, found: str, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    with pytest.raises(PictureError) as error:
        load_picture(path)
    assert "not a picture that can be read; expected JPEG, PNG, BMP, GIF, PPM, TIFF or WEBP" in str(error.value)
    assert found in str(error.value)
    assert str(error.value).endswith("Save it as JPEG or PNG.")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
def test_a_truncated_picture_is_refused(kind: str, tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(noise(np.random.default_rng(7), 64, 64)).save(stream, kind)
    path = tmp_path / "cut"
    path.write_bytes(stream.getvalue()[: len(stream.getvalue()) // 2])
    with pytest.raises(PictureError, match="the picture is truncated or damaged; expected a complete picture, found"):
        load_picture(path)


def test_a_picture_of_absurd_size_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large.png"
    Image.fromarray(noise(np.random.default_rng(8), 10, 11)).save(path)
    monkeypatch.setattr(picture_file, "MAX_PIXELS", 109)
    with pytest.raises(PictureError, match=r"the picture is too large; expected at most 109 pixels, found 11x10\."):
        load_picture(path)
    monkeypatch.setattr(picture_file, "MAX_PIXELS", 110)
    assert load_picture(path).shape == (10, 11, 3)


@pytest.mark.parametrize("side", [10_000, 12_000, 60_000])
def test_a_header_that_promises_too_much_is_refused_and_pillow_warns_nobody(side: int, tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "BMP")
    header = bytearray(stream.getvalue())
    header[18:26] = np.array([side, side], "<i4").tobytes()
    path = tmp_path / "bomb.bmp"
    path.write_bytes(header)
    words = "truncated or damaged" if side**2 <= picture_file.MAX_PIXELS else "too large; expected at most 67108864"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(PictureError, match=words):
            load_picture(path)


def test_32_bits_a_sample_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "float.tif"
    Image.fromarray(np.ones((4, 4), np.float32)).save(path)
    with pytest.raises(
        PictureError, match=r"32 bits a sample; expected 8 or 16 bits, found mode F\. Convert it to 8 bits"
    ):
        load_picture(path)
