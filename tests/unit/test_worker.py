"""A child that hangs, crashes or is left alone: what the near side says, and that nothing stays behind."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from workbench.errors import RunnerFailed
from workbench.runners.worker import EngineError, Worker, describe_exit

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def is_running(process_id: int) -> bool:
    """False for a zombie too: who reaps an orphan is up to the system."""
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_hang_is_killed_by_the_time_limit() -> None:
    worker = Worker("opencv", where="opencv: net.cfg", time_limit_s=0.5)
    os.kill(worker.process_id, signal.SIGSTOP)
    began = time.monotonic()
    words = r"^opencv: net.cfg: run took too long and was stopped; expected an answer within 0.5 s, found none"
    with pytest.raises(RunnerFailed, match=words):
        worker.ask("run", {"x": np.zeros((1, 3, 8, 8), np.float32)})
    assert time.monotonic() - began < 5
    assert not is_running(worker.process_id)
    assert not worker.folder.exists()
    with pytest.raises(RunnerFailed, match="the engine is closed"):
        worker.ask("run")


def test_a_crash_names_the_signal() -> None:
    with Worker("opencv") as worker:
        os.kill(worker.process_id, signal.SIGSEGV)
        words = r"^opencv: the engine died during run; expected an answer, found signal SIGSEGV"
        with pytest.raises(RunnerFailed, match=words):
            worker.ask("run")
        assert not worker.folder.exists()


def test_darknet_leaves_with_exit_code_0_and_is_not_believed(darknet: Path) -> None:
    words = r"died during load.*found exit status 0\. It printed last: Couldn't open file: absent.cfg"
    with Worker("darknet") as worker, pytest.raises(RunnerFailed, match=words):
        worker.ask("load", cfg="absent.cfg", weights="absent.weights", kinds=["yolo"], outputs=0)


def test_an_error_of_the_engine_leaves_it_alive() -> None:
    with Worker("opencv") as worker:
        for _ in range(2):
            with pytest.raises(EngineError, match=r"load was refused by the engine; found error: OpenCV.*absent\.cfg"):
                worker.ask("load", cfg="absent.cfg", weights="absent.weights", kinds=[])
        assert is_running(worker.process_id)


def test_a_forgotten_worker_is_cleaned_up() -> None:
    worker = Worker("opencv")
    process_id, folder = worker.process_id, worker.folder
    del worker
    gc.collect()
    assert not is_running(process_id)
    assert not folder.exists()


@pytest.mark.parametrize("busy", [False, True])
def test_when_the_near_side_is_killed_the_child_tidies_up_alone(busy: bool) -> None:
    """Also when it is killed while the child computes, whose answer then finds nobody."""
    script = (
        "import os, signal, threading, time; from workbench.runners.worker import Worker\n"
        f"w = Worker('opencv'); os.kill(w.process_id, signal.SIGSTOP if {busy} else 0)\n"
        f"if {busy}: threading.Thread(target=w.ask, args=('run',), daemon=True).start(); time.sleep(0.2)\n"
        "print(w.process_id, w.folder, flush=True); time.sleep(60)"
    )
    near = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert near.stdout is not None
    with near, near.stdout:
        process_id, folder = near.stdout.readline().split()
        near.kill()
        near.wait()
        os.kill(int(process_id), signal.SIGCONT)
    for _ in range(100):
        if not Path(folder).exists() and not is_running(int(process_id)):
            break
        time.sleep(0.1)
    assert not Path(folder).exists()
    assert not is_running(int(process_id))


def test_the_child_has_limits_and_a_clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "s3cret")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with Worker("opencv", memory_limit_bytes=7 << 30) as worker:
        with pytest.raises(EngineError):
            worker.ask("load", cfg="absent.cfg", weights="", kinds=[])  # an answer means that it has started
        limits = Path(f"/proc/{worker.process_id}/limits").read_text()
        environment = Path(f"/proc/{worker.process_id}/environ").read_text()
    assert f"Max address space         {7 << 30}" in limits
    assert "Max core file size        0 " in limits
    assert "OMP_NUM_THREADS=1" in environment
    assert "SECRET" not in environment


@pytest.mark.parametrize(
    ("code", "words"),
    [(3, "exit status 3"), (-11, "signal SIGSEGV"), (-77, "signal 77"), (None, "neither answers nor ends")],
)
def test_how_a_process_ended(code: int | None, words: str) -> None:
    assert words in describe_exit(code)
