"""What strangers send when they do not send a model: arrays that they dumped, what they feed, their boxes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.detections import Detections, match
from workbench.diagnosis.attempt import as_input
from workbench.diagnosis.evidence import Evidence, Precision, coarsest, make_values
from workbench.diagnosis.layouts import Array
from workbench.errors import OptionError
from workbench.layers.base import Float32
from workbench.model import Model
from workbench.runners.torch import TorchRunner

Pictures = Mapping[str, NDArray[np.uint8]]
LARGEST_JSON_BYTES = 256 << 20


def read_arrays(path: str | Path) -> list[tuple[str, Array]]:
    """The arrays of an .npz in the order of the file, or of an .npy; raises OptionError where it is neither."""
    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return [(Path(path).stem, found)]
        with found:
            return [(name, found[name]) for name in found.files]
    except (OSError, ValueError, EOFError, KeyError) as error:
        raise OptionError(
            str(path), "cannot be read as arrays", expected=".npz or .npy without objects", found=str(error)
        ) from error


def read_input(path: str | Path, model: Model) -> Float32:
    """The tensor that they feed, as (1, c, h, w); raises OptionError where it does not fit the network."""
    array = read_arrays(path)[0][1]
    x = as_input(np.asarray(array, np.float32), model)
    if x is None:
        network = model.network
        raise OptionError(
            str(path), "does not fit the network", expected=(1, network.channels, network.height, network.width),
            found=array.shape,
        )  # fmt: skip
    return x


class ForeignLayers:
    """Their intermediate outputs for one picture, in the order of computing. inputs: what they fed, if known."""

    def __init__(self, path: str | Path, inputs: Mapping[str, Float32] | None = None) -> None:
        self.path, self.inputs = Path(path), dict(inputs or {})
        self.values = make_values([(name, array, False) for name, array in read_arrays(path)])
        if not self.values:
            raise OptionError(str(path), "holds no array of floating point numbers")

    def size(self) -> tuple[int, int] | None:
        """Not told by arrays."""
        return None

    def evidence(self, model: Model, pictures: Pictures) -> list[Evidence]:
        """The arrays belong to the first picture."""
        name, picture = _first(pictures, str(self.path))
        precision = coarsest([_majority([value.precision for value in self.values])])
        return [Evidence(name, picture, self.inputs.get(name), False, self.values, None, precision)]


class ForeignInput:
    """Nothing but the tensor that they feed, for each picture."""

    def __init__(self, inputs: Mapping[str, Float32]) -> None:
        self.inputs = dict(inputs)

    def size(self) -> tuple[int, int] | None:
        """That of the tensor, which was checked when it was read."""
        return None

    def evidence(self, model: Model, pictures: Pictures) -> list[Evidence]:
        """One for each picture with an input."""
        return [Evidence(name, picture, self.inputs[name]) for name, picture in pictures.items() if name in self.inputs]


def _first(pictures: Pictures, where: str) -> tuple[str, NDArray[np.uint8]]:
    if not pictures:
        raise OptionError(
            where, "needs the picture that the numbers were computed for", next_step="Give it with --image."
        )
    return next(iter(pictures.items()))


def _majority(precisions: list[Precision]) -> Precision:
    """float16 or 8 bits where most arrays show it: one rounded array is an accident."""
    common = max(set(precisions), key=precisions.count)
    return common if precisions.count(common) > len(precisions) // 2 else "float32"


# ------------------------------------------------------------------------------------------ boxes

Numbers = NDArray[np.float64]
FORMATS: dict[str, Callable[[Numbers], Numbers]] = {
    "centre and size": lambda b: b,
    "corners": lambda b: np.concatenate([(b[:, :2] + b[:, 2:]) / 2, b[:, 2:] - b[:, :2]], 1),
    "upper left corner and size": lambda b: np.concatenate([b[:, :2] + b[:, 2:] / 2, b[:, 2:]], 1),
}
KEYS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("x1", "y1", "x2", "y2"), ("corners",)),
    (("left", "top", "right", "bottom"), ("corners",)),
    (("xmin", "ymin", "xmax", "ymax"), ("corners",)),
    (("cx", "cy", "w", "h"), ("centre and size",)),
    (("x", "y", "w", "h"), ("centre and size", "upper left corner and size")),
    (("x", "y", "width", "height"), ("centre and size", "upper left corner and size")),
)
LARGEST_RELATIVE = 2.0


class ForeignBoxes:
    """Their final boxes: JSON as `workbench detect --json` writes it, or {picture: [row, ...]}.

    A row has a score (score, confidence, probability), a class (class, category_id, class_id, label: number or name)
    and a box: four numbers under x, y, w, h; x1, y1, x2, y2; or one list under box or bbox, in pixels or relative.
    Which of the readings is meant is decided by what overlaps our own boxes most.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.rows = _read_rows(self.path)

    def size(self) -> tuple[int, int] | None:
        """Not told by boxes."""
        return None

    def evidence(self, model: Model, pictures: Pictures) -> list[Evidence]:
        """One for each picture that both know, by file name."""
        rows = {Path(name).stem: found for name, found in self.rows.items()}
        pairs = [
            (name, picture, rows[Path(name).stem]) for name, picture in pictures.items() if Path(name).stem in rows
        ]
        if not pairs and len(pictures) == len(self.rows) == 1:
            pairs = [(*next(iter(pictures.items())), next(iter(self.rows.values())))]
        if not pairs:
            raise OptionError(
                str(self.path), "names none of the pictures", expected=", ".join(pictures), found=", ".join(self.rows)
            )
        readings = _readings([row for *_, found in pairs for row in found])
        best = max(
            readings,
            key=lambda reading: sum(_overlap(model, p, _detections(model, p, r, reading)) for _, p, r in pairs[:3]),
        )
        remark = (
            f"boxes were read as {best[0]}{', relative to the picture' if best[1] else ', in pixels of the picture'}"
        )
        return [
            Evidence(n, p, None, False, (), _detections(model, p, r, best), "float32", (remark,)) for n, p, r in pairs
        ]


def _read_rows(path: Path) -> dict[str, list[dict[str, Any]]]:
    try:
        if path.stat().st_size > LARGEST_JSON_BYTES:
            raise OptionError(str(path), "is too large for a list of boxes")
        data = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise OptionError(str(path), "cannot be read as JSON", found=str(error)) from error
    if isinstance(data, list) and all(isinstance(item, dict) and "detections" in item for item in data):
        data = {str(item.get("picture", number)): item["detections"] for number, item in enumerate(data)}
    if isinstance(data, list):
        data = {"picture": data}
    if not isinstance(data, dict) or not all(isinstance(rows, list) for rows in data.values()):
        raise OptionError(
            str(path), "is no list of boxes", expected="{picture: [row, ...]}, or what `workbench detect --json` prints"
        )
    return {str(name): [_as_dict(row, str(path)) for row in rows] for name, rows in data.items()}


def _as_dict(row: Any, where: str) -> dict[str, Any]:
    """score, class, box and the formats it may have."""
    if isinstance(row, list) and len(row) >= 6:
        row = {"box": row[:4], "score": row[4], "class": row[5]}
    if not isinstance(row, dict):
        raise OptionError(where, "holds a row that is no box", found=str(row)[:80])
    score = next((row[key] for key in ("score", "confidence", "probability", "prob") if key in row), None)
    label = next((row[key] for key in ("class", "class_id", "category_id", "label", "name") if key in row), None)
    keys = next((pair for pair in KEYS if all(key in row for key in pair[0])), None)
    listed: Any = row.get("box", row.get("bbox"))
    try:
        box = [float(row[key]) for key in keys[0]] if keys else [float(v) for v in listed]
        if len(box) != 4 or score is None or label is None:
            raise TypeError("a score, a class and four numbers are needed")
        return {"box": box, "score": float(score), "class": label, "formats": keys[1] if keys else tuple(FORMATS)}
    except (TypeError, ValueError) as error:
        raise OptionError(where, "holds a row that is no box", found=str(row)[:80], cause=str(error)) from error


def _readings(rows: list[dict[str, Any]]) -> list[tuple[str, bool]]:
    formats = rows[0]["formats"] if rows else ("centre and size",)
    relative = bool(rows) and max(abs(v) for row in rows for v in row["box"]) <= LARGEST_RELATIVE
    return [(name, relative) for name in formats]


def _detections(
    model: Model, picture: NDArray[np.uint8], rows: list[dict[str, Any]], reading: tuple[str, bool]
) -> Detections:
    if not rows:
        return Detections(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int64))
    boxes = FORMATS[reading[0]](np.array([row["box"] for row in rows], np.float64))
    if reading[1]:
        boxes = boxes * np.array([picture.shape[1], picture.shape[0]] * 2)
    classes = np.array([_class_number(model, row["class"]) for row in rows])
    return Detections(boxes.astype(np.float32), np.array([row["score"] for row in rows], np.float32), classes)


def _class_number(model: Model, label: Any) -> int:
    if isinstance(label, str) and label in model.names:
        return model.names.index(label)
    try:
        return int(label)
    except (TypeError, ValueError):
        raise OptionError(
            "boxes", "name an unknown class", expected="a number, or a name from --names", found=str(label)
        ) from None


def _overlap(model: Model, picture: NDArray[np.uint8], theirs: Detections) -> float:
    """How well boxes lie on ours, whatever their class."""
    ours = TorchRunner(model).detect(picture, min(model.thresh, float(theirs.scores.min(initial=1.0))))
    plain = [replace(boxes, classes=np.zeros(len(boxes), np.int64)) for boxes in (ours, theirs)]
    return float(match(plain[0], plain[1], 0.3).pairs.iou.sum())
