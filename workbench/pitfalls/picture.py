"""Pitfalls between the picture and the network's input, and of boxes on their way back."""

from __future__ import annotations

from typing import Any

from workbench.model import Model
from workbench.pitfalls.base import Idle, Pitfall
from workbench.pitfalls.misplaced import misplace


def _never(model: Model) -> str | None:
    return None


def _grey(model: Model) -> str | None:
    return "the network sees in grey" if model.network.channels == 1 else None


def _stretched(model: Model) -> str | None:
    return None if model.preprocessing.letterbox else "this model stretches: no margin is left"


def _letterboxed(model: Model) -> str | None:
    return "this model letterboxes already" if model.preprocessing.letterbox else None


def _picture(
    name: str, title: str, text: str, looks_like: str, seen_in: str, fix: str, idle: Idle, **mistakes: Any
) -> Pitfall:
    return Pitfall(name, title, text, looks_like, seen_in, fix, "picture", misplace(**mistakes), idle)


COLOURS = (
    _picture(
        "bgr",
        "BGR for RGB",
        "OpenCV reads a picture as blue, green, red; Darknet's networks want red, green, blue.",
        "The input. Coloured objects are lost or become others, grey ones stay; scores fall, boxes move by a few "
        "pixels up to tens.",
        "cv2.imread without cvtColor; cv2.dnn.blobFromImage without swapRB=True.",
        "picture = cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB)",
        _grey,
        bgr=True,
    ),
    _picture(
        "not-divided",
        "Picture not divided by 255",
        "The network was trained on 0 to 1 and gets 0 to 255. Everything saturates; in half precision it overflows.",
        "The input, 255 times too large. Hundreds of boxes with scores near 1 where nothing is, and none of the "
        "true ones.",
        "torch.from_numpy(picture).float(); ToTensor() on an array that is float already.",
        "x = torch.from_numpy(picture).permute(2, 0, 1).float().div(255)",
        _never,
        scale=255.0,
    ),
    _picture(
        "divided-by-225",
        "Picture divided by 225",
        "A slip of the keyboard that works: the picture is 13 % too bright, and 1.13 at most.",
        "The input, times 1.133. Boxes move by about a pixel, scores by up to 0.1; a weak one is lost.",
        "Typed by hand, more than once.",
        "x = x / 255",
        _never,
        scale=255.0 / 225.0,
    ),
    _picture(
        "imagenet-normalised",
        "Mean and deviation of ImageNet",
        "torchvision's classifiers want (x - mean) / std. Darknet's detectors want plain 0 to 1.",
        "The input, from -2.1 to 2.6. Most boxes are lost, others appear.",
        "torchvision.transforms.Normalize; mmdetection's default img_norm_cfg.",
        "x = torchvision.transforms.functional.to_tensor(picture)   # and nothing after it",
        _grey,
        imagenet=True,
    ),
    _picture(
        "hwc",
        "Memory (H, W, C) taken for (C, H, W)",
        "A picture in memory is pixel after pixel. `reshape(3, h, w)` makes three small grey stripes out of it, "
        "side by side three times, instead of three colours.",
        "The input, everywhere. No true box is left.",
        "reshape or view in place of transpose or permute.",
        "x = torch.from_numpy(picture).permute(2, 0, 1)   # never .view(3, h, w)",
        _grey,
        hwc=True,
    ),
)

LETTERBOX_FIX = (
    "r = min(W / w, H / h)                            # one factor for both sides\n"
    "new_w, new_h = (W, int(h * W / w)) if W / w < H / h else (int(w * H / h), H)\n"
    "left, top = (W - new_w) // 2, (H - new_h) // 2   # the rest is 0.5\n"
    "x = (cx * W - (W - new_w) / 2) / new_w * w       # and back, with half pixels"
)

PLACES = (
    _picture(
        "stretch",
        "Stretched instead of letterboxed",
        "pjreddie's Darknet keeps the aspect ratio and pads; AlexeyAB's stretches unless told otherwise. Each model "
        "was trained for one of them. Here boxes are taken back correctly, so only the network sees another picture.",
        "The input. Boxes move by ten pixels on a picture of 768, all in the direction of the longer side; objects "
        "at the limit are lost.",
        "cv2.resize to the network's size; AlexeyAB's Darknet on a model of pjreddie's.",
        LETTERBOX_FIX,
        _stretched,
        letterbox=False,
    ),
    _picture(
        "letterbox",
        "Letterboxed instead of stretched",
        "The reverse: a model trained with AlexeyAB's Darknet gets smaller objects and grey margins. On 128 "
        "pictures of COCO that cost 0.02 of 0.23 AP.",
        "The input. Small objects are lost, others move.",
        "pjreddie's Darknet, ultralytics and most PyTorch ports, on a model of AlexeyAB's.",
        "x = F.interpolate(picture, (H, W), mode='bilinear', align_corners=True)   # no margins",
        _letterboxed,
        letterbox=True,
    ),
    _picture(
        "letterbox-corner",
        "Letterboxed into the corner",
        "Margins right and below instead of on both sides. Boxes are taken back correctly; but the grid of cells "
        "lies elsewhere on the picture, and the network sees one margin at a side where it learned two.",
        "The input, moved by half the margin. Boxes move by a few pixels either way; objects at the limit appear "
        "and vanish.",
        "mmdetection's Pad, detectron2, NCNN samples.",
        LETTERBOX_FIX,
        _stretched,
        corner=True,
    ),
    _picture(
        "letterbox-rounded",
        "Size inside the letterbox rounded",
        "Darknet cuts the size off: 416 * 333 / 500 = 277.06 and 277.9 are both 277. Rounding makes the picture a "
        "pixel larger.",
        "The input, for pictures whose size is cut off by a half or more: boxes move by one or two pixels. Others "
        "do not change at all.",
        "ultralytics' letterbox: round(w * r).",
        LETTERBOX_FIX,
        _stretched,
        rounded=True,
    ),
    _picture(
        "letterbox-tidy-margin",
        "Odd margin corrected by what it really was",
        "Darknet puts a picture at floor(margin / 2) and takes boxes back with margin / 2. Code that uses one "
        "number for both is right, and half a network pixel beside Darknet when the margin is odd.",
        "No layer differs. Where the margin is odd, all boxes move by the same part of a pixel along one axis: 0.5 "
        "/ scale.",
        "Every tidy port.",
        LETTERBOX_FIX,
        _stretched,
        tidy=True,
    ),
    _picture(
        "letterbox-fill-0",
        "Letterboxed on black",
        "Darknet's margin is 0.5. Black makes an edge where grey made none.",
        "The input, in the margins. Boxes move by half a pixel, up to two; one more or one less at the limit.",
        "cv2.copyMakeBorder and F.pad by default.",
        LETTERBOX_FIX,
        _stretched,
        fill=0.0,
    ),
    _picture(
        "letterbox-fill-114",
        "Letterboxed on 114",
        "114 / 255 = 0.447 for 0.5.",
        "The input, in the margins. Boxes move by a tenth or two of a pixel.",
        "ultralytics' letterbox.",
        LETTERBOX_FIX,
        _stretched,
        fill=114 / 255,
    ),
)

RESIZE_FIX = "x = F.interpolate(x, (new_h, new_w), mode='bilinear', align_corners=True)   # no antialias"

RESIZES = (
    _picture(
        "resize-half-pixel",
        "Resized with half pixels",
        "Darknet aligns the corners of both pictures. Nearly everybody else aligns the borders of the corner "
        "pixels, so that the content moves by up to half a pixel, most at the borders.",
        "The input, by up to a quarter of its range on edges. Boxes move by about a pixel, and one at the limit is "
        "lost.",
        "cv2.resize, torch's interpolate(align_corners=False), torchvision.",
        RESIZE_FIX,
        _never,
        resample="half-pixel",
    ),
    _picture(
        "resize-nearest",
        "Resized without interpolation",
        "The pixel at floor(i * ratio) is taken instead of a mixture of two: everything moves to the lower right by "
        "part of a pixel.",
        "The input. Boxes move to the lower right, by up to several pixels of a photograph.",
        "cv2.INTER_NEAREST, F.interpolate by default.",
        RESIZE_FIX,
        _never,
        resample="nearest",
    ),
    _picture(
        "resize-antialiased",
        "Resized with averaging",
        "Making a picture smaller, Pillow averages all pixels that a new one covers. Darknet reads two in each "
        "direction: the network was trained on sharper pictures than Pillow gives it.",
        "The input. Boxes move by one to three pixels, weak ones are lost.",
        "PIL.Image.resize, torchvision's Resize on PIL pictures or with antialias=True.",
        RESIZE_FIX,
        _never,
        resample="antialiased",
    ),
)

BACK_FIX = (
    "cx = (cx * W - (W - new_w) / 2) / new_w * w      # relative to the input -> pixels of the picture\n"
    "bw = bw * W / new_w * w"
)

BACK = (
    _picture(
        "letterbox-uncorrected",
        "Boxes not taken out of the letterbox",
        "Boxes are relative to the network's input, margins included. Multiplied by the picture's size, they are "
        "squeezed towards the middle of the padded axis.",
        "No layer differs. Boxes are right along one axis; along the other they are too small by the aspect ratio "
        "and too close to the middle.",
        "Ports made for stretched pictures; ONNX samples that scale by the picture's size.",
        BACK_FIX,
        _stretched,
        believes="stretch",
    ),
    _picture(
        "stretch-corrected-as-letterbox",
        "Stretched, but boxes corrected as for a letterbox",
        "The picture fills the whole input, and the boxes are taken back as if there were margins: pulled apart "
        "along one axis.",
        "The input, unless the model stretches anyway. Boxes are pulled away from the middle along one axis, some "
        "out of the picture.",
        "Darknet's correct_yolo_boxes(letter=1) after cv2.resize.",
        BACK_FIX,
        _never,
        letterbox=False,
        believes="letterbox",
    ),
    _picture(
        "boxes-in-network-pixels",
        "Boxes left in pixels of the network",
        "The network's 416 x 416 pixels are reported as if they were the picture's.",
        "No layer differs. All boxes are scaled towards the upper left corner by the ratio of the sizes; scores are "
        "right.",
        "Samples that draw on the resized picture.",
        BACK_FIX,
        _never,
        believes="nothing",
    ),
)

PITFALLS = (*COLOURS, *PLACES, *RESIZES, *BACK)
