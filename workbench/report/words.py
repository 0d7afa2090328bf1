"""What gates and engines mean, in a plain sentence each, for readers who were not there."""

from __future__ import annotations

GATES = {
    "reference": "An engine that is not ours runs the model, so that there is something to compare with.",
    "ledger": "Every byte of the weights file belongs to a tensor, and every value is a number a network can use.",
    "layers": "Each layer of the PyTorch model, fed what the reference fed it, puts out what the reference puts out.",
    "network": "All layers in a row stay as close as rounding allows; the difference is taken over all values.",
    "heads": "The layers that boxes are read from agree in absolute terms.",
    "same boxes": "On every picture both engines find the same objects: none is lost, none is added.",
    "box positions": "No edge or centre of a box lies elsewhere.",
    "probabilities": "Every box carries the same probability.",
    "folded": "Folding batch normalisation into the convolutions, as the ONNX file does, changes no layer.",
    "onnx checker": "The ONNX file obeys the standard, and its shapes are the ones that the cfg promises.",
    "onnxruntime": "ONNX Runtime computes from the file what PyTorch computes, at other sizes and batches too.",
    "two roads": "Two independent ways from the model to ONNX arrive at the same numbers.",
}
STEPS = {
    "the ledger": "ledger", "every layer": "layers", "the whole network": "network", "heads": "heads",
    "detections": "same boxes", "folding": "folded",
    "the ONNX checker": "onnx checker", "ONNX Runtime": "onnxruntime", "the traced road": "two roads",
}  # fmt: skip
"""A step whose engine broke down becomes a failed gate with the name of the step."""

REFERENCES = {
    "darknet": "pjreddie’s Darknet of 2018, the C library itself, as Debian packages it",
    "opencv": "OpenCV’s own importer of Darknet models (cv2.dnn.readNetFromDarknet)",
    "none": "no engine could run this model truthfully",
}


def meaning(gate: str) -> str:
    """What it means that this gate is passed; empty for a gate that nobody has described."""
    return GATES.get(STEPS.get(gate, gate), "")
