"""What every exported file says about itself: dialect, classes, anchors, preprocessing, sources, what was proved."""

from __future__ import annotations

import json
from typing import Any

from workbench.certificate import Certificate
from workbench.model import Model

UNVALIDATED = "none: exported with --unvalidated, nothing was proved"


def describe(model: Model, certificate: Certificate | None) -> dict[str, str]:
    """Key -> text, for ONNX `metadata_props` and safetensors metadata; structured values are JSON."""
    facts: dict[str, Any] = {
        "names": list(model.names),
        "darknet.heads": [_head(head) for head in model.network.heads],
        "darknet.preprocessing": preprocessing(model),
        "darknet.detect": {
            "thresh": model.thresh,
            "nms": model.nms.kind,
            "nms_thresh": model.nms.thresh,
            "beta_nms": model.nms.beta,
        },
    }
    return {
        "darknet.dialect": model.dialect.name,
        "darknet.epsilon": str(model.dialect.epsilon),
        "darknet.cfg": model.network.cfg.source,
        "darknet.cfg_sha256": model.cfg_sha256,
        "darknet.weights_sha256": model.weights.sha256,
        "darknet.certificate": certificate.summary() if certificate else UNVALIDATED,
        **{key: json.dumps(value, separators=(",", ":")) for key, value in facts.items()},
    }


def preprocessing(model: Model) -> dict[str, Any]:
    """How a picture becomes the input, in words a consumer can follow."""
    net = model.preprocessing
    return {
        "width": net.width,
        "height": net.height,
        "channels": net.channels,
        "layout": "NCHW",
        "colour": "RGB" if net.channels == 3 else "as decoded",
        "scale": "value / 255",
        "resize": "bilinear, corners aligned, no antialiasing (Darknet resize_image)",
        "fit": "letterbox: aspect ratio kept, centred, filled with 0.5" if net.letterbox else "stretch",
    }


def _head(head: Any) -> dict[str, Any]:
    keys = ("classes", "anchors", "mask", "scale_x_y", "new_coords", "softmax")
    told = {key: getattr(head, key) for key in keys if hasattr(head, key)}
    return {"layer": head.index, "type": head.kind, "anchor_unit": head.anchor_unit, **told}
