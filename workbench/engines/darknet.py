"""Drives libdarknet.so by ctypes, inside the child process of `runners/worker.py`; never import it elsewhere.

Only two structs are described by hand, `image` and `detection` of the packaged darknet.h: a layer's own struct is
never touched, `get_network_image_layer` gives shape and output of every layer.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping
from ctypes import POINTER, byref, c_char_p, c_float, c_int, c_void_p
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from workbench.engines.serve import Arrays, Command, Fields

LIBRARY = "/usr/lib/darknet/libdarknet.so"
HIER_THRESH = 0.5
"""pjreddie examples/darknet.c `detector test`; only a [region] with a tree looks at it."""


class Image(ctypes.Structure):
    """`image` of darknet.h: CHW floats."""

    _fields_ = (("w", c_int), ("h", c_int), ("c", c_int), ("data", POINTER(c_float)))


class Detection(ctypes.Structure):
    """`detection` of darknet.h; bbox is centre x, centre y, width, height."""

    _fields_ = (
        ("bbox", c_float * 4),
        ("classes", c_int),
        ("prob", POINTER(c_float)),
        ("mask", POINTER(c_float)),
        ("objectness", c_float),
        ("sort_class", c_int),
    )


SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "load_network": (c_void_p, [c_char_p, c_char_p, c_int]),
    "set_batch_network": (None, [c_void_p, c_int]),
    "network_width": (c_int, [c_void_p]),
    "network_height": (c_int, [c_void_p]),
    "network_predict": (POINTER(c_float), [c_void_p, POINTER(c_float)]),
    "network_predict_image": (POINTER(c_float), [c_void_p, Image]),
    "get_network_image_layer": (Image, [c_void_p, c_int]),
    "resize_image": (Image, [Image, c_int, c_int]),
    "free_image": (None, [Image]),
    "get_network_boxes": (
        POINTER(Detection),
        [c_void_p, c_int, c_int, c_float, c_float, POINTER(c_int), c_int, POINTER(c_int)],
    ),
    "do_nms_sort": (None, [POINTER(Detection), c_int, c_int, c_float]),
    "do_nms_obj": (None, [POINTER(Detection), c_int, c_int, c_float]),
    "free_detections": (None, [POINTER(Detection), c_int]),
}

SUPPRESSIONS = {"sort": "do_nms_sort", "obj": "do_nms_obj", "none": None}


def open_engine() -> Mapping[str, Command]:
    """Load the library, which switches this process to flush denormals (crtfastmath), as the program itself does."""
    library = ctypes.CDLL(LIBRARY)
    for name, (result, arguments) in SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    engine = _Darknet(library)
    return {"load": engine.load, "run": engine.run, "detect": engine.detect}


class _Darknet:
    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        self.network: int | None = None
        self.kinds: list[str] = []
        self.outputs = 0

    def load(self, fields: Fields, _: Arrays) -> tuple[Fields, Arrays]:
        """cfg, weights: paths. kinds: the sections after [net], for Darknet does not check an index. outputs: how many
        values the last of them but [cost] puts out; 0 where unknown."""
        self.network = self.library.load_network(fields["cfg"].encode(), fields["weights"].encode(), 0)
        self.library.set_batch_network(self.network, 1)
        self.kinds, self.outputs = fields["kinds"], fields["outputs"]
        return {}, {}

    def run(self, _: Fields, arrays: Arrays) -> tuple[Fields, Arrays]:
        """x: float32 (n, c, h, w). One array a layer, (n, c, h, w); layers without an image shape are absent."""
        outputs: Arrays = {}
        batch = np.ascontiguousarray(arrays["x"], dtype=np.float32)
        for sample, x in enumerate(batch):
            last = self.library.network_predict(self.network, _floats(x))
            for index, output in self._outputs(last):
                if sample == 0:
                    outputs[str(index)] = np.empty((len(batch), *output.shape), np.float32)
                outputs[str(index)][sample] = output
        return {}, outputs

    def detect(self, fields: Fields, arrays: Arrays) -> tuple[Fields, Arrays]:
        """picture: float32 (c, h, w), 0 to 1. Rows x, y, w, h, score, class.

        letterbox or stretch. Boxes in pixels of the picture, or relative to the network input: Darknet of 2018 always
        takes a letterbox back, which does nothing to a picture of the network's own size.
        """
        picture = np.ascontiguousarray(arrays["picture"], dtype=np.float32)
        channels, height, width = picture.shape
        image = Image(width, height, channels, _floats(picture))
        net_width, net_height = self.library.network_width(self.network), self.library.network_height(self.network)
        if fields["letterbox"]:
            self.library.network_predict_image(self.network, image)
        else:
            resized = self.library.resize_image(image, net_width, net_height)
            self.library.network_predict(self.network, resized.data)
            self.library.free_image(resized)
        if fields["relative"]:
            return {}, self._boxes(net_width, net_height, 1, fields)
        return {}, self._boxes(width, height, 0, fields)

    def _outputs(self, last: Any) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Views of live buffers, to be copied before the next prediction. `last` is what network_predict returned.

        [cost] writes nothing without a truth. [softmax] has no image shape, but is mostly the last layer.
        """
        kinds = self.kinds[:-1] if self.kinds[-1] == "cost" else self.kinds
        for index in range(len(kinds)):
            image = self.library.get_network_image_layer(self.network, index)
            if image.data and image.w * image.h * image.c:
                yield index, np.ctypeslib.as_array(image.data, (image.c, image.h, image.w))
            elif index == len(kinds) - 1 and self.outputs:
                yield index, np.ctypeslib.as_array(last, (self.outputs, 1, 1))

    def _boxes(self, width: int, height: int, relative: int, fields: Fields) -> Arrays:
        count = c_int(0)
        thresh = fields["thresh"]
        found = self.library.get_network_boxes(
            self.network, width, height, thresh, HIER_THRESH, None, relative, byref(count)
        )
        suppress = SUPPRESSIONS[fields["nms"]]
        if suppress and count.value:
            getattr(self.library, suppress)(found, count.value, fields["classes"], fields["nms_thresh"])
        limit, classes = np.float32(thresh), fields["classes"]
        rows = [row for k in range(count.value) for row in _rows(found[k], classes, limit)]
        self.library.free_detections(found, count.value)
        return {"rows": np.array(rows, np.float32).reshape(-1, 6)}


def _rows(detection: Detection, classes: int, thresh: np.float32) -> Iterator[tuple[float, ...]]:
    """`detection.classes` is no help: [detection] leaves it 0."""
    probabilities = np.ctypeslib.as_array(detection.prob, (classes,))
    for index in np.flatnonzero(probabilities > thresh):
        yield (*detection.bbox, float(probabilities[index]), float(index))


def _floats(array: NDArray[np.float32]) -> Any:
    return array.ctypes.data_as(POINTER(c_float))
