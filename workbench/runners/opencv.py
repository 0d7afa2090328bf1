"""OpenCV's dnn module reading a Darknet cfg: a second, independent reference, installed with pip.

It knows most of AlexeyAB's layers, computes batch normalisation as no Darknet does today (sqrt(v + 1e-6)), and ignores
some options in silence: `opencv_rules.py` is the table of those.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from importlib.util import find_spec
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from workbench.detections import Detections
from workbench.dialects import Epsilon
from workbench.errors import ReferenceRefused, ToolMissing
from workbench.runners.engine import OWN_SUPPRESSION, EngineRunner, changed_layer, to_detections
from workbench.runners.opencv_rules import EXTRA, REGION_NMS_THRESH, RULES
from workbench.runners.refusals import find_refusal

if TYPE_CHECKING:
    from workbench.model import Model

DISTRIBUTIONS = ("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless", "opencv-contrib-python")
INSTALL = 'pip install "opencv-python-headless>=4.11,<5"'


def missing() -> str | None:
    """Why OpenCV cannot be used at all, or None. Asks the package's metadata: cv2 itself is never imported here."""
    if find_spec("cv2") is None:
        return f"the package cv2 is not installed; {INSTALL}"
    version = installed_version()
    if version and int(version.split(".")[0]) >= 5:
        return f"OpenCV {version} has no reader for Darknet any more; {INSTALL}"
    return None


def installed_version() -> str | None:
    """The version of whichever wheel brought cv2, or None where it came another way."""
    for name in DISTRIBUTIONS:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def refusal(model: Model) -> str | None:
    """Why OpenCV cannot run this model truthfully, naming the cfg line, or None."""
    cfg, layers = model.network.cfg, model.network.layers
    return missing() or find_refusal("OpenCV", RULES, cfg, model.dialect, layers) or changed_layer(model)


def open_runner(model: Model) -> OpenCvRunner:
    """Load the model into OpenCV; raises ToolMissing, ReferenceRefused, RunnerFailed."""
    if absent := missing():
        raise ToolMissing("opencv", absent)
    if reason := refusal(model):
        raise ReferenceRefused("opencv", reason)
    return OpenCvRunner(model)


class OpenCvRunner(EngineRunner):
    """OpenCV 4 on the CPU, without fusion and without Winograd, so that every layer can be seen."""

    name: str = "opencv"
    epsilon: Epsilon | None = Epsilon(1e-6, inside=True)
    extra: ClassVar[Mapping[str, Mapping[str, str]]] = EXTRA

    def detect(self, picture: NDArray[np.uint8], thresh: float) -> Detections:
        """Boxes in pixels of the picture (uint8 (H, W, 3) RGB): decoded and suppressed (cv2.dnn.NMSBoxes) by OpenCV.

        The picture goes in through the model's own preprocessing and comes back through its placement: OpenCV's
        blobFromImage resizes otherwise and knows no letterbox. Kinds of suppression it has not are the workbench's.
        Raises ReferenceRefused for [region] heads, unless the model suppresses as OpenCV does within them.
        """
        model = self.model
        self._check_region()
        own = model.nms.kind in OWN_SUPPRESSION
        answer = self._worker.ask(
            "detect",
            {"x": model.preprocessing.apply(picture)},
            thresh=thresh,
            nms=model.nms.kind if own else "none",
            nms_thresh=model.nms.thresh,
        )
        placement = model.preprocessing.placement(picture.shape[1], picture.shape[0])
        if not own:
            return self._suppress(answer, placement, thresh)
        rows = answer.arrays["rows"]
        return to_detections(placement.to_picture(rows[:, :4]), rows)

    def _check_region(self) -> None:
        """[region] suppresses inside OpenCV, at an overlap that no option reaches; its layers can still be compared."""
        region = next((head for head in self.model.network.heads if head.kind == "region"), None)
        if region and (self.model.nms.kind, self.model.nms.thresh) != ("sort", REGION_NMS_THRESH):
            where = f"opencv: {self.model.network.cfg.source}:{region.line}"
            raise ReferenceRefused(
                where,
                "the boxes of [region] are suppressed inside OpenCV, whatever one asks for",
                expected=f"{self.model.nms.kind} above {self.model.nms.thresh:g}",
                found=f"sort above {REGION_NMS_THRESH:g}",
                next_step="Compare its layers (run), or compare boxes with Darknet.",
            )
