"""What every test may ask for: the folder of real models and goldens beside the checkout, and Debian's Darknet."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"
DARKNET = Path("/usr/lib/darknet/libdarknet.so")


def _absent(reason: str) -> None:
    """Skip on a user's machine; fail in CI, where what is missing would otherwise go unseen."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with `models/`, `images/` and `oracle/`; a clone without it skips, CI always has it."""
    if not SHARED.is_dir():
        pytest.skip("no ../shared beside the checkout: real models and goldens are not available")
    return SHARED


@pytest.fixture(scope="session")
def darknet() -> Path:
    """Debian's libdarknet.so."""
    if not DARKNET.is_file():
        _absent("Debian's package `darknet` is not installed: apt install darknet")
    return DARKNET
