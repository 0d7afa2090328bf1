"""A forward pass keeps what somebody still needs and nothing else, so that the largest nets fit."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from slow_layers import conv, net
from test_rare_layers import small_model

from workbench.torch_model import LayerModule, build

# Layer 9 reads layer 0, so that this one has to live long; every other output is read by the next layer alone.
CHAIN = net(3, 8, 8) + conv(3, size=3, pad=1) * 9 + "[route]\nlayers=-1,0\n" + conv(2, size=1)


def most_alive(keep: list[int], monkeypatch: pytest.MonkeyPatch) -> int:
    """The largest number of layers' outputs that lived at once while `keep` was computed."""
    alive: list[weakref.ref[torch.Tensor]] = []
    counts: list[int] = []
    forward = LayerModule.forward

    def watch(self: LayerModule, *xs: torch.Tensor) -> torch.Tensor:
        y = forward(self, *xs)
        alive.append(weakref.ref(y))
        gc.collect()
        counts.append(sum(reference() is not None for reference in alive))
        return y

    monkeypatch.setattr(LayerModule, "forward", watch)
    with torch.inference_mode():
        build(small_model(CHAIN)).run(torch.zeros(1, 3, 8, 8), keep)
    return max(counts)


def test_outputs_are_forgotten_after_their_last_use(monkeypatch: pytest.MonkeyPatch) -> None:
    assert most_alive([10], monkeypatch) == 3  # layer 0, the one being read, the one being made


def test_outputs_asked_for_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    assert most_alive(list(range(11)), monkeypatch) == 11
