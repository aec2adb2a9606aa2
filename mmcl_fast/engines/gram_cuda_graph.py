"""The gram engine on CUDA: an epoch is some 40 small launches, issued once and then replayed.

Runs too large for the trajectory kernel are here, of a few hundred samples up, and an epoch of
theirs is done before the host has asked for the next. One epoch and what is measured before it is
a graph; a counter on the device says where in the curves it writes.

Numerics: the kernels of `GramEngine` in its order, and so its bits.
Memory: what an epoch allocates lives in the graph's own pool; `engines.memory_bytes` counts it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmcl_fast.config import TrainConfig
from mmcl_fast.engines.cuda_graph import Capture, Replay, cuda_graph
from mmcl_fast.engines.gram import GramEngine
from mmcl_fast.engines.protocol import Engine, Measured, Spec

# Two milliseconds of a GPU of 50 TFLOP/s, several times what a host needs to launch an epoch.
MOST_FLOP = 1e11
HELD_EPOCHS = 1024  # of the curves on the device; a longer stretch is read out in pieces


def why_not_replayed(cfg: TrainConfig, device: str, runs: int = 1) -> str | None:
    """Why every epoch of the gram engine is launched anew, or None.

    Args:
        cfg: Settings of the runs.
        device: Type of the device they train on.
        runs: Runs side by side.
    """
    if device != "cuda":
        return f"device {device}: expected cuda"
    if cfg.augment == "per_epoch":
        return "augment per_epoch changes the inner products in every epoch"
    if cfg.negatives_draw == "per_epoch":
        return "negatives_draw per_epoch changes the negatives in every epoch"
    if (flop := runs * step_flop(cfg)) > MOST_FLOP:
        return f"an epoch of {flop:.1e} flop: beyond {MOST_FLOP:.0e} launches do not matter"
    return None


def step_flop(cfg: TrainConfig) -> float:
    """Floating-point operations of the matrix products of an epoch of one run."""
    n, m = cfg.n, cfg.m
    return 2.0 * m * ((2 * n + 1) * (n + 1) + 2 * (1 + cfg.is_multi) * n**2)


def gram_engine(spec: Spec) -> Engine:
    """The gram engine of some runs; a `StretchEngine` where their epochs can be replayed."""
    if why_not_replayed(spec.cfg, spec.device.type, len(spec.data)) is None:
        return ReplayedGramEngine(spec)
    return GramEngine(spec)


class ReplayedGramEngine(GramEngine):
    """See the module's documentation and `protocol.StretchEngine`.

    Args:
        spec: Runs whose epochs are all the same work.
        capture: See `Replay`.
    """

    def __init__(self, spec: Spec, capture: Capture = cuda_graph) -> None:
        super().__init__(spec)
        self._replay = Replay(capture)
        like = self._labels.one_hot
        self._curves = like.new_zeros(HELD_EPOCHS, 3, len(spec.data))  # loss, signal, noise
        self._at = torch.zeros(1, dtype=torch.int64, device=like.device)

    def train_epochs(self, epoch: int, count: int) -> Measured:
        """See `StretchEngine.train_epochs`."""
        # Put together outside inference mode: a callback may work on what it gets.
        sizes = [min(HELD_EPOCHS, count - k) for k in range(0, count, HELD_EPOCHS)]
        loss, signal, noise = torch.cat([self._piece(size) for size in sizes]).permute(1, 2, 0)
        return Measured(loss, signal, noise)

    def _piece(self, count: int) -> Tensor:
        """Train so many epochs; a copy of their part of the curves, [epochs, 3, R]."""
        with torch.inference_mode():
            self._at.zero_()
            for _ in range(count):
                self._replay(self._epoch)
            return self._curves[:count].clone()

    def _epoch(self) -> None:
        """What is captured: nothing here depends on the epoch."""
        signal, noise = self.signal_and_noise()
        loss = self.train_epoch(0)
        self._curves.index_copy_(0, self._at, torch.stack([loss, signal, noise])[None])
        self._at.add_(1)


__all__ = ["MOST_FLOP", "ReplayedGramEngine", "gram_engine", "step_flop", "why_not_replayed"]
