"""OpenCV as a runner, against Debian's Darknet, PyTorch and arithmetic by hand, and every reason to refuse."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from engine_models import NET, open_face, open_tiny, random_input, random_model, variance_model, worst_difference

from workbench.cfg import parse_cfg
from workbench.detections import Nms, match
from workbench.dialects import find_dialect
from workbench.errors import ReferenceRefused, ToolMissing
from workbench.image import load_picture
from workbench.model import Model, open_model
from workbench.runners import open_runner as open_any
from workbench.runners import opencv as runner_module
from workbench.runners.darknet import DarknetRunner
from workbench.runners.darknet import open_runner as open_darknet
from workbench.runners.opencv import OpenCvRunner, open_runner, refusal
from workbench.runners.opencv_rules import RULES
from workbench.runners.refusals import find_refusal

PHOTOS = Path("/usr/share/darknet/data")
CONV = "[convolutional]\nfilters=4\nsize=3\npad=1\nactivation=leaky\n"
LINEAR = "[convolutional]\nfilters=16\nsize=1\nactivation=linear\n"
YOLO = "[yolo]\nmask=0,1\nanchors=8,8, 16,12\nclasses=3\nnum=2\n"
REGION = "[region]\nanchors=1,1, 2,1.5\nclasses=3\ncoords=4\nnum=2\nsoftmax=1\nthresh=.6\n"


@pytest.fixture(scope="module")
def tiny(shared: Path) -> Iterator[OpenCvRunner]:
    with open_runner(open_tiny(shared)) as runner:
        yield runner


@pytest.fixture(scope="module")
def tiny_darknet(darknet: Path, shared: Path) -> Iterator[DarknetRunner]:
    with open_darknet(open_tiny(shared)) as runner:
        yield runner


def with_own_epsilon(model: Model) -> Model:
    """The model in a dialect with OpenCV's epsilon, so that PyTorch computes the same formula."""
    return replace(model, dialect=replace(model.dialect, epsilon=OpenCvRunner.epsilon))


def test_real_layers_agree_with_darknet_but_for_the_epsilon(tiny_darknet: DarknetRunner, tiny: OpenCvRunner) -> None:
    x = tiny.model.preprocessing.apply(load_picture(PHOTOS / "dog.jpg"))[None]
    reference, outputs = tiny_darknet.run(x), tiny.run(x)
    assert sorted(reference.keys() - outputs.keys()) == [16, 23]  # decoded boxes there, not a layer's output
    worst, layer = worst_difference(reference, outputs)
    assert worst <= 4e-4
    assert layer == 0  # with the smallest variance, .013
    assert worst > 2e-4  # which the epsilon explains:
    with open_any("torch", with_own_epsilon(tiny.model)) as torch:
        assert worst_difference(torch.run(x), outputs)[0] <= 1e-4


def test_the_epsilon_is_inside_the_root() -> None:
    variances = [1e-12, 1e-8, 1e-4]
    with open_runner(variance_model(variances)) as runner:
        measured = 1 / runner.run(np.ones((1, 3, 4, 4), np.float32))[0][0, :, 0, 0]
        assert runner.epsilon is not None
        stated = runner.epsilon.denominator(np.array(variances, np.float32))
    np.testing.assert_allclose(measured, stated, rtol=1e-6)
    by_hand = [1.0000005e-3, 1.0049876e-3, 1.0049876e-2]  # sqrt(v + 1e-6)
    np.testing.assert_allclose(measured, by_hand, rtol=1e-6)


EVERYTHING = (
    NET + "[convolutional]\nbatch_normalize=1\nfilters=8\nsize=3\nstride=1\npad=1\nactivation=mish\n"  # 0
    "[route]\nlayers=-1\ngroups=2\ngroup_id=1\n"
    "[convolutional]\nbatch_normalize=1\nfilters=4\nsize=3\npad=1\ngroups=4\nactivation=swish\n"  # 2
    "[convolutional]\nfilters=4\nsize=1\nactivation=linear\n[shortcut]\nfrom=-3\nactivation=leaky\n[dropout]\n"  # 3 4 5
    "[avgpool]\n[convolutional]\nfilters=4\nsize=1\nactivation=relu\n[convolutional]\nfilters=4\nsize=1\n"  # 6 7 8
    "[scale_channels]\nfrom=-4\nactivation=linear\n"  # 9
    "[convolutional]\nfilters=4\nsize=1\nactivation=logistic\n[sam]\nfrom=-2\nactivation=tanh\n"  # 10 11
    "[route]\nlayers=-1,0,-3\n[maxpool]\nsize=2\nstride=2\n[reorg]\nstride=2\n[upsample]\n"  # 12 13 14 15
    "[maxpool]\nsize=2\n[maxpool]\nsize=5\nstride=1\n[maxpool]\nsize=3\nstride=2\n" + LINEAR + YOLO
)


def test_every_kind_of_layer_is_found_under_its_own_index() -> None:
    """OpenCV names activations, dropout, shortcuts and routes in four ways, and has other defaults."""
    model = with_own_epsilon(random_model(EVERYTHING, "alexeyab"))
    x = random_input(model, batch=2)
    with open_runner(model) as runner, open_any("torch", model) as torch:
        outputs, expected = runner.run(x), torch.run(x)
    assert list(outputs) == list(range(20))
    for index, output in outputs.items():
        assert output.shape == (2, *model.network.layers[index].output_shape)
        np.testing.assert_allclose(output, expected[index], atol=2e-4 * expected[index].std(), err_msg=f"layer {index}")


@pytest.mark.parametrize("picture", ["dog", "person"])
@pytest.mark.parametrize("thresh", [0.25, 0.5])
def test_boxes_agree_with_darknets(
    tiny_darknet: DarknetRunner, tiny: OpenCvRunner, picture: str, thresh: float
) -> None:
    """Its own threshold (.2 in the reader, .6 in old cfgs) and suppression are out of the way."""
    pixels = load_picture(PHOTOS / f"{picture}.jpg")
    reference = tiny_darknet.detect(pixels, thresh)
    assert len(reference) >= 4
    assert match(reference, tiny.detect(pixels, thresh)).same(1e-3, 1e-5)


@pytest.mark.parametrize("kind", ["sort", "obj", "none", "greedynms", "diounms"])
def test_suppressions(shared: Path, kind: str) -> None:
    """Against the workbench's own, which is tested against Darknet's elsewhere."""
    model, picture = with_own_epsilon(open_face(shared)), load_picture(PHOTOS / "dog.jpg")
    model = replace(model, nms=Nms(kind, 0.2))
    with open_runner(model) as runner, open_any("torch", model) as torch:
        found, expected = runner.detect(picture, 0.05), torch.detect(picture, 0.05)
        own = kind in ("sort", "obj", "none")
        assert runner.suppression == (f"opencv, {kind}" if own else f"the workbench: opencv has no {kind}")
    assert len(found) > 5
    assert match(expected, found).same(1e-3, 1e-5)


def test_yolov4_heads_are_decoded() -> None:
    """scale_x_y and new_coords; wide boxes on a grid that is not square."""
    head = YOLO.replace("num=2", "num=2\nscale_x_y=2.0\nnew_coords=1")
    cfg = NET + CONV + LINEAR.replace("linear", "logistic") + head
    model, picture = random_model(cfg, "alexeyab"), np.random.default_rng(0).integers(0, 256, (90, 200, 3), np.uint8)
    with open_runner(model) as runner, open_any("torch", model) as torch:
        found, expected = runner.detect(picture, 0.3), torch.detect(picture, 0.3)
    assert len(found) > 5
    assert match(expected, found).same(1e-3, 1e-5)


def test_region_boxes_only_with_the_overlap_that_is_built_in() -> None:
    model = random_model(NET + CONV + "[maxpool]\nsize=4\nstride=4\n" + LINEAR + REGION)
    picture = np.random.default_rng(0).integers(0, 256, (90, 200, 3), np.uint8)
    with open_runner(model) as runner:
        assert list(runner.run(random_input(model))) == [0, 1, 2]
        words = (
            r"^opencv: small.cfg:17: the boxes of \[region\] are suppressed inside OpenCV, whatever one asks for; "
            r"expected sort above 0.45, found sort above 0.4"
        )
        with pytest.raises(ReferenceRefused, match=words):
            runner.detect(picture, 0.1)
    model = replace(model, nms=Nms("sort", 0.4))
    with open_runner(model) as runner, open_any("torch", model) as torch:
        found, expected = runner.detect(picture, 0.1), torch.detect(picture, 0.1)
    assert len(found) > 5
    assert match(expected, found).same(1e-3, 1e-5)


def test_of_repeated_keys_it_gets_the_first(tmp_path: Path, tiny: OpenCvRunner, shared: Path) -> None:
    """By itself it takes the last."""
    text = tiny.model.cfg_text.replace("stride=1\n", "stride=1\nstride=3\n", 1).replace("\n", "\r\n")
    (tmp_path / "a.cfg").write_bytes(text.encode())
    weights = shared / "models" / "yolov3-tiny" / "yolov3-tiny.weights"
    model = open_model(tmp_path / "a.cfg", weights, dialect="pjreddie")
    x = random_input(model)
    with open_runner(model) as runner:
        assert worst_difference(tiny.run(x), runner.run(x))[0] == 0


def test_this_process_holds_neither_engine(darknet: Path) -> None:
    """libdarknet.so would make it flush denormals; cv2 would bring its threads."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from engine_models import *\nfrom workbench.runners import darknet, opencv\n"
        f"m = random_model({NET + CONV!r}); x = random_input(m)\n"
        "for engine in (darknet, opencv):\n"
        "    with engine.open_runner(m) as runner: assert len(runner.run(x)) == 1\n"
        "assert 'cv2' not in sys.modules and 'libdarknet' not in open('/proc/self/maps').read()\n"
        "import numpy as np; assert np.float32(1e-40) * np.float32(0.5) != 0\n"
    )
    subprocess.run([sys.executable, "-c", script, str(Path(__file__).parent)], check=True, timeout=120)


def test_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "find_spec", lambda name: None if name == "cv2" else find_spec(name))
    model = random_model(NET + CONV)
    assert "pip install" in (refusal(model) or "")
    words = r'^opencv: the package cv2 is not installed; pip install "opencv-python-headless>=4.11,<5"'
    with pytest.raises(ToolMissing, match=words):
        open_runner(model)


def test_opencv_5(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "installed_version", lambda: "5.0.0.93")
    words = r"^opencv: OpenCV 5.0.0.93 has no reader for Darknet any more; pip install"
    with pytest.raises(ToolMissing, match=words):
        open_runner(random_model(NET + CONV))


def test_what_it_rejects_though_the_table_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "RULES", ())
    words = r"^opencv: it rejects small.cfg; found error: OpenCV.*Unsupported activation: relu6"
    with pytest.raises(ReferenceRefused, match=words):
        open_runner(random_model(NET + CONV.replace("leaky", "relu6"), "alexeyab"))


ROWS = [
    *(
        (f"convolutional\nactivation={name}", f"activation={name} is unknown to it")
        for name in ["relu6", "hard_mish", "elu", "selu", "gelu", "hardtan", "loggy", "ramp", "Leaky"]
    ),
    ("shortcut\nfrom=-1\nactivation=relu6", "activation=relu6 is unknown"),
    ("convolutional\nstride_x=2", "stride_x=2 is ignored"),
    ("maxpool\nstride_y=2", "stride_y=2 is ignored"),
    ("convolutional\nantialiasing=1", "antialiasing=1 is ignored"),
    ("maxpool\nantialiasing=1", "antialiasing=1 is ignored"),
    ("convolutional\ndilation=2", "dilation=2 is ignored"),
    ("convolutional\nshare_index=0", "share_index=0 is ignored by it: it reads weights where the file has none"),
    ("convolutional\nbatch_normalize=2", "batch_normalize=2 is taken for 0"),
    ("convolutional\nxnor=1", "xnor=1 is ignored"),
    ("convolutional\nbinary=1", "binary=1 is ignored"),
    ("convolutional\nflipped=1", "flipped=1 is rejected"),
    ("connected\nbatch_normalize=1", "batch_normalize=1 is read in the wrong order"),
    ("maxpool\nmaxpool_depth=1", "maxpool_depth=1 is ignored"),
    ("crop\ncrop_width=8", "[crop] shifts its numbering"),
    ("route\nlayers=-1,0\ngroups=2", "groups=2 with several layers shifts its numbering"),
    ("shortcut\nfrom=-1,-2", "from=-1,-2 is read up to the comma: it adds the first layer only"),
    ("shortcut\nfrom=-1\nweights_type=per_feature", "weights_type=per_feature is ignored"),
    ("shortcut\nfrom=-1\nalpha=.5", "alpha=.5 is taken from the other operand"),
    ("shortcut\nfrom=-1\nbeta=.5", "beta=.5 is rejected"),
    ("scale_channels\nfrom=-1\nscale_wh=1", "scale_wh=1 is ignored"),
    ("upsample\nscale=2", "scale=2 is ignored"),
    ("reorg\nreverse=1", "reverse=1 is ignored"),
    ("softmax\ngroups=2", "groups=2 is rejected"),
    ("softmax\ntemperature=3", "temperature=3 is ignored"),
    ("softmax\ntree=a.tree", "tree=a.tree is not known"),
    ("region\nsoftmax=0", "softmax=0 is rejected"),
    ("region\nsoftmax=1\ncoords=5", "coords=5 is rejected"),
    ("yolo\nnum=3\nanchors=1,2,3,4", "anchors=1,2,3,4 is rejected by it: it wants exactly num= pairs"),
    *(
        (kind, f"[{kind.lower()}] is unknown to it")
        for kind in ("Gaussian_yolo", "local_avgpool", "implicit", "contrastive", "reorg3d", "local", "batchnorm")
    ),
]


@pytest.mark.parametrize(("section", "words"), ROWS)
def test_each_refusal(section: str, words: str) -> None:
    kind, *options = section.split("\n")
    text = NET + CONV + "\n".join([f"[{kind}]", *options])
    reason = find_refusal("OpenCV", RULES, parse_cfg(text, "small.cfg"), find_dialect("alexeyab"))
    assert reason is not None
    line = 10 if words.startswith("[") else 10 + len(options)
    assert reason.startswith(f"OpenCV cannot run this cfg truthfully: small.cfg:{line}: {words}")


def test_softmax_of_a_map_is_refused_and_of_a_vector_not() -> None:
    vector = random_model(NET + CONV + "[avgpool]\n[softmax]\n")
    assert refusal(vector) is None
    with open_runner(vector) as runner, open_any("torch", vector) as torch:
        x = random_input(vector)
        np.testing.assert_allclose(runner.run(x)[2], torch.run(x)[2], atol=1e-6)
    reason = refusal(random_model(NET + CONV + "[softmax]\n"))
    assert reason is not None
    assert "small.cfg:10: [softmax] of a whole map is computed pixel by pixel in it" in reason
