"""Pitfalls of suppressing overlapping boxes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from workbench.model import Model
from workbench.pitfalls.base import Idle, Pitfall

NMS_FIX = "keep = torchvision.ops.batched_nms(boxes, scores, classes, iou_threshold=0.45)   # per class"


def _set(**values: Any) -> Callable[[Model], Model]:
    return lambda model: replace(model, nms=replace(model.nms, **values))


def _idle(reason: str, **values: Any) -> Idle:
    return lambda model: reason if replace(model.nms, **values) == model.nms else None


def _pitfall(name: str, title: str, text: str, looks_like: str, seen_in: str, reason: str, **values: Any) -> Pitfall:
    idle = _idle(reason, **values)
    return Pitfall(name, title, text, looks_like, seen_in, NMS_FIX, "suppression", _set(**values), idle)


PITFALLS = (
    _pitfall(
        "nms-missing",
        "No suppression",
        "Neighbouring cells and anchors find one object several times; without suppression all of them are reported.",
        "No layer differs. All true boxes are there, exact, and around each one to a dozen more of the same class.",
        "Exports that end before NMS, when nobody adds it.",
        "this model suppresses nothing",
        kind="none",
    ),
    _pitfall(
        "nms-across-classes",
        "Suppression across classes",
        "Darknet lets boxes compete within their class. With all boxes in one list the one with the higher "
        "objectness silences those of other classes: a rider loses the horse.",
        "No layer differs. Of overlapping objects of different classes, and of two names for one object, one is "
        "missing; all others are exact.",
        "torchvision.ops.nms without batched_nms, cv2.dnn.NMSBoxes, Darknet's own do_nms_obj.",
        "this model suppresses across classes",
        kind="obj",
    ),
    _pitfall(
        "nms-thresh-0.7",
        "Suppression from an overlap of 0.7 on",
        "Darknet's programs suppress from 0.45 on.",
        "No layer differs. All true boxes are there, exact, and a few twins whose overlap lies between 0.45 and 0.7.",
        "ultralytics' default iou=0.7; mmdetection's RPN.",
        "this model suppresses from 0.7 on",
        thresh=0.7,
    ),
    _pitfall(
        "nms-thresh-0.2",
        "Suppression from an overlap of 0.2 on",
        "Darknet's programs suppress from 0.45 on.",
        "No layer differs. In crowds and rows neighbours of one class are missing; all others are exact.",
        "Samples tuned on a picture with one object.",
        "this model suppresses from 0.2 on",
        thresh=0.2,
    ),
    _pitfall(
        "nms-kind-ignored",
        "nms_kind of the cfg ignored",
        "YOLOv4's cfgs say nms_kind=greedynms: AlexeyAB's Darknet then subtracts from the overlap what the centres "
        "are apart. Plain IoU suppresses more.",
        "No layer differs. Of two neighbours of one class that overlap by little more than 0.45 one is missing.",
        "pjreddie's Darknet, OpenCV, every exporter with a NonMaxSuppression node.",
        "this model suppresses by plain overlap, class by class",
        kind="sort",
    ),
)
