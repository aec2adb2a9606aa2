"""The stand-in for a CUDA graph refuses what a capture may not do, and replays as one does."""

from __future__ import annotations

import pytest
import torch

from .tape import Tape

FORBIDDEN = {
    "item": lambda x: x.sum().item(),
    "cpu": lambda x: x.cpu(),
    "to": lambda x: x.to("cpu"),
    "if": lambda x: 1 if x.sum() > 0 else 0,
    "sent": lambda x: x.add_(torch.tensor(1.0)),
    "nonzero": lambda x: x.nonzero(),
    "mask": lambda x: x[x > 0],
    "equal": lambda x: torch.equal(x, x + 1),
}


@pytest.mark.parametrize("name", FORBIDDEN)
def test_a_tape_refuses_what_a_capture_does(name: str) -> None:
    x = torch.ones(3)
    with pytest.raises(AssertionError, match="captured"):
        Tape(lambda: FORBIDDEN[name](x))
    assert FORBIDDEN[name](x) is not None


def test_a_tape_is_played_on_the_memory_it_was_recorded_on() -> None:
    held, out = {"x": torch.ones(3)}, torch.zeros(3)

    def step() -> None:
        held["x"] = held["x"] * 2
        out.copy_(held["x"])

    tape = Tape(step)
    assert not out.any()
    tape.replay()
    tape.replay()
    assert out.tolist() == [2.0] * 3  # where the step itself would have come to 8
