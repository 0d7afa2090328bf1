"""Debian's Darknet as a runner, against what was measured with it by other means, and every reason to refuse."""

from __future__ import annotations

import json
import runpy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from engine_models import NET, open_face, open_tiny, random_input, random_model, variance_model, worst_difference

from workbench.cfg import parse_cfg
from workbench.detections import Nms, match
from workbench.dialects import find_dialect
from workbench.errors import OptionError, ReferenceRefused, ToolMissing
from workbench.image import load_picture
from workbench.model import open_model
from workbench.network import build_network
from workbench.runners import darknet as runner_module
from workbench.runners import open_runner as open_any
from workbench.runners.darknet import DarknetRunner, open_runner, refusal
from workbench.runners.darknet_rules import RULES, find_complaint
from workbench.runners.refusals import find_refusal

pytestmark = pytest.mark.usefixtures("darknet")

PHOTOS = Path("/usr/share/darknet/data")
CONV = "[convolutional]\nfilters=4\nsize=3\npad=1\nactivation=leaky\n"
LINEAR = "[convolutional]\nfilters=16\nsize=1\nactivation=linear\n"
HEAD = LINEAR + "[yolo]\nmask=0,1\nanchors=8,8, 16,12\nclasses=3\nnum=2\n"
CANNOT = "Darknet of 2018 cannot run this cfg truthfully: "

# Printed by a program that called the library by another way; class, probability, centre x, y, width, height in pixels.
DOG = [
    (2, 0.6176, 572.09, 120.47, 214.29, 98.62),
    (1, 0.5864, 391.00, 300.54, 369.62, 298.94),
    (16, 0.5639, 249.18, 352.12, 240.24, 330.83),
    (7, 0.5535, 577.38, 126.07, 88.21, 62.66),
    (2, 0.5186, 577.38, 126.07, 88.21, 62.66),
]
PERSON = [(17, 0.9427), (16, 0.9111), (16, 0.8991), (0, 0.861)]


@pytest.fixture(scope="module")
def tiny(shared: Path) -> Iterator[DarknetRunner]:
    with open_runner(open_tiny(shared)) as runner:
        yield runner


def test_dog_comes_out_as_printed(tiny: DarknetRunner) -> None:
    found = tiny.detect(load_picture(PHOTOS / "dog.jpg"), 0.5)
    assert found.classes.tolist() == [row[0] for row in DOG]
    np.testing.assert_allclose(found.scores, [row[1] for row in DOG], atol=5.1e-5)
    np.testing.assert_allclose(found.boxes, [row[2:] for row in DOG], atol=5.1e-3)
    assert len(tiny.detect(load_picture(PHOTOS / "dog.jpg"), 0.25)) == 6


def test_person_comes_out_as_printed(tiny: DarknetRunner) -> None:
    found = tiny.detect(load_picture(PHOTOS / "person.jpg"), 0.5)
    assert found.classes.tolist() == [row[0] for row in PERSON]
    np.testing.assert_allclose(found.scores, [row[1] for row in PERSON], atol=5.1e-4)


def test_every_layer_is_seen_and_a_batch_is_its_samples(tiny: DarknetRunner) -> None:
    x = random_input(tiny.model, batch=2)
    outputs = tiny.run(x)
    assert list(outputs) == list(range(24))
    for layer in tiny.model.network.layers:
        assert outputs[layer.index].shape == (2, *layer.output_shape)
    second = tiny.run(x[1:])
    for index, output in outputs.items():
        assert (output[1] == second[index][0]).all()
        assert (output[0] != output[1]).any()
        assert output.flags.writeable


@pytest.mark.parametrize("name", ["WongKinYiu-CSP/darknet", "AlexeyAB/yolov3-tiny", "AlexeyAB/yolov2-tiny-voc"])
def test_outputs_are_the_golden_ones_to_the_bit(shared: Path, tmp_path: Path, name: str) -> None:
    """The goldens come from a C program linked with the same library; darknet.cfg ends in [softmax]."""
    oracle, name = shared / "oracle", f"cfgs/{name}.cfg"
    index = json.loads((oracle / "golden-pjreddie" / "INDEX.json").read_text())
    entry = index["cfgs"][name]
    recipe = runpy.run_path(str(oracle / "make_weights.py"))
    size, weights = (entry["width"], entry["height"]), tmp_path / "a.weights"
    recipe["write"]((oracle / name).read_text(), str(weights), index["weights_seed"], *size, index["dialect"])
    model = open_model(oracle / name, weights, dialect="pjreddie")
    model = replace(model, network=build_network(model.network.cfg, *size))
    x = np.random.default_rng(index["input_seed"]).random(entry["input"], dtype=np.float32)[None]
    with open_runner(model) as runner:
        outputs = runner.run(x)
    golden = np.load(oracle / "golden-pjreddie" / entry["golden"])
    assert list(outputs) == list(range(len(golden["samples"])))
    for i, samples in enumerate(golden["samples"]):
        n, k = int(np.prod(golden["shape"][i])), len(samples)
        at = np.arange(n) if n <= k else np.arange(k, dtype=np.int64) * (n - 1) // (k - 1)
        np.testing.assert_array_equal(outputs[i].ravel()[at], samples[: len(at)], err_msg=f"layer {i}")


def test_the_epsilon_is_outside_the_root() -> None:
    with open_runner(variance_model([1e-12, 1e-8, 1e-4])) as runner:
        x = np.ones((1, 3, 4, 4), np.float32)
        measured = 1 / runner.run(x)[0][0, :, 0, 0]
        assert runner.epsilon is not None
        stated = runner.epsilon.denominator(np.array([1e-12, 1e-8, 1e-4], np.float32))
    np.testing.assert_allclose(measured, stated, rtol=1e-6)
    np.testing.assert_allclose(measured, [2e-6, 1.01e-4, 1.0001e-2], rtol=1e-6)  # sqrt(v) + 1e-6 by hand


@pytest.mark.parametrize("dialect", ["pjreddie", "alexeyab"])
def test_boxes_are_those_decoded_from_its_own_layers(shared: Path, dialect: str) -> None:
    """Letterbox and stretch; the decoding here is the workbench's, the detections there are Darknet's."""
    model, picture = open_face(shared, dialect), load_picture(PHOTOS / "person.jpg")
    with open_runner(model) as runner:
        found = runner.detect(picture, 0.02)
        outputs = runner.run(model.preprocessing.apply(picture)[None])
    heads = {head.index: outputs[head.index][0] for head in model.network.heads}
    expected = model.detections(heads, model.preprocessing.placement(picture.shape[1], picture.shape[0]), 0.02)
    assert len(found) >= 4
    assert match(expected, found).same(1e-3, 1e-5)


def test_suppression_by_object_is_not_that_by_class(shared: Path, tiny: DarknetRunner) -> None:
    """As counted in a C program: do_nms_sort leaves 7 boxes of horses.jpg, do_nms_obj 6."""
    picture = load_picture(PHOTOS / "horses.jpg")
    assert len(tiny.detect(picture, 0.25)) == 7
    with open_runner(replace(tiny.model, nms=Nms("obj", 0.45))) as runner:
        assert len(runner.detect(picture, 0.25)) == 6


@pytest.mark.parametrize("kind", ["obj", "none", "greedynms", "diounms"])
def test_other_suppressions(shared: Path, kind: str) -> None:
    model, picture = open_face(shared), load_picture(PHOTOS / "dog.jpg")
    model = replace(model, nms=Nms(kind, 0.2))
    with open_runner(model) as runner:
        found = runner.detect(picture, 0.05)
        outputs = runner.run(model.preprocessing.apply(picture)[None])
        own = kind in ("obj", "none")
        assert runner.suppression == (f"darknet, {kind}" if own else f"the workbench: darknet has no {kind}")
    heads = {head.index: outputs[head.index][0] for head in model.network.heads}
    placement = model.preprocessing.placement(picture.shape[1], picture.shape[0])
    assert match(model.detections(heads, placement, 0.05), found).same(1e-3, 1e-5)
    everything = replace(model, nms=Nms("none")).detections(heads, placement, 0.05)
    assert (len(found) == len(everything)) == (kind == "none")


def test_a_cfg_with_crlf_repeated_keys_and_a_training_batch(tmp_path: Path, shared: Path, tiny: DarknetRunner) -> None:
    """Darknet itself dies of the first, and averages with a mirror image for the last."""
    text = tiny.model.cfg_text.replace("batch=1\n", "batch=4\n", 1).replace("stride=1\n", "stride=1\nstride=3\n", 1)
    folder = tmp_path / "mit Leerzeichen und ü"
    folder.mkdir()
    (folder / "a b.cfg").write_bytes(text.replace("\n", "\r\n").encode())
    (folder / "a b.weights").symlink_to(shared / "models" / "yolov3-tiny" / "yolov3-tiny.weights")
    model = open_model(folder / "a b.cfg", folder / "a b.weights", dialect="pjreddie")
    x = random_input(model)
    with open_runner(model) as runner:
        outputs = runner.run(x)
        assert len(runner.detect(load_picture(PHOTOS / "dog.jpg"), 0.5)) == 5
    assert worst_difference(tiny.run(x), outputs)[0] == 0


def test_tensors_changed_in_memory_are_what_it_computes() -> None:
    model = random_model(NET + CONV + "[convolutional]\nfilters=2\nsize=1\nactivation=linear\n")
    x = random_input(model)
    biases = model.weights[1, "biases"]
    changed = replace(model, weights=model.weights.replacing({(1, "biases"): biases + np.float32(3)}))
    with open_runner(model) as runner, open_runner(changed) as other:
        np.testing.assert_allclose(other.run(x)[1], runner.run(x)[1] + 3, atol=1e-5)


def test_a_layer_changed_in_memory_is_refused() -> None:
    model = random_model(NET + CONV)
    layer = replace(model.network.layers[0], activation="relu")
    model = replace(model, network=replace(model.network, layers=(layer,)))
    words = r"^darknet: small.cfg:5: layer 0 \[convolutional\] was changed in memory, and an engine reads the cfg"
    with pytest.raises(ReferenceRefused, match=words):
        open_runner(model)


def test_layers_agree_with_torch() -> None:
    cfg = (
        NET + CONV + "[maxpool]\nsize=2\nstride=2\n"
        "[convolutional]\nbatch_normalize=1\nfilters=8\nsize=3\npad=1\nactivation=relu\n"
        "[maxpool]\nsize=2\nstride=1\n[shortcut]\nfrom=-2\nactivation=leaky\n[route]\nlayers=-1,-3\n[reorg]\nstride=2\n"
        "[upsample]\nstride=2\nscale=2\n[maxpool]\nsize=3\nstride=1\npadding=0\n" + HEAD
    )
    model = random_model(cfg)
    x = random_input(model, batch=2)
    with open_runner(model) as runner, open_any("torch", model) as other:
        assert worst_difference(runner.run(x), other.run(x))[0] <= 2e-4


def test_wrong_input_is_refused_before_it_reaches_the_engine(tiny: DarknetRunner) -> None:
    words = r"^darknet: not an input of this network; expected float32 \(n, 3, 416, 416\), n of 1 or more"
    with pytest.raises(OptionError, match=words):
        tiny.run(np.zeros((1, 3, 208, 416), np.float32))
    with pytest.raises(OptionError, match="found float64"):
        tiny.run(np.zeros((1, 3, 416, 416)))  # type: ignore[arg-type]


def test_missing_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "LIBRARY", Path("/absent/libdarknet.so"))
    model = random_model(NET + CONV)
    assert "apt install darknet" in (refusal(model) or "")
    with pytest.raises(ToolMissing, match=r"^darknet: /absent/libdarknet.so is not there; .*: apt install darknet"):
        open_runner(model)


ROWS = [
    ("convolutional\nactivation=mish", "activation=mish is unknown to it: it computes ReLU instead"),
    ("convolutional\nactivation=swish", "activation=swish is unknown"),
    ("convolutional\nactivation=relu6", "activation=relu6 is unknown"),
    ("convolutional\nactivation=Leaky", "activation=Leaky is unknown"),
    ("shortcut\nfrom=-1\nactivation=mish", "activation=mish is unknown"),
    ("convolutional\nstride_x=2", "stride_x=2 is ignored"),
    ("maxpool\nstride_y=2", "stride_y=2 is ignored"),
    ("convolutional\nantialiasing=1", "antialiasing=1 is ignored"),
    ("maxpool\nantialiasing=1", "antialiasing=1 is ignored"),
    ("convolutional\ndilation=2", "dilation=2 is ignored"),
    ("convolutional\nshare_index=0", "share_index=0 is ignored by it: it reads weights where the file has none"),
    ("convolutional\ncbn=1", "cbn=1 is ignored by it: it reads no batch normalisation"),
    ("convolutional\ncoordconv=1", "coordconv=1 is ignored"),
    ("maxpool\nmaxpool_depth=1", "maxpool_depth=1 is ignored"),
    ("route\nlayers=-1\ngroups=2", "groups=2 is ignored by it: it takes all channels"),
    ("shortcut\nfrom=-1,-2", "from=-1,-2 is read up to the comma: it adds the first layer only"),
    ("shortcut\nfrom=-1\nweights_type=per_feature", "weights_type=per_feature is ignored"),
    ("yolo\nscale_x_y=1.05", "scale_x_y=1.05 is ignored"),
    ("yolo\nnew_coords=1", "new_coords=1 is ignored"),
    ("yolo\nmap=a.map", "map=a.map names a file"),
    ("region\ntree=a.tree", "tree=a.tree names a tree file"),
    ("rnn\noutput=4", "[rnn] keeps a state from call to call"),
    ("batchnorm", "[batchnorm] has biases in this dialect"),
    *(
        (kind, f"[{kind.lower()}] is unknown to it")
        for kind in ("sam", "scale_channels", "Gaussian_yolo", "local_avgpool", "implicit", "contrastive", "reorg3d")
    ),
]


@pytest.mark.parametrize(("section", "words"), ROWS)
def test_each_refusal(section: str, words: str) -> None:
    kind, *options = section.split("\n")
    text = NET + CONV + "\n".join([f"[{kind}]", *options])
    reason = find_refusal("Darknet of 2018", RULES, parse_cfg(text, "small.cfg"), find_dialect("alexeyab"))
    assert reason is not None
    line = 10 if words.startswith("[") else 10 + len(options)
    assert reason.startswith(f"{CANNOT}small.cfg:{line}: {words}")


NEUTRAL = [
    "convolutional\nactivation=leaky\ndilation=1\nantialiasing=0\ngroups=2",
    "route\nlayers=-1\ngroups=1",
    "upsample\nscale=2",
    "yolo\nscale_x_y=1.0\nnew_coords=0\nnms_kind=diounms\niou_loss=ciou",
    "dropout\ndropblock=1",
    "shortcut\nfrom=-1\nweights_type=none",
]


@pytest.mark.parametrize("section", NEUTRAL)
def test_what_changes_nothing_is_not_refused(section: str) -> None:
    kind, _, options = section.partition("\n")
    cfg = parse_cfg(f"{NET}{CONV}[{kind}]\n{options}\n", "small.cfg")
    assert find_refusal("Darknet of 2018", RULES, cfg, find_dialect("pjreddie")) is None


def test_every_refused_place_is_counted() -> None:
    cfg = parse_cfg(NET + CONV.replace("leaky", "mish") * 3, "small.cfg")
    reason = find_refusal("Darknet of 2018", RULES, cfg, find_dialect("alexeyab"))
    assert reason is not None
    assert reason.startswith(f"{CANNOT}small.cfg:9: activation=mish is unknown to it: it computes ReLU instead")
    assert reason.endswith("(and 2 more such sections)")


def test_a_refused_model_is_not_opened() -> None:
    with pytest.raises(ReferenceRefused, match=rf"^darknet: {CANNOT}small.cfg:9: activation=mish"):
        open_runner(random_model(NET + CONV.replace("leaky", "mish"), "alexeyab"))


def test_what_the_table_does_not_know_shows_on_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "RULES", ())
    words = r"^darknet: it did not understand small.cfg; found on its stderr: .*Couldn't find activation function mish"
    with pytest.raises(ReferenceRefused, match=words):
        open_runner(random_model(NET + CONV.replace("leaky", "mish"), "alexeyab"))


@pytest.mark.parametrize(
    ("line", "complains"),
    [
        ("Type not recognized: [sam]", True),
        ("Couldn't find activation function swish, going with ReLU", True),
        ("Unused field: 'stride_z = 2'", True),
        ("Unused field: 'max_delta = 5'", False),
        ("layer     filters    size", False),
    ],
)
def test_complaints(line: str, complains: bool) -> None:
    assert find_complaint(f"   0 conv\n{line}\nDone!") == (line if complains else None)
