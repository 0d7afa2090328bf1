"""What `workbench inspect` tells: the network, the byte ledger and the state of a file, without torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from workbench.cfg import Note, read_cfg
from workbench.dialects import Dialect, find_dialect, infer_dialect
from workbench.network import Network, build_network
from workbench.weights import Finding, Ledger, Weights, build_ledger, open_weights


@dataclass(frozen=True)
class Inspection:
    """A network, its ledger, and the weights where a file was given."""

    network: Network
    dialect: Dialect
    reasons: tuple[Note, ...]
    ledger: Ledger
    weights: Weights | None
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> bool:
        """True where a finding makes the file unusable."""
        return any(finding.level == "error" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """The documented form: header, layers[] with tensors[], bytes, unread_bytes, and what was found."""
        header = self.weights.header if self.weights else None
        net = self.network.net
        return {
            "cfg": self.network.cfg.source,
            "dialect": self.dialect.name,
            "net": {"width": net.width, "height": net.height, "channels": net.channels},
            "header": {**asdict(header), "bytes": header.size, "transposed": header.transposed} if header else None,
            "layers": [self._layer(index) for index in range(len(self.network.layers))],
            "bytes": self.ledger.bytes,
            "file_bytes": self.weights.size if self.weights else None,
            "unread_bytes": self.weights.unread_bytes if self.weights else None,
            "findings": [asdict(finding) for finding in self.findings],
            "notes": [str(note) for note in self.network.notes],
        }

    def _layer(self, index: int) -> dict[str, Any]:
        layer = self.network.layers[index]
        spans = self.ledger.by_layer.get(index, ())
        tensors = [{"field": s.field, "start": s.start, "stop": s.stop, "shape": list(s.shape)} for s in spans]
        return {
            "index": index,
            "type": layer.kind,
            "line": layer.line,
            "inputs": list(layer.inputs),
            "output_shape": list(layer.output_shape),
            "tensors": tensors,
        }


def inspect_model(cfg: str | Path, weights: str | Path | None = None, dialect: str | None = None) -> Inspection:
    """Read the cfg, lay the ledger over the file, and look at every value; raises CfgError and WeightsError."""
    network = build_network(read_cfg(cfg))
    chosen, reasons = (find_dialect(dialect), ()) if dialect else infer_dialect(network.cfg)
    if weights is None:
        return Inspection(network, chosen, reasons, build_ledger(network, chosen), None, ())
    mapped = open_weights(network, weights, chosen)
    return Inspection(network, chosen, reasons, mapped.ledger, mapped, tuple(mapped.findings()))
