"""`python -m tests.diagnosis.evaluate_boxes`: told from final boxes alone, on 20 photographs. Prints a row a mistake.

Wants ../shared with yolov3-tiny and photographs of COCO beside the checkout.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.diagnosis.evaluate import ROOT

SHARED = ROOT.parent / "shared"
SIZE = (288, 224)
SUPPRESSION = ("nms-missing", "nms-thresh-0.7", "nms-thresh-0.2")
"""nms-across-classes is not written: Darknet's own rule by objectness is not what other ports do."""
THRESH = 0.25


def mistakes_of_boxes() -> list[str]:
    """What can be seen in boxes alone, and not before: pictures, decoding, suppression."""
    from workbench.pitfalls import PITFALLS

    model = open_tiny()
    names = [p.name for p in PITFALLS.values() if p.stage in ("picture", "decoding") and p.idle(model) is None]
    return [*names, *SUPPRESSION]


def open_tiny():  # type: ignore[no-untyped-def]
    """yolov3-tiny at a size that is no square."""
    from workbench.model import open_model

    folder = SHARED / "models/yolov3-tiny"
    return open_model(folder / "yolov3-tiny.cfg", folder / "yolov3-tiny.weights", dialect="pjreddie").at_size(*SIZE)


def run_mistake(name: str, count: int = 20) -> tuple[str, str, float]:
    """(what was said, judgement, seconds) for one mistake; "" is a healthy port."""
    from tests.diagnosis.foreign_boxes import ForeignDetector
    from tests.diagnosis.foreign_head import Exported
    from tests.diagnosis.foreign_net import ForeignNet
    from workbench.diagnosis import ForeignBoxes, diagnose
    from workbench.image import load_picture

    model, mistakes = open_tiny(), frozenset([name] if name else [])
    folder = SHARED / "models/yolov3-tiny"
    net = ForeignNet(folder / "yolov3-tiny.cfg", folder / "yolov3-tiny.weights", mistakes, (1e-6, False), SIZE, True)
    detector = ForeignDetector(Exported(net, "corners relative"), True, THRESH, mistakes)
    paths = sorted((SHARED / "images/coco-clean125/images").glob("*.jpg"))[:count]
    pictures = {path.name: load_picture(path) for path in paths}
    rows = {key: detector.detect(picture) for key, picture in pictures.items()}
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "theirs.json"
        file.write_text(json.dumps(rows))
        started = time.monotonic()
        found = diagnose(model, ForeignBoxes(file), pictures, limit_s=600)
    groups = [found.pitfalls, *found.ties]
    said = " = ".join("+".join(group) for group in groups) if found.pitfalls else found.verdict
    truth = (name,) if name else ()
    judged = "right" if groups == [truth] else "not told apart" if truth in groups else "MISSED"
    return (
        said + ("" if found.pitfalls or not found.before else f" ({found.before.text})"),
        judged,
        time.monotonic() - started,
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="")
    parser.add_argument("--photos", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    print("| mistake | judgement | said | s |\n|---|---|---|---:|")
    names = [name for name in ["", *mistakes_of_boxes()] if options.only in name]
    with ProcessPoolExecutor(options.jobs) as pool:
        for name, (said, judged, seconds) in zip(
            names, pool.map(run_mistake, names, [options.photos] * len(names)), strict=True
        ):
            print(f"| {name or 'none'} | {judged} | {said} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
