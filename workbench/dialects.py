"""What the forks of Darknet do differently, as small named values.

A dialect is chosen by the user, or inferred from the cfg with the reasons shown; it travels with the Model into
every comparison and every export. Nothing else in the workbench knows a fork by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from workbench.cfg import Cfg, Note
from workbench.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Iterator

SMALLEST_NORMAL = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Epsilon:
    """What batch normalisation adds so as not to divide by zero, and where.

    inside: sqrt(variance + value), else sqrt(variance) + value. Measured on real builds with variances down to 1e-12:
    pjreddie CPU sqrt(v) + 1e-6 (src/blas.c `normalize_cpu`), its CUDA kernel and AlexeyAB since 2020-04-30
    sqrt(v + 1e-5), OpenCV 4 sqrt(v + 1e-6).
    """

    value: float
    inside: bool

    def denominator(self, variance: NDArray[np.float32]) -> NDArray[np.float64]:
        """float64 divisor for each channel; NaN where Darknet would compute NaN.

        Denormal variances count as zero: Darknet is built with -Ofast, which makes the processor flush them.
        """
        v = np.asarray(variance, dtype=np.float64)
        v = np.where(np.abs(v) < SMALLEST_NORMAL, 0.0, v)
        with np.errstate(invalid="ignore"):
            return np.sqrt(v + self.value) if self.inside else np.sqrt(v) + self.value

    def __str__(self) -> str:
        return f"sqrt(variance + {self.value:g})" if self.inside else f"sqrt(variance) + {self.value:g}"


@dataclass(frozen=True)
class Dialect:
    """How one fork computes, decides and stores.

    thresh, nms_thresh: what its `detector test` uses. letterbox: whether it keeps the aspect ratio of a picture
    (pjreddie examples/detector.c `test_detector` always; AlexeyAB only with `letter_box=1` or `-letter_box`).
    region_flattened: how [region] lays out its output. stores_batchnorm_biases, gates_alexeyab: what [batchnorm], [gru]
    and [lstm] look like in the file. rnn_hidden, reads_alpha_beta, reorg_extra, reads_nms_kind: which keys it reads.
    folds_xnor: whether XNOR layers take the signs of folded weights. unknown_activations: those for which it silently
    computes relu (src/activations.c `get_activation`); the workbench computes them all the same, and notes it.
    """

    name: str
    epsilon: Epsilon
    letterbox: bool
    thresh: float
    nms_thresh: float = 0.45
    region_flattened: bool = False
    stores_batchnorm_biases: bool = True
    rnn_hidden: bool = True
    reads_nms_kind: bool = True
    gates_alexeyab: bool = True
    reorg_extra: bool = False
    folds_xnor: bool = True
    reads_alpha_beta: bool = False
    unknown_activations: frozenset[str] = frozenset()
    about: str = ""

    def __str__(self) -> str:
        return self.name


PJREDDIE = Dialect(
    "pjreddie",
    Epsilon(1e-6, inside=False),
    letterbox=True,
    thresh=0.5,
    stores_batchnorm_biases=False,
    rnn_hidden=False,
    reads_nms_kind=False,
    gates_alexeyab=False,
    reorg_extra=True,
    folds_xnor=False,
    reads_alpha_beta=True,
    unknown_activations=frozenset({"mish", "swish", "relu6", "hard_mish", "gelu"}),
    about="pjreddie/darknet on the CPU, as Debian packages it",
)
ALEXEYAB = Dialect(
    "alexeyab",
    Epsilon(1e-5, inside=True),
    letterbox=False,
    thresh=0.25,
    region_flattened=True,
    about="AlexeyAB/darknet since 2020-04-30",
)
HANKAI = Dialect(
    "hankai",
    Epsilon(1e-5, inside=True),
    letterbox=False,
    thresh=0.25,
    region_flattened=True,
    about="hank-ai/darknet, which computes like AlexeyAB's",
)

DIALECTS = {dialect.name: dialect for dialect in (PJREDDIE, ALEXEYAB, HANKAI)}

ALEXEYAB_SECTIONS = {
    "scale_channels",
    "sam",
    "gaussian_yolo",
    "local_avgpool",
    "implicit",
    "contrastive",
    "reorg3d",
    "route_lhalf",
    "conv_lstm",
    "empty",
    "history",
    "batch_normalize",
}
ALEXEYAB_KEYS = {
    "scale_x_y",
    "new_coords",
    "nms_kind",
    "beta_nms",
    "iou_loss",
    "iou_normalizer",
    "cls_normalizer",
    "obj_normalizer",
    "iou_thresh",
    "max_delta",
    "group_id",
    "dilation",
    "antialiasing",
    "stride_x",
    "stride_y",
    "share_index",
    "letter_box",
    "mosaic",
    "cutmix",
    "ema_alpha",
    "weights_type",
    "maxpool_depth",
    "objectness_smooth",
    "counters_per_class",
    "assisted_excitation",
    "sgdr_cycle",
    "time_steps_skip",
    "resize",
    "uc_normalizer",
}
ALEXEYAB_ACTIVATIONS = {"mish", "swish", "relu6", "hard_mish", "gelu", "normalize_channels", "revleaky"}


def find_dialect(name: str) -> Dialect:
    """The dialect of that name; raises OptionError."""
    if name not in DIALECTS:
        raise OptionError("dialect", "unknown dialect", expected=", ".join(DIALECTS), found=repr(name))
    return DIALECTS[name]


def infer_dialect(cfg: Cfg) -> tuple[Dialect, tuple[Note, ...]]:
    """The dialect that the cfg's own keys speak, and the evidence: sections and keys only AlexeyAB's fork reads."""
    evidence = list(_alexeyab_evidence(cfg))
    if evidence:
        return ALEXEYAB, tuple(evidence[:3])
    return PJREDDIE, (Note(cfg.source, "no section, key or activation that only AlexeyAB's fork knows"),)


def _alexeyab_evidence(cfg: Cfg) -> Iterator[Note]:
    seen: set[str] = set()
    for section in (cfg.net, *cfg.sections):
        words: list[tuple[str, str | None]] = []
        if section.kind in ALEXEYAB_SECTIONS:
            words.append((f"[{section.kind}]", None))
        words += [(f"{key}=", key) for key in section.options if key in ALEXEYAB_KEYS]
        activation = section.options.get("activation")
        if activation and activation.value.lower() in ALEXEYAB_ACTIVATIONS:
            words.append((f"activation={activation.value.lower()}", "activation"))
        for word, key in words:
            if word not in seen:
                seen.add(word)
                yield Note(section.where(key), f"{word} is read by AlexeyAB's fork only")
