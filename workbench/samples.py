"""The table of sample models: the name, length and sha256 of each file, its licence, and where it comes from.

Sizes and sha256 were measured from the files themselves; addresses name a commit where the place knows commits.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SampleFile:
    """One file of a sample; one without addresses ships with the workbench, one with `text` is written from it."""

    name: str
    size_bytes: int = 0
    sha256: str = ""
    addresses: tuple[str, ...] = ()
    copies: tuple[str, ...] = ()  # sha256 of the same text as some archives pass it on: without its last newline
    text: str = ""

    @property
    def accepted(self) -> tuple[str, ...]:
        """The sha256 that count as this file, the recorded one first."""
        return (self.sha256, *self.copies)


@dataclass(frozen=True)
class Sample:
    """A model that can be had by name."""

    name: str
    what: str
    licence: str
    cfg: SampleFile
    names: SampleFile
    weights: SampleFile

    @property
    def files(self) -> tuple[SampleFile, SampleFile, SampleFile]:
        """Its files, the small ones first."""
        return self.cfg, self.names, self.weights

    @property
    def shipped(self) -> bool:
        """True where it comes with the workbench and needs no download."""
        return not self.weights.addresses

    @property
    def size_bytes(self) -> int:
        """What there is to download."""
        return sum(file.size_bytes for file in self.files)

    def paths(self, folder: Path) -> SamplePaths:
        """Return where its files lie in `folder`."""
        return SamplePaths(*(folder / file.name for file in self.files))


@dataclass(frozen=True)
class SamplePaths:
    """Where the files of a sample lie on this machine."""

    cfg: Path
    names: Path
    weights: Path


RAW = "https://raw.githubusercontent.com"
PJREDDIE = f"{RAW}/pjreddie/darknet/f6afaabcdf85f77e7aff2ec55c020c0e297c77f9"
YOLO_FASTEST = f"{RAW}/dog-qiuqiu/Yolo-Fastest/96a2900d163196c396e73f3fdab04ca4dd9a2f70/ModelZoo"
MOBILENET_YOLO = f"{RAW}/dog-qiuqiu/MobileNet-Yolo/86c05bfc4e508d54a459a469faecc35a113454c1"
MOBILENET_YOLO_EARLIER = f"{RAW}/dog-qiuqiu/MobileNet-Yolo/367561bc5f689dce4771c346ef7b856eb42bf06f"

PUBLIC_DOMAIN = "YOLO LICENSE (public domain)"
PUBLIC_DOMAIN_2 = "YOLO LICENSE v2 (public domain)"


def _file(size_bytes: int, sha256: str, *addresses: str, copies: tuple[str, ...] = ()) -> SampleFile:
    return SampleFile(addresses[0].rpartition("/")[2], size_bytes, sha256, addresses, copies)


def _shipped(name: str, what: str) -> Sample:
    cfg, names, weights = (SampleFile(f"{name}.{ending}") for ending in ("cfg", "names", "weights"))
    return Sample(name, what, "MIT", cfg, names, weights)


COCO = _file(
    625,
    "634a1132eb33f8091d60f2c346ababe8b905ae08387037aed883953b7329af84",
    f"{PJREDDIE}/data/coco.names",
    copies=("33c77761e124cc74911346865e3bc1219b87c2db7d0f106e3376bf5ef3785933",),
)
VOC = _file(
    135,
    "f14861775969fd006b382e005f96dc811ef062ea4a37356efb70d7775e90f743",
    f"{PJREDDIE}/data/voc.names",
)
# The repositories of the one-class models hold no .names, so theirs are written here.
BODY = SampleFile("body.names", 5, "9e2ec912af5dff2a72300863864fc4da04e81999339d9fac5c7590ba8a3f4e11", text="body\n")
FACE = SampleFile("face.names", 5, "5b12b7b4d08018af28ce06dff4c0fb3c9da8e28cf8d8bacbe978a45f1130af22", text="Face\n")

SAMPLES = (
    _shipped("shapes-tiny3", "YOLOv3-tiny's plan in small, trained here on drawn shapes"),
    _shipped("shapes-tiny4", "YOLOv4-tiny's plan in small, trained here on drawn shapes"),
    Sample(
        "yolov3-tiny",
        "pjreddie's YOLOv3-tiny, 80 classes of COCO, 416 x 416",
        PUBLIC_DOMAIN,
        _file(
            1915,
            "84eb7a675ef87c906019ff5a6e0effe275d175adb75100dcb47f0727917dc2c7",
            f"{PJREDDIE}/cfg/yolov3-tiny.cfg",
            copies=("4349b56496c065b353d40d786a28ad6e7758780db8124a22342458f780f4ff00",),
        ),
        COCO,
        _file(
            35434956,
            "dccea06f59b781ec1234ddf8d1e94b9519a97f4245748a7d4db75d5b7080a42c",
            "https://pjreddie.com/media/files/yolov3-tiny.weights",
            "https://data.pjreddie.com/files/yolov3-tiny.weights",
        ),
    ),
    Sample(
        "yolo-fastest-1.1-coco",
        "Yolo-Fastest 1.1, 80 classes of COCO, 320 x 320",
        PUBLIC_DOMAIN_2,
        _file(
            9685,
            "f6df5775c1e862998cf69046eba9265be3ae84dfe8b2caab7529823f0795bf70",
            f"{YOLO_FASTEST}/yolo-fastest-1.1_coco/yolo-fastest-1.1.cfg",
        ),
        COCO,
        _file(
            1384268,
            "1c445c42bbd6df63edea2cc69f99667b5650d663ca11e34b116240740cd42890",
            f"{YOLO_FASTEST}/yolo-fastest-1.1_coco/yolo-fastest-1.1.weights",
        ),
    ),
    Sample(
        "yolo-fastest-1.1-xl-coco",
        "Yolo-Fastest 1.1 XL, 80 classes of COCO, 320 x 320",
        PUBLIC_DOMAIN_2,
        _file(
            9696,
            "c458427acc4fbeabceff4528ef7b65b066c0308ce599460f8ba299eba63abad3",
            f"{YOLO_FASTEST}/yolo-fastest-1.1_coco/yolo-fastest-1.1-xl.cfg",
        ),
        COCO,
        _file(
            3693964,
            "fac5fb41786c1f38f04972a658443b189f48720d7d117f9a044100e98a35b0c5",
            f"{YOLO_FASTEST}/yolo-fastest-1.1_coco/yolo-fastest-1.1-xl.weights",
        ),
    ),
    Sample(
        "yolo-fastest-1.1-body",
        "Yolo-Fastest 1.1 for human bodies, 1 class, 320 x 320",
        PUBLIC_DOMAIN_2,
        _file(
            9679,
            "045b8e276ebe3924474da8c866b7e709159ea067137b5d66bf9dd560411b2c1a",
            f"{YOLO_FASTEST}/yolo-fastest-1.1_body/yolo-fastest-1.1_body.cfg",
        ),
        BODY,
        _file(
            1177604,
            "5bbb6d878f6e2eb3deee39e91dc6f9b39700e99ec83fa94d258670a554949728",
            f"{YOLO_FASTEST}/yolo-fastest-1.1_body/yolo-fastest-1.1_body.weights",
        ),
    ),
    Sample(
        "mnv2-yolo-fastest-voc-v2-se",
        "MobileNetV2-YOLO-Fastest v2 with squeeze-and-excitation, 20 classes of VOC, 320 x 320",
        PUBLIC_DOMAIN_2,
        _file(
            7172,
            "be6cfeab33629c21ae2abf8572c18f736aa5cb8a5dd5f1ec6ceebb5595282003",
            f"{MOBILENET_YOLO}/MobileNetV2-YOLO-Fastest/v2/MobileNetV2-YOLO-Fastest-voc-v2.cfg",
        ),
        VOC,
        _file(
            839476,
            "c8d7be4a9e8cf8c70a8dbe6903d733bff4dd09a1166eda0d6affe917868a5ed0",
            f"{MOBILENET_YOLO}/MobileNetV2-YOLO-Fastest/v2/MobileNetV2-YOLO-Fastest-voc-v2.weights",
        ),
    ),
    Sample(
        "mnv2-yolov3-nano-coco",
        "MobileNetV2-YOLOv3-Nano, 80 classes of COCO, 320 x 320",
        PUBLIC_DOMAIN_2,
        _file(
            7000,
            "f9c93b9167275c94975984c8b1d8adbff990f2e3a983adc79d02e748d6ed763b",
            f"{MOBILENET_YOLO}/MobileNetV2-YOLOv3-Nano/COCO/MobileNetV2-YOLOv3-Nano-coco.cfg",
        ),
        COCO,
        _file(
            3564300,
            "60a6c2a86735fd39ff54d61f9a16f3ac3fe24a8b2e0d7740585bf2b54a5db81a",
            f"{MOBILENET_YOLO}/MobileNetV2-YOLOv3-Nano/COCO/MobileNetV2-YOLOv3-Nano-coco.weights",
        ),
    ),
    Sample(
        "yoloface-500k-v1",
        "YoloFace 500k for faces, 1 class, 320 x 256, three heads",
        PUBLIC_DOMAIN_2,
        _file(
            7470,
            "03ccc286ff6c1b6ae06b73e9b7d22e8adbaf315064bafcf18acc52ad593d601d",
            f"{MOBILENET_YOLO}/yoloface-500k/v1/yoloface-500k.cfg",
        ),
        FACE,
        _file(
            520580,
            "271ff333aecdd11928e8da4d20bf6d398e1d0631f39aaec3e50be26135c3279f",
            f"{MOBILENET_YOLO}/yoloface-500k/v1/yoloface-500k.weights",
            f"{MOBILENET_YOLO_EARLIER}/yoloface-500k/yoloface-500k.weights",
        ),
    ),
    Sample(
        "yoloface-50k",
        "YoloFace 50k for faces, 1 class, 56 x 56, one head",
        PUBLIC_DOMAIN_2,
        _file(
            2913,
            "5b66f9bebf994dc87d75b67f93ae91496fa006c03f5af50ddbce10b57a9a88f4",
            f"{MOBILENET_YOLO}/yoloface-50k/yoloface-50k.cfg",
        ),
        FACE,
        _file(
            45012,
            "7372441aa4e9b5ed90fa4e2c78a0a609c36e8837d43827324e4ce1f292af7b58",
            f"{MOBILENET_YOLO}/yoloface-50k/yoloface-50k.weights",
        ),
    ),
)
