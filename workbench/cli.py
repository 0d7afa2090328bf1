"""The same calls from a terminal: inspect, detect, validate, convert, diagnose, models, fetch, demo, lab.

Exit codes: 0 good, 1 the model did not pass, 2 bad input or a missing tool. An error is one line on standard error;
there is never a traceback. Heavy packages are imported by the command that needs them.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from workbench.errors import OptionError, RunnerFailed, WorkbenchError, printable
from workbench.files import refuse_input

if TYPE_CHECKING:
    from workbench.certificate import Certificate
    from workbench.detections import Detections
    from workbench.model import Model
    from workbench.onnx_model import OnnxOptions

F = TypeVar("F", bound=Callable[..., Any])

CFG = click.argument("cfg", type=click.Path(path_type=Path))
WEIGHTS = click.argument("weights", type=click.Path(path_type=Path))
DIALECTS = click.Choice(["pjreddie", "alexeyab", "hankai"])


def model_options(command: F) -> F:
    """--dialect and --names, which every command that opens a model has."""
    command = click.option(
        "--dialect", type=DIALECTS, help="How the model is computed; inferred from the cfg by default."
    )(command)
    return click.option("--names", type=click.Path(path_type=Path), help="File with one class name a line.")(command)


def proof_options(command: F) -> F:
    """What `validate` and `convert` share: pictures, reference, and the kind of ONNX file."""
    for option in (
        click.option(
            "--image",
            "images",
            multiple=True,
            type=click.Path(path_type=Path),
            help="A picture to compare on; may be repeated. Drawn ones by default.",
        ),
        click.option(
            "--reference",
            type=click.Choice(["auto", "darknet", "opencv"]),
            default="auto",
            show_default=True,
            help="The independent engine.",
        ),
        click.option(
            "--outputs",
            type=click.Choice(["raw", "decoded", "nms"]),
            default="decoded",
            show_default=True,
            help="Raw heads, boxes and scores, or boxes after suppression.",
        ),
        click.option("--opset", type=int, default=17, show_default=True, help="17 to 21."),
        click.option("--static", metavar="WxH", help="Fix the input size; open by default."),
    ):
        command = option(command)
    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="darknet-workbench", prog_name="workbench")
def cli() -> None:
    """See through a Darknet model: read it, run it, prove the conversion, export it."""


@cli.command()
@CFG
@click.argument("weights", type=click.Path(path_type=Path), required=False)
@click.option("--dialect", type=DIALECTS, help="Whose byte order and arithmetic; inferred from the cfg by default.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def inspect(cfg: Path, weights: Path | None, dialect: str | None, as_json: bool) -> None:
    """Layers, shapes and the byte ledger of CFG, and what is in WEIGHTS."""
    from workbench import terminal
    from workbench.inspection import inspect_model

    report = inspect_model(cfg, weights, dialect)
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=1))
    else:
        terminal.show_inspection(report)
    errors = [finding for finding in report.findings if finding.level == "error"]
    if errors:
        _fail(f"{errors[0]}" + (f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""), 2)


@cli.command()
@CFG
@WEIGHTS
@click.argument("pictures", nargs=-1, required=True, type=click.Path(path_type=Path))
@model_options
@click.option(
    "--runner", type=click.Choice(["torch", "onnxruntime", "darknet", "opencv"]), default="torch", show_default=True
)
@click.option("--thresh", type=click.FloatRange(0, 1), help="Least probability; the dialect's own by default.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="PNG with the boxes; a folder for several pictures."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def detect(
    cfg: Path,
    weights: Path,
    pictures: tuple[Path, ...],
    dialect: str | None,
    names: Path | None,
    runner: str,
    thresh: float | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Find objects in PICTURES with any of the engines."""
    from workbench import terminal
    from workbench.image import load_picture
    from workbench.runners import open_runner

    if thresh is not None and math.isnan(thresh):  # which is in no range, and outside of none
        raise OptionError("--thresh", "is no probability", expected="0 to 1", found=thresh)
    model = _open(cfg, weights, dialect, names)
    model.weights.require_sound()
    targets = _picture_targets(output, pictures, [cfg, weights, names, *pictures])
    classes = [model.name_of(i) for i in range(max((head.classes for head in model.network.heads), default=0))]
    rows = []
    with open_runner(runner, model) as engine:
        for path, target in zip(pictures, targets, strict=True):
            picture = load_picture(path)
            found = engine.detect(picture, model.thresh if thresh is None else thresh)
            _require_finite(found, path)
            rows.append({"picture": str(path), "runner": runner, "detections": found.to_json(classes)})
            if not as_json:
                terminal.show_detections(model, str(path), found)
            if target:
                _write_overlay(model, picture, found, target)
                terminal.warn(f"wrote {target}")
    if as_json:
        click.echo(json.dumps(rows, indent=1))


@cli.command()
@CFG
@WEIGHTS
@model_options
@proof_options
@click.option(
    "--model",
    "onnx_file",
    type=click.Path(path_type=Path),
    help="An ONNX file that lies on the disk, instead of one built now.",
)
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), help="Write the certificate as JSON; - prints it."
)
@click.option("--html", "html_file", type=click.Path(path_type=Path), help="Write a report of one self-contained file.")
def validate(
    cfg: Path,
    weights: Path,
    dialect: str | None,
    names: Path | None,
    images: tuple[Path, ...],
    reference: str,
    outputs: str,
    opset: int,
    static: str | None,
    onnx_file: Path | None,
    json_file: Path | None,
    html_file: Path | None,
) -> None:
    """Compare the model with an independent engine and its ONNX file with PyTorch, gate by gate."""
    from workbench import terminal

    inputs = [cfg, weights, names, onnx_file, *images]
    for target in (html_file, json_file):
        if target and str(target) != "-":
            refuse_input(target, inputs)
    model = _open(cfg, weights, dialect, names)
    pictures = _pictures(images)
    certificate = _prove(model, pictures, reference, _options(outputs, opset, static), onnx_file)
    if html_file:
        from workbench.report import write_report

        write_report(certificate, model, html_file, pictures)
        terminal.warn(f"wrote {html_file}")
    text = json.dumps(certificate.to_json(), indent=1)
    if json_file and str(json_file) == "-":
        click.echo(text)
    else:
        terminal.show_certificate(certificate)
    if json_file and str(json_file) != "-":
        _write_text(json_file, text)
    raise SystemExit(0 if certificate.passed else 1)


@cli.command()
@CFG
@WEIGHTS
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="OUT.onnx, OUT.safetensors or OUT.weights."
)
@model_options
@proof_options
@click.option("--unvalidated", is_flag=True, help="Export without proof; the file says so.")
def convert(
    cfg: Path,
    weights: Path,
    output: Path,
    dialect: str | None,
    names: Path | None,
    images: tuple[Path, ...],
    reference: str,
    outputs: str,
    opset: int,
    static: str | None,
    unvalidated: bool,
) -> None:
    """Prove the model, then write it as ONNX, safetensors or .weights."""
    from workbench import terminal
    from workbench.exporters import export, find_writer

    find_writer(output)
    refuse_input(output, [cfg, weights, names, *images])
    model = _open(cfg, weights, dialect, names)
    options = _options(outputs, opset, static)
    if unvalidated:
        model.weights.require_sound()
        export(model, output, options=options, unvalidated=True)
        terminal.say(f"wrote {output} ({output.stat().st_size} bytes), UNVALIDATED: nothing was proved")
        return
    certificate = _prove(model, _pictures(images), reference, options)
    terminal.show_certificate(certificate)
    export(model, output, certificate)
    terminal.say(f"wrote {output} ({output.stat().st_size} bytes)")


@cli.command()
@CFG
@WEIGHTS
@model_options
@click.option("--onnx", "onnx_file", type=click.Path(path_type=Path), help="Their ONNX file; all of its values count.")
@click.option("--torch", "torch_spec", metavar="MODULE:FACTORY", help="Their PyTorch module; runs their code, apart.")
@click.option("--layers", "arrays", type=click.Path(path_type=Path), help="Their intermediate outputs, .npz, in order.")
@click.option("--boxes", type=click.Path(path_type=Path), help="Their final boxes as JSON, nothing else.")
@click.option(
    "--input",
    "inputs",
    multiple=True,
    type=click.Path(path_type=Path),
    help="The tensor that they feed, .npy, one for each --image in order.",
)
@click.option(
    "--image", "images", multiple=True, type=click.Path(path_type=Path), help="A picture; drawn ones by default."
)
@click.option("--limit", "limit_s", type=click.FloatRange(1), default=25, show_default=True, help="Seconds of search.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def diagnose(
    cfg: Path,
    weights: Path,
    dialect: str | None,
    names: Path | None,
    onnx_file: Path | None,
    torch_spec: str | None,
    arrays: Path | None,
    boxes: Path | None,
    inputs: tuple[Path, ...],
    images: tuple[Path, ...],
    limit_s: float,
    as_json: bool,
) -> None:
    """Find out what is wrong with somebody else's conversion of CFG and WEIGHTS.

    Exit codes: 0 nothing wrong was found, 1 something is wrong, explained or not, 2 bad input.
    """
    from workbench import terminal
    from workbench.diagnosis import diagnose as find_fault
    from workbench.diagnosis import open_foreign
    from workbench.terminal_diagnosis import show_diagnosis
    from workbench.validation import load_pictures, shipped_pictures

    model = _open(cfg, weights, dialect, names)
    pictures = load_pictures(list(images)) if images else dict(list(shipped_pictures().items())[:1])
    foreign = open_foreign(model, pictures, onnx=onnx_file, torch=torch_spec, layers=arrays, boxes=boxes, inputs=inputs)
    with terminal.step_progress() as progress:
        found = find_fault(model, foreign, pictures, limit_s=limit_s, progress=progress)
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=1))
    else:
        show_diagnosis(found)
    raise SystemExit(0 if found.healthy else 1)


@cli.command()
def models() -> None:
    """List the sample models."""
    from workbench import terminal
    from workbench.zoo import samples

    terminal.show_samples(samples())


@cli.command()
@click.argument("name")
@click.option(
    "--from", "source", type=click.Path(path_type=Path), help="A folder to take the files from, instead of the network."
)
@click.option("--into", type=click.Path(path_type=Path), help="Where to put them; the user's cache by default.")
def fetch(name: str, source: Path | None, into: Path | None) -> None:
    """Fetch the sample model NAME and print where its files are."""
    from workbench import terminal
    from workbench.zoo import fetch as fetch_sample

    with terminal.byte_progress(name) as progress:
        paths = fetch_sample(name, into=into, source=source, progress=progress)
    for path in (paths.cfg, paths.weights, paths.names):
        terminal.say(path)


@cli.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("workbench-demo"),
    show_default=True,
    help="Folder for what it writes.",
)
def demo(out: Path) -> None:
    """Convert, prove and export the shipped models, and draw what they see."""
    from workbench.demo import run_demo

    raise SystemExit(0 if run_demo(out) else 1)


@cli.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def lab(arguments: tuple[str, ...]) -> None:
    """Open the notebooks in JupyterLab, on this machine only; ARGUMENTS are passed on to it."""
    import subprocess

    from workbench.zoo import notebooks_dir

    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--ip=127.0.0.1",
        f"--ServerApp.root_dir={notebooks_dir()}",
        *arguments,
    ]
    raise SystemExit(subprocess.call(command))


def main(arguments: list[str] | None = None) -> None:
    """Entry point: turns every error a person can meet into one line and its exit code."""
    try:
        cli.main(arguments, standalone_mode=False)
    except WorkbenchError as error:
        _fail(str(error), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _fail("interrupted", 130)
    except click.ClickException as error:
        error.show()
        raise SystemExit(2) from None
    except MemoryError:
        _fail("not enough memory for this model on this machine", 2)
    except BrokenPipeError:
        sys.stderr.close()
        raise SystemExit(0) from None
    except OSError as error:
        _fail(f"{error.filename or 'file'}: {error.strerror or error}", 2)


def _fail(text: str, code: int) -> None:
    click.echo(f"workbench: {printable(text, 10_000)}", err=True)
    raise SystemExit(code) from None


def _open(cfg: Path, weights: Path, dialect: str | None, names: Path | None) -> Model:
    from workbench import terminal
    from workbench.model import open_model

    model = open_model(cfg, weights, dialect=dialect, names=names)
    for line in terminal.note_lines(model.notes):
        terminal.warn(line)
    if dialect is None:
        terminal.warn(f"dialect {model.dialect}: {model.reasons[0]} (--dialect chooses another)")
    return model


def _options(outputs: str, opset: int, static: str | None) -> OnnxOptions:
    from workbench.onnx_model import OnnxOptions

    return OnnxOptions(outputs, opset, _size(static))  # type: ignore[arg-type]


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and 0 < int(width) <= 16384 and 0 < int(height) <= 16384):
        raise OptionError("--static", "is no size", expected="WxH in pixels, such as 416x416", found=repr(text))
    return int(width), int(height)


def _pictures(images: tuple[Path, ...]) -> Any:
    """Those named, by name, or drawn ones; the import takes seconds, and comes after what can go wrong at once."""
    from workbench.validation import load_pictures, shipped_pictures

    return load_pictures(list(images)) if images else shipped_pictures()


def _prove(model: Model, pictures: Any, reference: str, options: OnnxOptions, file: Path | None = None) -> Certificate:
    from workbench import terminal
    from workbench.validation import validate

    with terminal.step_progress() as progress:
        return validate(model, pictures, reference=reference, options=options, file=file, progress=progress)


def _picture_targets(
    output: Path | None, pictures: tuple[Path, ...], inputs: Sequence[Path | None]
) -> list[Path | None]:
    if output is None:
        return [None] * len(pictures)
    if len(pictures) == 1 and not os.path.isdir(output):
        targets = [output]
    else:
        output.mkdir(parents=True, exist_ok=True)
        targets = [output / f"{path.stem}.png" for path in pictures]
        if len(set(targets)) < len(targets):
            raise OptionError("-o", "two pictures would be written to one file", expected="different file names")
    for target in targets:
        refuse_input(target, inputs)
    return list(targets)


def _require_finite(found: Detections, picture: Path) -> None:
    import numpy as np

    bad = int(np.count_nonzero(~np.isfinite(found.boxes).all(axis=1)))
    if bad:
        raise RunnerFailed(
            str(picture),
            f"{bad} of {len(found)} boxes are no finite numbers",
            cause="Weights of another cfg, or a network that is not trained.",
        )


def _write_overlay(model: Model, picture: Any, found: Any, target: Path) -> None:
    from workbench.figures import draw_detections, to_png
    from workbench.files import atomic_write

    png = to_png(draw_detections(picture, found, model.names))
    with atomic_write(target) as file:
        file.write(png)


def _write_text(path: Path, text: str) -> None:
    from workbench.files import atomic_write

    with atomic_write(path) as file:
        file.write(text.encode() + b"\n")
