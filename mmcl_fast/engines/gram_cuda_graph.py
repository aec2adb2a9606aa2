"""The gram engine on CUDA: an epoch of some 40 small launches, captured as one graph and replayed.

For runs of a few hundred samples and more, too large for the trajectory kernel, whose epochs take
less time than their launches. A graph measures and trains one epoch; a counter on the device
is the row of the curves that it writes.

Numerics: the kernels of `GramEngine` in the same order, so results are bit-identical.
Memory: temporaries of an epoch are in the pool of the graph; `engines.memory_bytes` counts them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmcl_fast.config import TrainConfig
from mmcl_fast.engines.cuda_graph import Capture, Replay, cuda_graph
from mmcl_fast.engines.gram import GramEngine
from mmcl_fast.engines.protocol import Engine, EngineSpec, Measured

# Two milliseconds at 50 TFLOP/s, several times the launch time of an epoch.
MAX_FLOP = 1e11
CURVE_EPOCHS = 1024  # rows of the curves on the device; more epochs are trained in pieces


def why_not_replayed(cfg: TrainConfig, device: str, runs: int = 1) -> str | None:
    """Why the epochs of the gram engine cannot be replayed, or None.

    Args:
        cfg: Settings of the runs.
        device: Type of the device they train on.
        runs: Runs of the batch.
    """
    if device != "cuda":
        return f"device {device}: expected cuda"
    if cfg.augment == "per_epoch":
        return "augment per_epoch changes the inner products in every epoch"
    if cfg.negatives_draw == "per_epoch":
        return "negatives_draw per_epoch changes the negatives in every epoch"
    if (flop := runs * step_flop(cfg)) > MAX_FLOP:
        return f"an epoch of {flop:.1e} flop: beyond {MAX_FLOP:.0e} launches do not matter"
    return None


def step_flop(cfg: TrainConfig) -> float:
    """Floating-point operations of the matrix products of an epoch of one run."""
    n, m = cfg.n, cfg.m
    return 2.0 * m * ((2 * n + 1) * (n + 1) + 2 * (1 + cfg.is_multi) * n**2)


def gram_engine(spec: EngineSpec) -> Engine:
    """The gram engine of a batch; a `MultiEpochEngine` where epochs can be replayed."""
    if why_not_replayed(spec.cfg, spec.device.type, len(spec.data)) is None:
        return ReplayedGramEngine(spec)
    return GramEngine(spec)


class ReplayedGramEngine(GramEngine):
    """See the module's documentation and `protocol.MultiEpochEngine`.

    Args:
        spec: Runs for which `why_not_replayed` is None.
        capture: See `Replay`.
    """

    def __init__(self, spec: EngineSpec, capture: Capture = cuda_graph) -> None:
        super().__init__(spec)
        self._replay = Replay(capture)
        like = self._labels.one_hot
        self._curves = like.new_zeros(CURVE_EPOCHS, 3, len(spec.data))  # loss, signal, noise
        self._row = torch.zeros(1, dtype=torch.int64, device=like.device)

    def train_epochs(self, epoch: int, count: int) -> Measured:
        """See `MultiEpochEngine.train_epochs`."""
        # Concatenated outside inference mode: a callback may use autograd on the result.
        sizes = [min(CURVE_EPOCHS, count - k) for k in range(0, count, CURVE_EPOCHS)]
        loss, signal, noise = torch.cat([self._train(size) for size in sizes]).permute(1, 2, 0)
        return Measured(loss, signal, noise)

    def _train(self, count: int) -> Tensor:
        """Train up to `CURVE_EPOCHS` epochs; returns their curves, [epochs, 3, R]."""
        with torch.inference_mode():
            self._row.zero_()
            for _ in range(count):
                self._replay(self._epoch)
            return self._curves[:count].clone()

    def _epoch(self) -> None:
        """The captured step; nothing in it depends on the epoch."""
        signal, noise = self.signal_and_noise()
        loss = self.train_epoch(0)
        self._curves.index_copy_(0, self._row, torch.stack([loss, signal, noise])[None])
        self._row.add_(1)


__all__ = ["MAX_FLOP", "ReplayedGramEngine", "gram_engine", "step_flop", "why_not_replayed"]
