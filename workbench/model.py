"""The one value that everything passes on: network, weights, dialect, preprocessing and decoding together.

A Model is immutable. Another dialect, another size, a mistake made on purpose or its repair are functions
Model -> Model, so that nothing that runs, compares or exports needs a flag for them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from workbench.cfg import Cfg, Note, parse_cfg, read_cfg
from workbench.detections import Candidates, Detections, Nms, select, suppress
from workbench.dialects import Dialect, find_dialect, infer_dialect
from workbench.errors import OptionError, RunnerFailed, WeightsError
from workbench.files import is_endless
from workbench.image import Placement, Preprocessing
from workbench.layers.base import Float32
from workbench.layers.yolo import Yolo
from workbench.network import Network, build_network
from workbench.weights import Weights, build_ledger, open_weights

LARGEST_NAMES_BYTES = 4 << 20
MOST_BOXES, MOST_SCORES = 30_000, 1_000_000
"""Before suppression. yolov4 at 608x608 has 22743 boxes in all; a picture leaves some hundreds of them."""


@dataclass(frozen=True)
class Model:
    """A Darknet model that can be run, compared and exported. `reasons` say why the dialect is the one it is."""

    network: Network
    weights: Weights
    dialect: Dialect
    names: tuple[str, ...]
    preprocessing: Preprocessing
    nms: Nms
    reasons: tuple[Note, ...] = ()

    @property
    def thresh(self) -> float:
        """The dialect's own threshold for showing a detection."""
        return self.dialect.thresh

    @property
    def cfg_text(self) -> str:
        """The text of the cfg."""
        return self.network.cfg.text

    @property
    def notes(self) -> tuple[Note, ...]:
        """Everything worth saying about the cfg."""
        return self.network.notes

    @cached_property
    def cfg_sha256(self) -> str:
        """Of the cfg's text in UTF-8, with LF line ends."""
        return hashlib.sha256(self.cfg_text.replace("\r\n", "\n").encode()).hexdigest()

    def name_of(self, class_id: int) -> str:
        """The class name, or its number where no names were given."""
        return self.names[class_id] if class_id < len(self.names) else str(class_id)

    def candidates(self, outputs: Mapping[int, Float32], thresh: float) -> Candidates:
        """Boxes of all heads before suppression; `outputs` maps a head's index to its output (c, h, w)."""
        net = self.preprocessing
        with np.errstate(over="ignore", invalid="ignore"):  # an untrained network answers inf and NaN
            parts = [
                Candidates(*head.decode(outputs[head.index], net.width, net.height, thresh, self.dialect))
                for head in self.network.heads
            ]
        if not parts:
            raise OptionError(self.network.cfg.source, "has no head that makes boxes", expected="[yolo] or [region]")
        return Candidates.concatenate(parts)

    def detections(self, outputs: Mapping[int, Float32], placement: Placement, thresh: float) -> Detections:
        """Boxes in pixels of the picture, after suppression, each with a probability above `thresh`.

        Raises RunnerFailed where an output is no number, or where so many boxes are left that suppressing them would
        take minutes: both are the mark of weights that do not belong to the cfg.
        """
        for head in self.network.heads:
            _require_numbers(outputs[head.index], f"{self.network.cfg.source}:{head.line}", head.index)
        candidates = self.candidates(outputs, thresh)
        _require_few(candidates, self.network.cfg.source, thresh)
        with np.errstate(over="ignore", invalid="ignore"):
            return select(suppress(candidates, self.nms), placement, thresh)

    def with_dialect(self, dialect: Dialect | str) -> Model:
        """The same model as another fork computes it."""
        dialect = find_dialect(dialect) if isinstance(dialect, str) else dialect
        network = build_network(self.network.cfg, self.network.width, self.network.height, dialect)
        ledger = build_ledger(network, dialect, self.weights.header.size, self.weights.header.transposed)
        return replace(
            self,
            network=network,
            dialect=dialect,
            weights=replace(self.weights, ledger=ledger),
            nms=_nms(network, dialect),
            preprocessing=_preprocessing(network, dialect),
            reasons=(Note("dialect", "asked for"),),
        )

    def at_size(self, width: int, height: int) -> Model:
        """The same model with another input size; raises OptionError where its layers depend on the size."""
        if (width, height) == (self.network.width, self.network.height):
            return self
        network = build_network(self.network.cfg, width, height, self.dialect)
        if not network.any_size:
            raise OptionError(
                self.network.cfg.source,
                "works at one size only",
                expected=f"{self.network.width}x{self.network.height}",
                found=f"{width}x{height}",
            )
        return replace(self, network=network, preprocessing=_preprocessing(network, self.dialect))


def open_model(
    cfg: str | Path,
    weights: str | Path,
    *,
    dialect: Dialect | str | None = None,
    names: str | Path | None = None,
    size: tuple[int, int] | None = None,
) -> Model:
    """Open a cfg and its weights.

    dialect: "pjreddie", "alexeyab", "hankai" or a Dialect; inferred from the cfg where None, with `Model.reasons`.
    names: a file with one class name a line; where None, a `.names` file with the cfg's or the weights' own name.
    size: width and height of the input, those of the cfg where None.
    Raises CfgError, WeightsError (also where the file is too short or too long for the cfg) and OptionError.
    """
    text = read_cfg(cfg)
    chosen, reasons = _choose_dialect(text, dialect)
    width, height = size or (None, None)
    network = build_network(text, width, height, chosen)
    mapped = open_weights(network, weights, chosen)
    for finding in mapped.structure():
        raise WeightsError(finding.where, finding.problem, cause=finding.cause)
    return Model(
        network,
        mapped,
        chosen,
        read_names(names, Path(cfg), Path(weights)),
        _preprocessing(network, chosen),
        _nms(network, chosen),
        reasons,
    )


def model_from(cfg_text: str, weights: Weights, dialect: Dialect, names: tuple[str, ...], source: str = "cfg") -> Model:
    """A Model from values in memory, for checkpoints and training scripts."""
    network = build_network(parse_cfg(cfg_text, source), dialect=dialect)
    return Model(network, weights, dialect, names, _preprocessing(network, dialect), _nms(network, dialect))


def read_names(names: str | Path | None, cfg: Path, weights: Path) -> tuple[str, ...]:
    """Class names, one a line; from the file given, or from one that lies beside the cfg or the weights."""
    beside = [path.with_suffix(".names") for path in (cfg, weights)]
    path = Path(names) if names else next((path for path in beside if os.path.isfile(path)), None)
    if path is None:
        return ()
    if is_endless(path):
        raise OptionError(str(path), "is not a regular file", expected="text on disk", found="a device or pipe")
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_NAMES_BYTES + 1)
    except OSError as error:
        raise OptionError(str(path), "cannot read the class names", found=error.strerror) from error
    if len(data) > LARGEST_NAMES_BYTES or b"\0" in data:
        raise OptionError(str(path), "is no list of class names", expected="text, one name a line")
    lines = data.decode("utf-8", errors="replace").splitlines()
    return tuple(line.strip() for line in lines if line.strip())


def _require_numbers(output: Float32, where: str, index: int) -> None:
    bad = output.size - int(np.count_nonzero(np.isfinite(output)))
    if bad:
        raise RunnerFailed(
            where,
            f"head {index} puts out values that are no finite numbers",
            expected=f"{output.size} numbers",
            found=f"{bad} NaN or infinite ones",
            cause="Weights of another cfg, a damaged file, or a network that is not trained.",
            next_step="`workbench inspect` with the weights tells what is in the file.",
        )


def _require_few(candidates: Candidates, where: str, thresh: float) -> None:
    scored = candidates.probabilities > 0
    boxes, pairs = int(np.count_nonzero(scored.any(axis=1))), int(np.count_nonzero(scored))
    if boxes > MOST_BOXES or pairs > MOST_SCORES:
        raise RunnerFailed(
            where,
            f"{boxes} boxes with {pairs} probabilities are above {thresh:g}",
            expected=f"at most {MOST_BOXES} and {MOST_SCORES}",
            cause="Weights of another cfg, or a network that is not trained, see objects everywhere.",
            next_step="Try a higher threshold.",
        )


def _choose_dialect(cfg: Cfg, dialect: Dialect | str | None) -> tuple[Dialect, tuple[Note, ...]]:
    if dialect is None:
        return infer_dialect(cfg)
    return (find_dialect(dialect) if isinstance(dialect, str) else dialect), (Note("dialect", "asked for"),)


def _preprocessing(network: Network, dialect: Dialect) -> Preprocessing:
    stretches = any(head.stretches for head in network.heads)
    letterbox = (dialect.letterbox and not stretches) or network.net.letter_box
    return Preprocessing(network.width, network.height, network.channels, letterbox)


def _nms(network: Network, dialect: Dialect) -> Nms:
    """Darknet takes `nms_kind` from the last head; pjreddie's knows do_nms_sort alone."""
    last = next((head for head in reversed(network.heads) if isinstance(head, Yolo)), None)
    kind = last.nms_kind if last and dialect.reads_nms_kind else "default"
    return Nms("sort" if kind == "default" else kind, dialect.nms_thresh, last.beta_nms if last else 0.6)
