"""`[route_lhalf]`: the first half of the channels of each layer in `layers=`, one after the other. No tensors.

No fork of Darknet on the public record reads this section: it stands in WongKinYiu's own yolov4-tiny.cfg, and his
PyTorch_YOLOv4 (models.py `FeatureConcat_l`) takes channels 0 to c/2 ("lhalf" is the left, lower half).
It equals `[route]` with `groups=2 group_id=0`; AlexeyAB's yolov4-tiny.cfg says `group_id=1`, the *other* half, so
weights of one do not work with the cfg of the other. PyTorch: slices and `cat`. ONNX: `Slice`, `Concat`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from workbench.layers.base import Context
from workbench.layers.route import Route


@dataclass(frozen=True, kw_only=True)
class RouteLhalf(Route):
    """A route of first halves."""

    kinds: ClassVar[tuple[str, ...]] = ("route_lhalf",)

    @classmethod
    def parse(cls, context: Context) -> RouteLhalf:
        return cls(**cls.joined(context, groups=2, group_id=0))
