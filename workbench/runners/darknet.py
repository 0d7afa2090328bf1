"""pjreddie's Darknet itself, as Debian packages it: the reference for everything that Darknet of 2018 knows.

Where it does not know a word it computes something else and leaves with exit code 0. So what it is asked is limited
twice: by a table of what it ignores (`darknet_rules.py`), and by what it printed while it read the cfg.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from workbench.detections import Detections
from workbench.dialects import Epsilon
from workbench.errors import ReferenceRefused, ToolMissing
from workbench.image import to_chw
from workbench.runners.darknet_rules import NAME, RULES, find_complaint
from workbench.runners.engine import OWN_SUPPRESSION, EngineRunner, changed_layer, to_detections
from workbench.runners.refusals import find_refusal

if TYPE_CHECKING:
    from workbench.model import Model

LIBRARY = Path("/usr/lib/darknet/libdarknet.so")


def missing() -> str | None:
    """Why the library cannot be used at all, or None."""
    return None if LIBRARY.is_file() else f"{LIBRARY} is not there; on Debian and Ubuntu: apt install darknet"


def refusal(model: Model) -> str | None:
    """Why Darknet of 2018 cannot run this model truthfully, naming the cfg line, or None."""
    cfg, layers = model.network.cfg, model.network.layers
    return missing() or find_refusal(NAME, RULES, cfg, model.dialect, layers) or changed_layer(model)


def open_runner(model: Model) -> DarknetRunner:
    """Load the model into Darknet; raises ToolMissing, ReferenceRefused, RunnerFailed."""
    if absent := missing():
        raise ToolMissing("darknet", absent)
    if reason := refusal(model):
        raise ReferenceRefused("darknet", reason)
    return DarknetRunner(model)


class DarknetRunner(EngineRunner):
    """Darknet of 2018 on the CPU. Measured: every layer of 126 networks equals its golden values to the bit."""

    name: str = "darknet"
    epsilon: Epsilon | None = Epsilon(1e-6, inside=False)

    def _load(self) -> None:
        super()._load()
        if complaint := find_complaint(self._worker.stderr()):
            raise ReferenceRefused(
                "darknet",
                f"it did not understand {self.model.network.cfg.source}",
                found=f"on its stderr: {complaint}",
                cause="It goes on regardless, and computes another network.",
            )

    def _is_comparable(self, index: int) -> bool:
        """AlexeyAB's [region] keeps x and y raw and is laid out cell by cell; 2018's activates them in place."""
        return self.model.network.layers[index].kind != "region" or not self.model.dialect.region_flattened

    def detect(self, picture: NDArray[np.uint8], thresh: float) -> Detections:
        """Boxes in pixels of the picture (uint8 (H, W, 3) RGB), resized, decoded and suppressed by Darknet itself.

        It letterboxes or stretches as the model does. With nms_kind=greedynms, diounms, … of AlexeyAB's fork, which it
        has not, the workbench suppresses (`suppression` says so).
        """
        model = self.model
        own = model.nms.kind in OWN_SUPPRESSION
        # [detection] takes the picture's size for its boxes and knows no relative ones.
        of_the_picture = any(head.stretches for head in model.network.heads)
        relative = not (of_the_picture or (own and model.preprocessing.letterbox))
        answer = self._worker.ask(
            "detect",
            {"picture": to_chw(picture, model.network.channels)},
            letterbox=model.preprocessing.letterbox,
            relative=relative,
            thresh=thresh,
            nms=model.nms.kind if own else "none",
            nms_thresh=model.nms.thresh,
            classes=model.network.heads[-1].classes,
        )
        rows = answer.arrays["rows"]
        placement = model.preprocessing.placement(picture.shape[1], picture.shape[0])
        if not own:
            return self._suppress(answer, placement, thresh)
        return to_detections(placement.to_picture(rows[:, :4]) if relative else rows[:, :4], rows)
