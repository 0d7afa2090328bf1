"""What was proved about a model, gate by gate: the value that an exporter asks for.

A Certificate speaks of one model (sha256 of cfg and weights, dialect) and of one ONNX graph (sha256 of its bytes): a
file that would differ from the proved one in a single weight is not covered by it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from workbench.comparison import LayerDifference, PictureComparison
from workbench.errors import NotProved
from workbench.model import Model
from workbench.onnx_model import OnnxOptions


@dataclass(frozen=True)
class Gate:
    """One condition. worst: the number measured, limit: the largest that passes, where: what it was measured at.

    A gate that cannot be measured has passed=False and says why in `detail`; one that does not apply is left out.
    """

    name: str
    passed: bool
    worst: float | None = None
    limit: float | None = None
    where: str = ""
    detail: str = ""

    def __str__(self) -> str:
        numbers = (
            f" {self.worst:.3g} (limit {self.limit:g})" if self.worst is not None and self.limit is not None else ""
        )
        return f"{'passed' if self.passed else 'FAILED'}  {self.name}:{numbers} {self.where} {self.detail}".rstrip()


@dataclass(frozen=True)
class Certificate:
    """The gates of one validation, and the identity of what passed them."""

    source: str
    cfg_sha256: str
    weights_sha256: str
    dialect: str
    epsilon: str
    reference: str
    options: OnnxOptions
    graph_sha256: str
    gates: tuple[Gate, ...]
    remarks: tuple[str, ...] = ()
    layers: tuple[LayerDifference, ...] = ()
    """Each layer alone, fed with what the reference fed into it."""
    network: tuple[LayerDifference, ...] = ()
    """The same layers as the network runs, one after the other."""
    pictures: tuple[PictureComparison, ...] = field(default=(), repr=False)
    versions: Mapping[str, str] = field(default_factory=dict)
    pipeline: str = ""
    """`pipeline(model)`: what no file holds. Empty says nothing about it."""

    @property
    def passed(self) -> bool:
        """True where every gate is green and there was at least one."""
        return bool(self.gates) and all(gate.passed for gate in self.gates)

    @property
    def failed(self) -> tuple[Gate, ...]:
        """The gates that did not pass."""
        return tuple(gate for gate in self.gates if not gate.passed)

    def require(self, model: Model, graph_sha256: str | None = None) -> None:
        """Raise NotProved unless this certificate is green and speaks of `model` (and of that ONNX graph)."""
        for gate in self.failed:
            raise NotProved(
                self.source,
                f"gate `{gate.name}` failed",
                expected=_limit(gate),
                found=_worst(gate),
                cause=_place(gate),
                next_step="Nothing was written; --unvalidated exports all the same and says so in the file.",
            )
        if not self.gates:
            raise NotProved(self.source, "no gate was measured")
        told = (self.cfg_sha256, self.weights_sha256, self.dialect, self.epsilon)
        if told != identity(model):
            raise NotProved(
                self.source,
                "the certificate speaks of another model or dialect",
                expected=identity(model)[2:],
                found=told[2:],
            )
        if self.pipeline not in ("", pipeline(model)):
            raise NotProved(
                self.source,
                "the certificate speaks of another model",
                cause="A layer, the input size, the preprocessing or the suppression was changed since.",
                next_step="Validate the model as it is now.",
            )
        if graph_sha256 not in (None, self.graph_sha256):
            raise NotProved(
                self.source,
                "the certificate speaks of another ONNX graph",
                expected=self.graph_sha256,
                found=graph_sha256,
            )

    def to_json(self) -> dict[str, Any]:
        """The documented form: passed, dialect, reference, gates[], layers[], network[], detections, and identities."""
        return {
            "passed": self.passed,
            "source": self.source,
            "dialect": self.dialect,
            "epsilon": self.epsilon,
            "reference": self.reference,
            "cfg_sha256": self.cfg_sha256,
            "weights_sha256": self.weights_sha256,
            "graph_sha256": self.graph_sha256,
            "options": asdict(self.options),
            "gates": [_gate_json(gate) for gate in self.gates],
            "remarks": list(self.remarks),
            "layers": [_layer_json(row) for row in self.layers],
            "network": [_layer_json(row) for row in self.network],
            "detections": [_picture_json(row) for row in self.pictures],
            "versions": dict(self.versions),
        }

    def summary(self) -> str:
        """A short JSON text for a file's metadata: identity and gates, without layers and boxes."""
        full = self.to_json()
        keys = (
            "passed",
            "dialect",
            "epsilon",
            "reference",
            "cfg_sha256",
            "weights_sha256",
            "gates",
            "remarks",
            "versions",
        )
        return json.dumps({key: full[key] for key in keys}, separators=(",", ":"))


def identity(model: Model) -> tuple[str, str, str, str]:
    """sha256 of cfg and weights, dialect and its epsilon."""
    return model.cfg_sha256, model.weights.sha256, model.dialect.name, str(model.dialect.epsilon)


def pipeline(model: Model) -> str:
    """sha256 of the layers' options and shapes, the preprocessing and the suppression: what can change in memory."""
    told = repr((model.network.layers, model.preprocessing, model.nms))
    return hashlib.sha256(told.encode()).hexdigest()


def _gate_json(gate: Gate) -> dict[str, Any]:
    return {
        "name": gate.name,
        "passed": gate.passed,
        "worst": gate.worst,
        "limit": gate.limit,
        "where": gate.where,
        "detail": gate.detail,
    }


def _layer_json(row: LayerDifference) -> dict[str, Any]:
    return {
        "index": row.index,
        "type": row.kind,
        "line": row.line,
        "max_abs": row.max_abs,
        "max_over_std": row.max_over_std,
        "rms_over_std": row.rms_over_std,
        "at": list(row.at),
    }


def _picture_json(row: PictureComparison) -> dict[str, Any]:
    return {
        "picture": row.picture,
        "thresh": row.thresh,
        "reference": len(row.reference),
        "candidate": len(row.candidate),
        "max_offset_px": row.match.max_offset_px,
        "max_dscore": row.match.max_dscore,
        "only_reference": len(row.match.only_reference),
        "only_candidate": len(row.match.only_candidate),
    }


def _place(gate: Gate) -> str | None:
    told = "; ".join(part.rstrip(".") for part in (gate.where, gate.detail) if part)
    return f"{told}." if told else None


def _limit(gate: Gate) -> str | None:
    return f"at most {gate.limit:g}" if gate.limit is not None else None


def _worst(gate: Gate) -> str | None:
    return f"{gate.worst:.3g}" if gate.worst is not None else None
