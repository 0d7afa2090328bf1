"""The byte ledger against hand arithmetic and golden bytes, both ways."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_weights import BYTES, open_small, small, small_file

from workbench.cfg import parse_cfg, read_cfg
from workbench.dialects import ALEXEYAB, PJREDDIE
from workbench.errors import WeightsError
from workbench.network import build_network
from workbench.weights import Header, build_ledger

# ---------------------------------------------------------------------------------------------------- the header


GOLDEN_HEADERS = [
    # major 0, minor 1: `seen` has four bytes.
    ("00000000 01000000 00000000 40420f00", Header(0, 1, 0, 1_000_000), 16, False),
    # minor 2, revision 5, 32013312 pictures (0x01e87c00): yolov3-tiny's own.
    ("00000000 02000000 00000000 007ce80100000000", Header(0, 2, 0, 32_013_312), 20, False),
    ("00000000 02000000 05000000 00000000 01000000", Header(0, 2, 5, 1 << 32), 20, False),
    # major 1: 1*10 + 0 >= 2.
    ("01000000 00000000 00000000 0100000000000000", Header(1, 0, 0, 1), 20, False),
    # Above 1000 matrices are transposed, and `seen` is short again; at 1000 itself it is short alone.
    ("00000000 e9030000 00000000 07000000", Header(0, 1001, 0, 7), 16, True),
    ("e9030000 02000000 00000000 07000000", Header(1001, 2, 0, 7), 16, True),
    ("00000000 e8030000 00000000 07000000", Header(0, 1000, 0, 7), 16, False),
]


@pytest.mark.parametrize(("text", "header", "size", "transposed"), GOLDEN_HEADERS)
def test_header(text: str, header: Header, size: int, transposed: bool) -> None:
    data = bytes.fromhex(text)
    assert len(data) == size
    assert Header.unpack(data + b"\xff" * 4) == header
    assert (header.size, header.transposed) == (size, transposed)
    assert header.pack() == data


@pytest.mark.parametrize("count", [0, 1, 11, 12, 19])
def test_too_short_for_a_header(tmp_path: Path, count: int) -> None:
    path = tmp_path / "a.weights"
    path.write_bytes(struct.pack("<iiiQ", 0, 2, 5, 0)[:count])
    words = (
        f"{path}: is empty; expected a .weights file. An interrupted download?"
        if count == 0
        else f"a.weights: too short for a header; expected at least 16 bytes, found {count} bytes."
    )
    with pytest.raises(WeightsError) as caught:
        open_small(path)
    assert str(caught.value) == words


@pytest.mark.parametrize(("name", "reason"), [("no", "No such file or directory"), (".", "Is a directory")])
def test_no_file(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(WeightsError) as caught:
        open_small(tmp_path / name)
    assert str(caught.value) == f"{tmp_path / name}: cannot read the weights; found {reason}. Check the path."


# ---------------------------------------------------------------------------------------------------- the ledger


def test_spans_by_hand() -> None:
    ledger = build_ledger(small(), PJREDDIE)
    found = [(s.layer, s.field, s.start, s.stop, s.shape, s.line) for s in ledger.spans]
    assert found == [
        (0, "biases", 0x14, 0x1C, (2,), 5),
        (0, "scales", 0x1C, 0x24, (2,), 5),
        (0, "rolling_mean", 0x24, 0x2C, (2,), 5),
        (0, "rolling_variance", 0x2C, 0x34, (2,), 5),
        (0, "weights", 0x34, 0x34 + 4 * 54, (2, 3, 3, 3), 5),  # 0x10c
        (2, "biases", 0x10C, 0x10C + 20, (5,), 14),  # 0x120
        (2, "weights", 0x120, 0x120 + 40, (5, 2, 1, 1), 14),  # 0x148 = 328
    ]
    assert ledger.bytes == 0x148 == BYTES
    assert [s.start for s in build_ledger(small(), PJREDDIE, 16).spans] == [s.start - 4 for s in ledger.spans]
    assert str(ledger.spans[0]) == "0x00000014 .. 0x0000001c  layer 0 convolutional / biases (2)"


def test_spans_of_yolov3_tiny_by_hand(shared: Path) -> None:
    network = build_network(read_cfg(shared / "models" / "yolov3-tiny" / "yolov3-tiny.cfg"))
    ledger = build_ledger(network, PJREDDIE)
    # 16 filters: four vectors of 16 floats = 0x40 bytes, then 16*3*3*3 = 432 floats = 0x6c0 bytes.
    assert [(s.field, s.start, s.stop) for s in ledger.by_layer[0]] == [
        ("biases", 0x14, 0x54),
        ("scales", 0x54, 0x94),
        ("rolling_mean", 0x94, 0xD4),
        ("rolling_variance", 0xD4, 0x114),
        ("weights", 0x114, 0x7D4),
    ]
    # Layer 12 is 512 -> 1024 of 3x3: 4718592 floats.
    assert ledger.by_name[12, "weights"].stop - ledger.by_name[12, "weights"].start == 0x1200000
    assert ledger.bytes == 20 + 4 * 8_858_734  # the float count of the published file


def test_at_by_hand() -> None:
    ledger = build_ledger(small(), PJREDDIE)
    # 0x34 + 4 * 31 = 0xb0: element 31 of (2, 3, 3, 3) is 1*27 + 0*9 + 1*3 + 1.
    assert str(ledger.at(0xB2)) == "0xb2: layer 0 convolutional / weights [1, 0, 1, 1], byte 2"
    assert str(ledger.at(0x0)) == "0x0: header / major, byte 0"
    assert str(ledger.at(0x6)) == "0x6: header / minor, byte 2"
    assert str(ledger.at(0x13)) == "0x13: header / seen, byte 7"
    assert str(ledger.at(0x14A)) == "0x14a: after the last tensor, byte 2"
    with pytest.raises(WeightsError, match=r"^ledger: no such byte; expected 0 or more, found -1\.$"):
        ledger.at(-1)


@given(st.integers(20, BYTES - 1), st.sampled_from([16, 20]))
def test_at_and_offset_of_are_inverse(offset: int, header_bytes: int) -> None:
    ledger = build_ledger(small(), PJREDDIE, header_bytes)
    offset -= 20 - header_bytes
    place = ledger.at(offset)
    assert place.span is not None
    assert ledger.offset_of(place.span.layer, place.field, place.element) + place.byte == offset
    assert place.span.start <= offset < place.span.stop
    assert 0 <= place.byte < 4


@given(st.data())
def test_offset_of_and_at_are_inverse(data: st.DataObject) -> None:
    ledger = build_ledger(small(), PJREDDIE)
    span = data.draw(st.sampled_from(ledger.spans))
    element = tuple(data.draw(st.integers(0, n - 1)) for n in span.shape)
    place = ledger.at(ledger.offset_of(span.layer, span.field, element))
    assert (place.span, place.element, place.byte) == (span, element, 0)


def test_tensors_are_the_bytes_at_their_offsets(tmp_path: Path) -> None:
    weights = open_small(small_file(tmp_path))
    raw = weights.path.read_bytes() if weights.path else b""
    for span in weights.ledger.spans:
        tensor = weights[span.layer, span.field]
        assert tensor.dtype == np.float32
        assert tensor.tobytes() == raw[span.start : span.stop]
        assert np.shares_memory(tensor, weights.data)
    # Element [1, 0, 1, 1] of the weights is float 8 + 31 of the file.
    assert weights[0, "weights"][1, 0, 1, 1] == 39.5
    assert str(weights.at(0xB2)) == str(weights.ledger.at(0xB2))
    assert (weights.size, weights.unread_bytes, weights.findings()) == (BYTES, 0, [])


def test_the_ledger_of_a_batchnorm_layer_depends_on_the_dialect() -> None:
    """pjreddie's loader reads no biases there (src/parser.c `load_batchnorm_weights`)."""
    network = build_network(parse_cfg("[net]\nwidth=4\nheight=4\nchannels=3\n[batchnorm]\n", "a.cfg"))
    assert [s.field for s in build_ledger(network, ALEXEYAB).spans] == [
        "biases", "scales", "rolling_mean", "rolling_variance",
    ]  # fmt: skip
    assert [s.field for s in build_ledger(network, PJREDDIE).spans] == ["scales", "rolling_mean", "rolling_variance"]
