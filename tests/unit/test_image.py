"""From pixels to the network's input and boxes back, against real Darknet bit for bit."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from workbench.errors import OptionError, PictureError
from workbench.image import Placement, Preprocessing, letterbox, load_picture, resize, stretch, to_chw

PHOTOS = sorted(Path("/usr/share/darknet/data").glob("*.jpg"))

# Runs alone: loading libdarknet.so switches its thread to flushing subnormals. Reads and answers one npz of jobs.
ASK_DARKNET = """
import ctypes as C, sys
import numpy as np
class Picture(C.Structure):
    _fields_ = [("w", C.c_int), ("h", C.c_int), ("c", C.c_int), ("data", C.POINTER(C.c_float))]
class Detection(C.Structure):
    _fields_ = [("bbox", C.c_float * 4), ("classes", C.c_int), ("prob", C.c_void_p), ("mask", C.c_void_p),
                ("objectness", C.c_float), ("sort_class", C.c_int)]
library, jobs, answers = C.CDLL(sys.argv[1]), np.load(sys.argv[2]), {}
for name in ("resize_image", "letterbox_image", "load_image_color"):
    getattr(library, name).restype = Picture
def read(picture):
    return np.ctypeslib.as_array(picture.data, (picture.c, picture.h, picture.w)).copy()
for key in jobs.files:
    task, *numbers = key.split()
    if task == "load_image_color":
        answers[key] = read(library.load_image_color(str(jobs[key]).encode(), 0, 0))
    elif task == "correct_yolo_boxes":
        boxes = (Detection * len(jobs[key]))()
        for box, values in zip(boxes, jobs[key]):
            box.bbox[:] = values.tolist()
        library.correct_yolo_boxes(boxes, len(boxes), *map(int, numbers[1:]), 0)
        answers[key] = np.array([list(box.bbox) for box in boxes], np.float32)
    else:
        x = np.ascontiguousarray(jobs[key])
        picture = Picture(x.shape[2], x.shape[1], x.shape[0], x.ctypes.data_as(C.POINTER(C.c_float)))
        answers[key] = read(getattr(library, task)(picture, *map(int, numbers[1:])))
np.savez(sys.argv[3], **answers)
"""


@pytest.fixture(scope="session")
def ask(darknet: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, np.ndarray]]:
    """jobs {"function number arguments…": array} -> the same keys with what Darknet answers."""

    def run(jobs: dict[str, object]) -> dict[str, np.ndarray]:
        folder = tmp_path_factory.mktemp("darknet")
        np.savez(folder / "jobs.npz", **jobs)
        command = [sys.executable, "-c", ASK_DARKNET, str(darknet), "jobs.npz", "answers.npz"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=300)
        with np.load(folder / "answers.npz") as answers:
            return dict(answers)

    return run


def noise(rng: np.random.Generator, height: int, width: int, channels: int = 3) -> np.ndarray:
    return rng.integers(0, 256, (height, width, channels), dtype=np.uint8)


def same_bits(got: np.ndarray, wanted: np.ndarray) -> None:
    assert got.dtype == wanted.dtype == np.float32
    assert got.shape == wanted.shape
    assert got.tobytes() == wanted.tobytes(), f"{(got != wanted).sum()} values differ, by {np.abs(got - wanted).max()}"


# (width, height) of the picture -> of the network
SIZES = {
    "dark last row 448 to 416": ((40, 448), (30, 416)),
    "dark last row 512 to 384": ((40, 512), (30, 384)),
    "dark last row 720 to 288": ((40, 720), (30, 288)),
    "one column": ((1, 50), (20, 33)),
    "one row": ((50, 1), (20, 33)),
    "one pixel": ((1, 1), (7, 5)),
    "to one column": ((9, 8), (1, 6)),
    "to two rows": ((9, 80), (5, 2)),
    "larger": ((13, 17), (416, 608)),
    "wider and lower": ((100, 200), (333, 77)),
    "equal": ((57, 31), (57, 31)),
}


def test_resize_equals_darknet_bit_for_bit(ask: Callable[..., dict[str, np.ndarray]]) -> None:
    rng = np.random.default_rng(0)
    sizes = list(SIZES.values())
    sizes += [(tuple(rng.integers(1, 200, 2)), (rng.integers(1, 200), rng.integers(2, 200))) for _ in range(60)]
    jobs = {f"resize_image {i} {w} {h}": to_chw(noise(rng, *source[::-1])) for i, (source, (w, h)) in enumerate(sizes)}
    for key, wanted in ask(jobs).items():
        width, height = map(int, key.split()[2:])
        same_bits(resize(jobs[key], width, height), wanted)


@pytest.mark.parametrize("height, new_height", [(448, 416), (512, 384), (720, 288)])
def test_the_last_row_is_dark_where_darknet_forgets_its_second_neighbour(height: int, new_height: int) -> None:
    resized = resize(np.ones((1, height, 8), np.float32), 8, new_height)
    assert (resized[:, :-1] > 0.999).all()
    assert resized[0, -1].max() < 1e-4


def test_the_last_row_is_bright_where_the_scale_is_exact() -> None:
    # scale = 8/4 = 2: row 4 reads row 8 with weight 1 - 0.
    assert (resize(np.ones((1, 9, 3), np.float32), 3, 5) == 1).all()


def test_resize_to_the_same_size_is_the_identity() -> None:
    x = to_chw(noise(np.random.default_rng(1), 31, 57))
    same_bits(resize(x, 57, 31), x)


def test_resize_by_hand() -> None:
    # 3 -> 5 columns: scale 2/4 = .5, so the columns read 0, .5, 1, 1.5 and the last; rows 2 -> 3 read 0, .5 and 1.
    x = np.array([[[0, 1, 0], [4, 5, 4]]], np.float32)
    wanted = [[0, 0.5, 1, 0.5, 0], [2, 2.5, 3, 2.5, 2], [4, 4.5, 5, 4.5, 4]]
    assert resize(x, 5, 3)[0].tolist() == wanted
    assert stretch(x, 5, 3)[0].tolist() == wanted


def test_resize_to_one_row_is_refused() -> None:
    with pytest.raises(OptionError, match=r"cannot resize 4x4 to 3x1; .*divides by height - 1"):
        resize(np.zeros((3, 4, 4), np.float32), 3, 1)


def test_letterbox_equals_darknet_bit_for_bit(ask: Callable[..., dict[str, np.ndarray]]) -> None:
    rng = np.random.default_rng(2)
    sizes = [((640, 424), (416, 416)), ((100, 201), (96, 160)), ((30, 1), (64, 64)), ((1, 50), (64, 64))]
    sizes += [((352, 448), (416, 416)), ((96, 64), (96, 64)), ((30, 20), (96, 64)), ((32, 96), (96, 33))]
    sizes += [(tuple(rng.integers(20, 300, 2)), tuple(rng.integers(2, 8, 2) * 32)) for _ in range(40)]
    jobs = {
        f"letterbox_image {i} {w} {h}": to_chw(noise(rng, *source[::-1])) for i, (source, (w, h)) in enumerate(sizes)
    }
    margins = set()
    for key, wanted in ask(jobs).items():
        width, height = map(int, key.split()[2:])
        same_bits(letterbox(jobs[key], width, height), wanted)
        place = Preprocessing(width, height, 3, letterbox=True).placement(*jobs[key].shape[:0:-1])
        margins |= {(width - place.new_w) % 2, (height - place.new_h) % 2}
    assert margins == {0, 1}, "odd and even margins both occurred"


@pytest.mark.skipif(not PHOTOS, reason="Debian's package `darknet` with its photographs is not installed")
def test_photographs_equal_darknet_from_file_to_network_input(ask: Callable[..., dict[str, np.ndarray]]) -> None:
    loaded = ask({f"load_image_color {i}": np.array(str(photo)) for i, photo in enumerate(PHOTOS)})
    pictures = [load_picture(photo) for photo in PHOTOS]
    for picture, wanted in zip(pictures, loaded.values(), strict=True):
        same_bits(to_chw(picture), wanted)
    jobs = {f"letterbox_image {i} 416 416": x for i, x in enumerate(loaded.values())}
    jobs |= {f"resize_image {i} 320 256": x for i, x in enumerate(loaded.values())}
    answers = ask(jobs)
    for i, picture in enumerate(pictures):
        same_bits(Preprocessing(416, 416, 3, True).apply(picture), answers[f"letterbox_image {i} 416 416"])
        same_bits(Preprocessing(320, 256, 3, False).apply(picture), answers[f"resize_image {i} 320 256"])


def test_every_byte_becomes_the_float_that_darknet_makes(
    ask: Callable[..., dict[str, np.ndarray]], tmp_path: Path
) -> None:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    path = tmp_path / "all.png"
    Image.fromarray(np.dstack([values, values.T, values[::-1]])).save(path)
    same_bits(to_chw(load_picture(path)), ask({"load_image_color": np.array(str(path))})["load_image_color"])
    double = (np.arange(256) / 255.0).astype(np.float32)
    same_bits(to_chw(load_picture(path))[0].ravel(), double)


def test_a_grey_network_reads_opencvs_grey() -> None:
    every = np.stack(np.meshgrid(*[np.arange(0, 256, 5, dtype=np.uint8)] * 3), -1).reshape(52 * 52, 52, 3)
    wanted = cv2.cvtColor(every, cv2.COLOR_RGB2GRAY)
    same_bits(to_chw(every, channels=1), np.divide(wanted[None], 255, dtype=np.float32))
    assert Preprocessing(64, 32, 1, False).apply(every).shape == (1, 32, 64)


def test_a_picture_cannot_feed_two_channels() -> None:
    with pytest.raises(
        OptionError, match="cannot feed this network; expected channels=1 or channels=3, found channels=2"
    ):
        to_chw(np.zeros((4, 4, 3), np.uint8), channels=2)


def test_an_array_that_is_no_picture_is_refused() -> None:
    with pytest.raises(OptionError, match=r"not an RGB picture; expected uint8 \(H, W, 3\), found float32 \(4, 4, 3\)"):
        Preprocessing(32, 32, 3, True).apply(np.zeros((4, 4, 3), np.float32))  # type: ignore[arg-type]


def test_a_large_photograph_is_prepared_fast() -> None:
    picture = noise(np.random.default_rng(3), 3000, 4000)
    start = time.process_time()
    Preprocessing(416, 416, 3, True).apply(picture)
    assert time.process_time() - start < 0.5  # 0.08 s measured


def test_a_picture_too_long_for_a_letterbox_is_refused() -> None:
    with pytest.raises(PictureError, match=r"too long for a letterbox of 416x416; .* found 416x1\. Crop the picture"):
        Preprocessing(416, 416, 3, True).apply(np.zeros((2, 800, 3), np.uint8))
    with pytest.raises(PictureError, match="found 0x416"):
        letterbox(np.zeros((3, 1000, 2), np.float32), 416, 416)


def test_boxes_go_back_to_the_picture_as_in_darknet(ask: Callable[..., dict[str, np.ndarray]]) -> None:
    rng = np.random.default_rng(9)
    sizes = [(640, 424, 416, 416), (768, 576, 320, 256), (100, 333, 608, 352), (500, 500, 416, 416)]
    sizes += [(*rng.integers(20, 3000, 2), *rng.integers(2, 20, 2) * 32) for _ in range(30)]
    jobs = {
        f"correct_yolo_boxes {i} {' '.join(map(str, size))}": rng.random((50, 4), np.float32)
        for i, size in enumerate(sizes)
    }
    for key, wanted in ask(jobs).items():
        picture_w, picture_h, net_w, net_h = map(int, key.split()[2:])
        got = Preprocessing(net_w, net_h, 3, True).placement(picture_w, picture_h).to_picture(jobs[key])
        same_bits(got[:, :2].copy(), wanted[:, :2].copy())
        # This build takes net_w / new_w with rcpps and one Newton step: 5 units in the last place at most.
        np.testing.assert_allclose(got[:, 2:], wanted[:, 2:], rtol=5 * 2**-24, atol=0)


def test_an_odd_margin_shifts_boxes_by_half_a_pixel_of_the_network() -> None:
    # person.jpg 640x424 in 416x416: new_h = 424*416//640 = 275, margin 141: embedded from row 70, corrected with 70.5.
    place = Preprocessing(416, 416, 3, True).placement(640, 424)
    assert place == Placement(416, 416, 416, 275, 640, 424)
    embedded = place.embed(np.zeros((1, 275, 416), np.float32))
    assert (embedded[0, :, 0] == 0).nonzero()[0][[0, -1]].tolist() == [70, 344]
    assert (embedded[0, :70] == 0.5).all()
    top_row = place.to_picture([[0.5, 70 / 416, 1, 275 / 416]])
    # (70 - 70.5)/416 / (275/416) * 424 = -0.5 * 424/275 = -.7709 pixels of the picture
    np.testing.assert_allclose(top_row, [[320, -0.770909, 640, 424]], rtol=0, atol=2e-5)


def test_a_stretched_picture_fills_the_network() -> None:
    place = Preprocessing(416, 320, 3, False).placement(1000, 600)
    assert place.to_picture([[0.5, 0.25, 0.125, 1]]).tolist() == [[500, 150, 125, 600]]
    assert place.to_picture(np.empty((0, 4))).shape == (0, 4)


def test_boxes_of_another_shape_are_refused() -> None:
    with pytest.raises(OptionError, match=r"not a list of boxes; expected shape \(n, 4\), found shape \(4,\)"):
        Preprocessing(32, 32, 3, True).placement(10, 10).to_picture([1, 2, 3, 4])


def test_infinite_boxes_pass_without_a_warning() -> None:
    place = Preprocessing(32, 32, 3, True).placement(10, 7)
    assert np.isinf(place.to_picture([[np.inf] * 4])).all()
    assert np.isnan(place.to_network([[np.nan] * 4])).all()


@settings(deadline=None, max_examples=200)
@given(
    picture=st.tuples(st.integers(8, 5000), st.integers(8, 5000)),
    net=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    box=st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4),
    letterboxed=st.booleans(),
)
def test_to_network_undoes_to_picture(
    picture: tuple[int, int], net: tuple[int, int], box: list[float], letterboxed: bool
) -> None:
    preprocessing = Preprocessing(net[0] * 32, net[1] * 32, 3, letterboxed)
    try:
        place = preprocessing.placement(*picture)
    except PictureError:
        return
    back = place.to_network(place.to_picture([box]))
    # Centres pass through pixels of the picture, where float32 has 24 bits for up to 1 / inside pictures' widths.
    inside = min(place.new_w / place.net_w, place.new_h / place.net_h)
    np.testing.assert_allclose(back, np.array([box], np.float32), rtol=1e-6, atol=1e-6 if inside > 0.1 else 1e-5)
