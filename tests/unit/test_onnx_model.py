"""The direct ONNX builder: names, values, shapes and bytes of its files, opsets and open sizes."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from engine_models import random_input, random_model
from onnx_samples import TEXT, answer, calm, shape_of, values_of, write

from workbench.cfg import parse_cfg
from workbench.dialects import PJREDDIE
from workbench.errors import OptionError
from workbench.model import Model, model_from
from workbench.network import build_network
from workbench.onnx_file import graph_sha256_of
from workbench.onnx_model import OPSETS, OnnxOptions, build_graph, write_onnx
from workbench.runners.onnxruntime import OnnxRunner, open_session
from workbench.runners.torch import TorchRunner
from workbench.weights import build_ledger, open_weights


@pytest.fixture(scope="module")
def model() -> Model:
    return calm(random_model(TEXT, "alexeyab"), 7, 13)


def graph_bytes(data: bytes) -> bytes:
    """Field 7 of the message, found by its tag 0x3a and the length that follows, seven bits a byte."""
    start = data.index(b"\x12\x11darknet-workbench\x3a") + 20
    length, shift = 0, 0
    while True:
        length |= (data[start] & 0x7F) << shift
        start, shift = start + 1, shift + 7
        if data[start - 1] < 0x80:
            return data[start : start + length]


# ------------------------------------------------------------------------------------------------ names and values


def test_every_name_carries_its_layer(model: Model, tmp_path: Path) -> None:
    proto = write(model, tmp_path / "a.onnx", OnnxOptions("nms"))
    prefixes = {layer.prefix for layer in model.network.layers} | {"output"}
    names = [node.name for node in proto.graph.node] + [tensor.name for tensor in proto.graph.initializer]
    assert len(names) == len(set(names))
    assert {name.split("/")[0] for name in names} - prefixes == {"detections"}
    outputs = [name for node in proto.graph.node for name in node.output]
    assert {name.split("/")[0] for name in outputs} - prefixes == {"detections"}
    assert "000_convolutional/LeakyRelu" in outputs
    assert {"000_convolutional/weights", "000_convolutional/biases"} <= set(names)


def test_folded_values_are_the_formula_s(model: Model, tmp_path: Path) -> None:
    """weights * scales / sqrt(variance + 1e-5), biases - mean * scales / sqrt(variance + 1e-5), in float64."""
    values = values_of(write(model, tmp_path / "a.onnx"))
    for index in (0, 1, 3, 6):
        layer = {
            field: model.weights[index, field].astype(np.float64)
            for field in ("biases", "scales", "rolling_mean", "rolling_variance", "weights")
        }
        factor = layer["scales"] / np.sqrt(layer["rolling_variance"] + 1e-5)
        weights = layer["weights"] * factor[:, None, None, None]
        name = f"{index:03d}_convolutional"
        np.testing.assert_array_equal(values[f"{name}/weights"], weights.astype(np.float32))
        biases = layer["biases"] - layer["rolling_mean"] * factor
        np.testing.assert_array_equal(values[f"{name}/biases"], biases.astype(np.float32))


def test_unfolded_values_are_the_file_s(model: Model, tmp_path: Path) -> None:
    proto = write(model, tmp_path / "a.onnx", OnnxOptions("raw", fold=False))
    values, found = values_of(proto), 0
    for (index, field), _ in model.weights.ledger.by_name.items():
        name = f"{index:03d}_convolutional/{field}"
        if field == "rolling_variance":  # 0 + epsilon - epsilon in float64
            np.testing.assert_allclose(values[name], model.weights[index, field], rtol=1e-6)
        else:
            np.testing.assert_array_equal(values[name], model.weights[index, field])
        found += 1
    assert found == 4 * 5 + 2 * 2
    epsilons = [
        a.f for n in proto.graph.node if n.op_type == "BatchNormalization" for a in n.attribute if a.name == "epsilon"
    ]
    assert epsilons == [np.float32(1e-5)] * 4


def test_layers_that_compute_nothing_write_no_node(model: Model, tmp_path: Path) -> None:
    proto = write(model, tmp_path / "a.onnx")
    used = {node.name.split("/")[0] for node in proto.graph.node}
    assert {"009_route", "012_dropout"} & used == set()
    assert {"002_route", "011_route"} <= used


# ------------------------------------------------------------------------------------------------- the file itself


@pytest.mark.parametrize("outputs", ["raw", "decoded", "nms", "layers"])
def test_the_streamed_bytes_are_what_protobuf_writes(model: Model, tmp_path: Path, outputs: Any) -> None:
    """Fields may stand in another order; there is nothing more and nothing less, and the parsed messages are equal."""
    path = tmp_path / "a.onnx"
    proto = write(model, path, OnnxOptions(outputs), author="nobody", empty="")
    again = proto.SerializeToString(deterministic=True)
    assert len(again) == path.stat().st_size
    assert onnx.load_from_string(again) == proto
    assert proto.ByteSize() == path.stat().st_size
    assert [tensor.name for tensor in proto.graph.initializer if not tensor.raw_data] == []


def test_metadata_and_versions(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    proto = write(model, path, OnnxOptions(opset=19), **{"darknet.dialect": "alexeyab", "long": "ü" * 5000})
    assert {entry.key: entry.value for entry in proto.metadata_props} == {
        "darknet.dialect": "alexeyab",
        "long": "ü" * 5000,
    }
    assert open_session(path).get_modelmeta().custom_metadata_map["darknet.dialect"] == "alexeyab"
    assert (proto.producer_name, proto.ir_version, proto.graph.name) == ("darknet-workbench", 9, "small")
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", 19)]


def test_the_sha256_is_that_of_the_graph_alone(model: Model, tmp_path: Path) -> None:
    plain, told, other = (tmp_path / f"{name}.onnx" for name in ("plain", "told", "other"))
    first = write_onnx(build_graph(model), plain)
    assert write_onnx(build_graph(model), told, {"author": "nobody"}) == first
    assert plain.read_bytes() != told.read_bytes()
    assert graph_sha256_of(plain) == graph_sha256_of(told) == first
    assert graph_sha256_of(plain) == hashlib.sha256(graph_bytes(plain.read_bytes())).hexdigest()
    values = model.weights[13, "biases"].copy()
    values[3] = np.nextafter(values[3], np.float32(9))
    changed = replace(model, weights=model.weights.replacing({(13, "biases"): values}))
    assert write_onnx(build_graph(changed), other) != first


def test_an_input_is_never_overwritten(model: Model, tmp_path: Path) -> None:
    weights = tmp_path / "a.weights"
    weights.write_bytes(b"".join(model.weights.pieces()))
    opened = open_weights(model.network, weights, model.dialect)
    before = weights.read_bytes()
    with pytest.raises(OptionError, match="is also an input; an input is never overwritten"):
        write_onnx(build_graph(replace(model, weights=opened)), weights)
    assert weights.read_bytes() == before


def test_more_than_two_gigabytes_are_refused(tmp_path: Path) -> None:
    """140000 filters of 4096 channels: 2.3 GB, in a sparse file of which nothing is read."""
    text = "[net]\nwidth=1\nheight=1\nchannels=4096\n[convolutional]\nfilters=140000\nsize=1\nactivation=linear\n"
    network = build_network(parse_cfg(text, "big.cfg"))
    path = tmp_path / "big.weights"
    size = build_ledger(network, PJREDDIE).bytes
    with path.open("wb") as file:
        file.write(bytes([0, 0, 0, 0, 2, 0, 0, 0]))
        file.truncate(size)
    big = model_from(text, open_weights(network, path, PJREDDIE), PJREDDIE, ())
    with pytest.raises(OptionError) as caught:
        write_onnx(build_graph(big, OnnxOptions("raw")), tmp_path / "big.onnx")
    assert str(caught.value).startswith(
        "onnx: the file would be too large for protobuf; expected at most 2147483647 bytes"
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["big.weights"]


# ----------------------------------------------------------------------------------------------- opsets and checker


@pytest.mark.parametrize("size", [None, (32, 64)])
@pytest.mark.parametrize("outputs", ["raw", "decoded", "nms", "layers"])
@pytest.mark.parametrize("opset", OPSETS)
def test_checker_and_inference(
    model: Model, tmp_path: Path, opset: int, outputs: Any, size: tuple[int, int] | None
) -> None:
    path = tmp_path / "a.onnx"
    proto = write(model, path, OnnxOptions(outputs, opset, size))
    onnx.checker.check_model(proto, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True)
    shapes = {info.name: shape_of(info) for info in (*inferred.graph.value_info, *inferred.graph.output)}
    sized = model.at_size(*size) if size else model
    for layer in sized.network.layers:
        for name in (f"{layer.prefix}/LeakyRelu", f"{layer.prefix}/Resize"):
            if name in shapes:
                assert shapes[name][:2] == ["batch", layer.output_shape[0]]
                assert not size or shapes[name][2:] == list(layer.output_shape[1:])
    assert len(answer(path, random_input(sized))) == len(proto.graph.output)


@pytest.mark.parametrize("opset", [16, 22, 0])
def test_other_opsets_are_refused(opset: int) -> None:
    with pytest.raises(OptionError, match=rf"^opset: not supported; expected 17 to 21, found {opset}\.$"):
        OnnxOptions(opset=opset)


def test_other_outputs_are_refused() -> None:
    with pytest.raises(OptionError, match=r"^outputs: not known; expected raw, decoded or nms, found boxes\.$"):
        OnnxOptions("boxes")  # type: ignore[arg-type]


def test_what_cannot_be_decoded() -> None:
    with pytest.raises(
        OptionError, match=r"^small\.cfg: has no head to decode; expected --outputs raw, found decoded\.$"
    ):
        build_graph(random_model("[net]\nwidth=8\nheight=8\nchannels=3\n[maxpool]\n"), OnnxOptions("decoded"))
    text = TEXT + "[convolutional]\nfilters=8\n[yolo]\nanchors=1,2\nclasses=3\n"
    build_graph(random_model(text))
    with pytest.raises(
        OptionError, match=r"^small\.cfg: has heads with different numbers of classes; expected --outputs raw\.$"
    ):
        build_graph(
            random_model(
                text.replace("filters=8\n[yolo]\nanchors=1,2\nclasses=3", "filters=7\n[yolo]\nanchors=1,2\nclasses=2")
            )
        )


# ------------------------------------------------------------------------------------------------------- open sizes


def test_batch_height_and_width_are_open(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    proto = write(model, path, OnnxOptions("raw"))
    assert shape_of(proto.graph.input[0]) == ["batch", 3, "height", "width"]
    assert [shape_of(output)[:2] for output in proto.graph.output] == [["batch", 16]] * 2
    assert [output.name for output in proto.graph.output] == ["007_convolutional/Conv", "013_convolutional/Conv"]
    for (width, height), batch in (((64, 32), 1), ((32, 32), 3), ((96, 64), 2)):
        sized = model.at_size(width, height)
        x = random_input(sized, batch)
        with TorchRunner(sized) as runner:
            expected = runner.run_layers(x, [7, 13])
        outputs = answer(path, x)
        for index in (7, 13):
            found = outputs[f"{index:03d}_convolutional/Conv"]
            assert found.shape == (batch, *sized.network.layers[index].output_shape)
            assert np.abs(found - expected[index]).max() <= 2e-6 * np.abs(expected[index]).max()


def test_a_fixed_size_is_all_numbers_and_constants(model: Model, tmp_path: Path) -> None:
    proto = write(model, tmp_path / "a.onnx", OnnxOptions(size=(96, 64)))
    assert shape_of(proto.graph.input[0]) == ["batch", 3, 64, 96]
    # Two anchors a head on 8x12 / 16x24 cells: stride 8 for layer 6, 4 for layer 11.
    rows = 2 * (8 * 12) + 2 * (16 * 24)
    assert [shape_of(output) for output in proto.graph.output] == [["batch", rows, 4], ["batch", rows, 3]]
    assert {node.op_type for node in proto.graph.node} & {"Range", "Mod", "Cast"} == set()
    values = values_of(proto)
    grid = values["008_yolo/grid"]
    assert grid.shape == (1, 96, 1, 2)
    assert grid[0, :, 0].tolist() == [[column, row] for row in range(8) for column in range(12)]
    assert values["008_yolo/stride"].tolist() == [8, 8]
    assert values["014_yolo/stride"].tolist() == [4, 4]
    assert [info.name for info in proto.graph.value_info if any(isinstance(d, str) for d in shape_of(info)[1:])] == []


def test_a_network_that_works_at_one_size_only_gets_it(tmp_path: Path) -> None:
    """A matrix has as many columns as its input has values."""
    fixed = random_model("[net]\nwidth=4\nheight=3\nchannels=2\n[connected]\noutput=5\nactivation=linear\n")
    proto = write(fixed, tmp_path / "a.onnx", OnnxOptions("raw"))
    assert shape_of(proto.graph.input[0]) == ["batch", 2, 3, 4]
    assert shape_of(proto.graph.output[0]) == ["batch", 5, 1, 1]
    with pytest.raises(OptionError, match=r"^small\.cfg: works at one size only; expected 4x3, found 8x8\.$"):
        build_graph(fixed, OnnxOptions("raw", size=(8, 8)))


def test_a_network_that_passes_its_input_on(tmp_path: Path) -> None:
    idle = random_model("[net]\nwidth=4\nheight=3\nchannels=2\n[dropout]\n")
    x = random_input(idle)
    write(idle, tmp_path / "a.onnx", OnnxOptions("raw"))
    (found,) = answer(tmp_path / "a.onnx", x).values()
    np.testing.assert_array_equal(found, x)
    with OnnxRunner(idle) as runner:
        np.testing.assert_array_equal(runner.run(x)[0], x)
