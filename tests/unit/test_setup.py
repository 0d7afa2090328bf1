"""The set-up: one list of dependencies, two commands, a wheel with its data, and imports that only point downwards."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from workbench import zoo

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # Python 3.10: mypy and pytest bring it

ROOT = Path(__file__).resolve().parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def run(*command: str, cwd: Path = ROOT, **environment: str) -> str:
    """Run a command that must succeed and return what it printed."""
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# One list of dependencies.


def test_environment_yml_equals_pyproject() -> None:
    python, pip, packages = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert (python, pip) == (f"python{PROJECT['requires-python']}", "pip")
    options = [line for line in packages["pip"] if line.startswith("--")]
    requirements = [line for line in packages["pip"] if not line.startswith("--")]
    assert requirements == PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"]
    assert options == [f"--extra-index-url {torch_index()}", "--editable ."]


def torch_index() -> str:
    found = re.search(r"^TORCH_CPU := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


# Two commands.


@pytest.mark.parametrize(
    ("target", "command"),
    [
        ("demo", "workbench demo --out out/demo"),
        ("test", "pytest -q"),
        ("bench", "python tests/benchmarks/run.py"),
        ("lab", "workbench lab"),
        ("data", "python -m data.train"),
        ("help", "make demo"),
        ("clean", "rm -rf out"),
        ("tools", "apt-get"),
        (".venv/.installed", "pip install"),
    ],
)
def test_makefile_targets(target: str, command: str) -> None:
    assert command in run("make", "--dry-run", "--always-make", target)


def test_make_pins_the_same_torch() -> None:
    pinned = [line for line in PROJECT["dependencies"] if line.startswith("torch")]
    commands = run("make", "--dry-run", "--always-make", ".venv/.installed")
    assert re.findall(r"torch==[\w.]+", commands)
    assert set(re.findall(r"torch==[\w.]+", commands)) == set(pinned)


def test_make_runs_only_files_that_exist() -> None:
    scripts = re.findall(r"\$\(BIN\)/python (?!-c)(\S+)(?: (\S+))?", (ROOT / "Makefile").read_text())
    paths = [Path(*second.split(".")).with_suffix(".py") if first == "-m" else Path(first) for first, second in scripts]
    assert len(paths) == 4
    assert [path for path in paths if not (ROOT / path).is_file()] == []


def test_ci_calls_only_make_test() -> None:
    script = ROOT / ".ci" / "run"
    assert script.read_text().splitlines() == [
        "#!/usr/bin/env bash",
        "set -euo pipefail",
        'cd "$(dirname "${BASH_SOURCE[0]}")/.."',
        "exec make test",
    ]
    assert os.access(script, os.X_OK)


def test_the_licence_is_mit() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert text.startswith("MIT License") and "Darknet Workbench contributors" in text
    assert PROJECT["license"] == "MIT"


BINARY = {".weights", ".png", ".jpg"}
ME = Path(__file__).resolve()


def test_no_tracked_file_names_a_path_of_one_machine() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git clone")
    machine = re.compile(rb"/(?:work|home|root|Users)/")
    tracked = [ROOT / name for name in run("git", "ls-files", "-z").split("\0") if name]
    texts = {path: path.read_bytes() for path in tracked if path.is_file() and path.suffix not in BINARY}
    assert len(texts) > 10
    found = {path.relative_to(ROOT).as_posix(): machine.findall(text) for path, text in texts.items() if path != ME}
    assert {path: paths for path, paths in found.items() if paths} == {}


# A wheel carries its data.


DATA = {".cfg", ".weights", ".names", ".png", ".jpg", ".json"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder))
    (built,) = folder.glob("*.whl")
    return built


def test_a_wheel_carries_models_pictures_and_notebooks(wheel: Path) -> None:
    shipped = [path for path in zoo.data_dir().rglob("*") if path.suffix in DATA]
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    expected = {f"workbench/_data/{path.relative_to(zoo.data_dir()).as_posix()}" for path in shipped}
    assert {path.suffix for path in shipped} == DATA
    expected |= {f"workbench/_notebooks/{path.name}" for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert expected - inside == set()
    assert {name.split("/")[0] for name in inside} == {"workbench", f"darknet_workbench-{PROJECT['version']}.dist-info"}


def test_an_installed_wheel_finds_its_data(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    found = run(
        sys.executable,
        "-c",
        "from workbench.zoo import data_dir; print(data_dir())",
        cwd=tmp_path,
        PYTHONPATH=str(tmp_path),
    )
    assert Path(found.strip()) == tmp_path.resolve() / "workbench" / "_data"


# Imports only point downwards. Modules that are not named here stand wherever their own imports put them.

FLOORS = (
    ("errors", "cfg", "layers"),
    ("network", "weights", "image", "detections", "dialects", "zoo"),
    ("model",),
    ("torch_model", "onnx_model", "pitfalls"),
    ("runners",),
    ("comparison",),
    ("validation",),
    ("exporters",),
    ("diagnosis",),
    ("figures", "report"),
    ("demo",),
    ("cli",),
)
FLOOR_OF = {name: floor for floor, names in enumerate(FLOORS) for name in names}
SHOWING = {"figures", "report", "demo", "cli", "__main__"}
JUPYTER_AND_MATPLOTLIB = {
    "matplotlib",
    "IPython",
    "ipywidgets",
    "anywidget",
    "traitlets",
    "jupyterlab",
    "nbformat",
    "netron",
}


@cache
def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    paths = sorted((ROOT / "workbench").rglob("*.py"))
    named = {path.relative_to(ROOT).with_suffix("").as_posix().replace("/", "."): path for path in paths}
    return {name.removesuffix(".__init__"): path for name, path in named.items()}


def imported(path: Path) -> Iterator[str]:
    """Every dotted name that a file imports, at its top or inside functions, but not for type checkers alone."""
    pending: list[ast.AST] = [ast.parse(path.read_text())]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            pending.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        pending.extend(ast.iter_child_nodes(node))


@cache
def arrows() -> dict[str, frozenset[str]]:
    """Which modules of the package each module imports."""

    def resolve(name: str) -> str | None:
        return next((known for known in (name, name.rpartition(".")[0]) if known in modules()), None)

    found = {module: {resolve(name) for name in imported(path)} for module, path in modules().items()}
    return {module: frozenset(name for name in names if name and name != module) for module, names in found.items()}


def reachable(module: str) -> frozenset[str]:
    seen: set[str] = set()
    pending = [module]
    while pending:
        new = arrows()[pending.pop()] - seen
        seen |= new
        pending.extend(new)
    return frozenset(seen)


def room(module: str) -> str:
    """The file or folder of the package that a module belongs to: `layers` for workbench.layers.yolo."""
    return module.split(".")[1] if "." in module else ""


def test_the_rooms_that_must_exist_do() -> None:
    missing = {name for name in FLOOR_OF if name not in {room(module) for module in modules()}}
    assert missing == set()


def test_no_arrow_points_upwards() -> None:
    upwards = [
        (module, other)
        for module in modules()
        for other in sorted(reachable(module))
        if FLOOR_OF.get(room(other), -1) > FLOOR_OF.get(room(module), len(FLOORS))
    ]
    assert upwards == []


def test_no_module_imports_itself_by_a_detour() -> None:
    assert [module for module in modules() if module in reachable(module)] == []


def test_the_core_knows_no_jupyter_and_no_matplotlib() -> None:
    core = {module: path for module, path in modules().items() if room(module) not in SHOWING}
    outside = {module: {name.split(".")[0] for name in imported(path)} for module, path in core.items()}
    assert {
        module: names & JUPYTER_AND_MATPLOTLIB for module, names in outside.items() if names & JUPYTER_AND_MATPLOTLIB
    } == {}


def loaded_by(modules: Iterable[str], afterwards: str = "") -> set[str]:
    """Which top-level packages a new Python has loaded once it has imported `modules`."""
    listing = "import json, sys; loaded = json.dumps(list(sys.modules))"
    printed = run(
        sys.executable, "-c", "\n".join([f"import {', '.join(modules)}", listing, afterwards, "print(loaded)"])
    )
    return {name.split(".")[0] for name in json.loads(printed.splitlines()[-1])}


@pytest.mark.parametrize("module", ["cfg", "network", "weights", "dialects", "zoo"])
def test_reading_a_model_loads_neither_torch_nor_anything_that_shows(module: str) -> None:
    loaded = loaded_by([f"workbench.{module}"])
    assert "workbench" in loaded
    assert loaded & {"torch", "onnx", "onnxruntime", "cv2", *JUPYTER_AND_MATPLOTLIB} == set()


def test_every_module_imports_and_the_core_alone_shows_nothing() -> None:
    core = [module for module in modules() if room(module) not in SHOWING]
    rest = ", ".join(modules().keys() - {*core, "workbench.__main__"})
    assert loaded_by(core, f"import {rest}" if rest else "") & JUPYTER_AND_MATPLOTLIB == set()
