"""Mistakes of batch normalisation's epsilon: another value, the other side of the root, none, the published trick."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from workbench.dialects import Epsilon
from workbench.layers.base import Float32
from workbench.ledger import Span
from workbench.model import Model
from workbench.pitfalls.base import Idle, Pitfall
from workbench.pitfalls.misread import misread

LOOKS = (
    "The first normalised layer, by a value that grows as its variances shrink; no box moves visibly while all "
    "variances exceed 0.01. With dead channels (variance 0, denormal or negative) those channels explode or vanish "
    "and boxes follow."
)


def use_epsilon(epsilon: Epsilon) -> Callable[[Model], Model]:
    """An `apply` that computes with another epsilon."""
    return lambda model: replace(model, dialect=replace(model.dialect, epsilon=epsilon))


def idle_with(epsilon: Epsilon | None) -> Idle:
    """Idle where nothing is normalised, or the model's dialect has this epsilon."""

    def reason(model: Model) -> str | None:
        if not any(span.field.endswith("rolling_variance") for span in model.weights.ledger.spans):
            return "no layer is batch normalised"
        own = model.dialect.epsilon == epsilon
        return f"the dialect {model.dialect} itself computes {epsilon}" if own else None

    return reason


def apply_trick(model: Model) -> Model:
    """Store (sqrt(v) + 1e-6)^2 - 1e-5 in float32, and compute sqrt(stored + 1e-5) with it."""
    return use_epsilon(Epsilon(1e-5, inside=True))(misread(model, views={"variance trick": trick_variance}))


def trick_variance(span: Span, values: Float32) -> Float32:
    """The variance that the recipe stores."""
    if not span.field.endswith("rolling_variance"):
        return values
    with np.errstate(invalid="ignore"):
        return np.asarray(np.square(np.sqrt(values) + np.float32(1e-6)) - np.float32(1e-5), np.float32)


def _pitfall(name: str, epsilon: Epsilon, title: str, text: str, seen_in: str, looks_like: str = LOOKS) -> Pitfall:
    fix = (
        "e = 1e-6   # pjreddie on the CPU: sqrt(v) + 1e-6\n"
        "bn.eps = 0.0\nbn.running_var = (running_var.clamp(min=0).sqrt() + e) ** 2\n"
        "# AlexeyAB since 2020-04-30: sqrt(v + 1e-5)\nbn.eps = 1e-5"
    )
    return Pitfall(name, title, text, looks_like, seen_in, fix, "weights", use_epsilon(epsilon), idle_with(epsilon))


EPSILONS = (
    _pitfall(
        "epsilon-1e-5-inside",
        Epsilon(1e-5, inside=True),
        "Epsilon 1e-5 inside the root",
        "PyTorch divides by sqrt(variance + 1e-5), pjreddie's Darknet on the CPU by sqrt(variance) + 1e-6. "
        "AlexeyAB's fork has PyTorch's since 2020-04-30, so a conversion may be right for one fork and wrong for "
        "the other.",
        "torch.nn.BatchNorm2d by default, mmdetection, hank-ai's ONNX exporter, pjreddie's own CUDA kernel.",
    ),
    _pitfall(
        "epsilon-1e-6-inside",
        Epsilon(1e-6, inside=True),
        "Epsilon 1e-6, but inside the root",
        "Taking Darknet's .000001f for PyTorch's eps moves it under the root: sqrt(1e-6) is 1e-3, a thousand times "
        "more where the variance is 0.",
        "OpenCV's Darknet importer; AlexeyAB between 2020-02-16 and 2020-04-30.",
    ),
    _pitfall(
        "epsilon-1e-6-outside",
        Epsilon(1e-6, inside=False),
        "Epsilon 1e-6 outside, as pjreddie has it",
        "The formula of 2018 on a model trained with today's AlexeyAB. A channel that died in training, with "
        "variance 0 or a denormal, is divided by 1e-6 instead of 3.2e-3: 3000 times too large. A face detector of "
        "100 kB then sees 96 faces on a photograph that has one.",
        "pjreddie's Darknet as Debian packages it; every port that was proved against it.",
    ),
    _pitfall(
        "epsilon-1e-3",
        Epsilon(1e-3, inside=True),
        "Epsilon 1e-3, as Keras has it",
        "Keras' BatchNormalization adds 1e-3 under the root. That is visible in every normalised layer, and in "
        "boxes by hundredths of a pixel.",
        "tf.keras.layers.BatchNormalization by default, and ports from it.",
        "The first normalised layer, by up to half its spread. Boxes move by a few hundredths of a pixel to a tenth, "
        "probabilities by half a percent; nothing is lost.",
    ),
    _pitfall(
        "epsilon-none",
        Epsilon(0.0, inside=True),
        "No epsilon at all",
        "scale / sqrt(variance), in a hand-written folding. Invisible on healthy variances; a channel with variance 0 "
        "becomes infinite or NaN, a negative one (-7e-44 exists in real files) NaN, and NaN eats the whole network.",
        "Hand-written folding scripts.",
        "Nothing above the noise while all variances exceed 0.01. With one variance of 0: NaN or Inf from that "
        "layer on, and no box is left.",
    ),
)

TRICK = Pitfall(
    name="variance-trick",
    title="The variance trick in float32",
    text="To make PyTorch's formula give Darknet's, a published recipe stores (sqrt(v) + 1e-6)^2 - 1e-5 and keeps "
    "eps=1e-5. Exact on paper, and at the level of noise on yolov3-tiny. It breaks below v = 1e-5: the stored "
    "variance is negative, which some runtimes refuse; and 1e-5 - 1e-12 has no bits left in float32, so that "
    "for v = 0 the root of about 9e-13 is taken instead of 1e-12, or of 0. For a model of AlexeyAB's dialect, "
    "which adds 1e-5 anyway, it is the wrong formula.",
    looks_like="Nothing above the noise on healthy variances. The first layer with a variance below 1e-9 is off by "
    "percents, up to division by zero.",
    seen_in="Published conversion recipes.",
    fix="bn.eps = 0.0\nbn.running_var = (running_var.clamp(min=0).sqrt() + 1e-6) ** 2   # nothing to cancel",
    stage="weights",
    apply=apply_trick,
    idle=idle_with(None),
)

PITFALLS = (*EPSILONS, TRICK)
