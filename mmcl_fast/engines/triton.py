"""Training in coefficient space by a Triton kernel: one run per program, all epochs in one launch.

What `native` does on a CPU (float32, gradient descent, all negatives, one view) is done by
`kernels/trajectory.py` for as many runs at once as a GPU has room for. Inner products and
evaluation are those of `gram`, whatever the precision of the kernel's products.

Numerics: float32 with products of the config's precision; see the kernel. A run is the same
whatever runs beside it.
Cost: see the kernel; memory: `engines.memory_bytes`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmcl_fast.config import TrainConfig
from mmcl_fast.data.synthetic import data_bytes
from mmcl_fast.engines.gram import Columns, embed
from mmcl_fast.engines.pool import one_hot_sides
from mmcl_fast.engines.protocol import Measured, Spec
from mmcl_fast.engines.whole_runs import WholeRuns, beyond_plain_descent
from mmcl_fast.environment import kernels_lack, triton_interpreted
from mmcl_fast.kernels.sizes import MAX_NEURONS, MAX_SAMPLES
from mmcl_fast.model import power_relu
from mmcl_fast.torch_impl.one_pass import Features

BATCH_RUNS = 1024  # seven or so for each multiprocessor: the last ones to finish cost little
BATCH_BYTES = 1 << 32


def why_not(cfg: TrainConfig) -> str | None:
    """Why this engine cannot train this exactly, or None."""
    on_cuda = torch.cuda.is_available() and cfg.device != "cpu"
    if not on_cuda and not triton_interpreted():
        return (
            "expected a CUDA device (on the CPU a process started with TRITON_INTERPRET=1), got "
            f"device {cfg.device}; use native or gram"
        )
    if lacks := kernels_lack(on_cuda=on_cuda):
        return f"{lacks}; use gram"
    for name, size, most in (("n", cfg.n, MAX_SAMPLES), ("m", cfg.m, MAX_NEURONS)):
        if size > most:
            return f"{name}: a run in one program takes up to {most}, got {size}; use gram"
    return beyond_plain_descent(cfg, "the trajectory kernel")


def max_runs(cfg: TrainConfig) -> int:
    """Runs to train side by side: enough to fill any GPU, within a bound of memory."""
    bytes_of_run = data_bytes(cfg) + 4 * held_numbers(cfg)
    return max(1, min(BATCH_RUNS, BATCH_BYTES // bytes_of_run))


def held_numbers(cfg: TrainConfig) -> int:
    """Numbers that a run holds, at the most: inner products, state and what steps leave behind."""
    sides, slots, rows = 1 + cfg.is_multi, cfg.n + 128, cfg.m + 64
    columns = (2 - cfg.is_multi) * slots
    return sides * (2 * slots * columns + rows * columns + 2 * rows * slots + slots * slots)


class TritonEngine(WholeRuns):
    """See the module's documentation, `protocol.Engine` and `protocol.StretchEngine`."""

    def __init__(self, spec: Spec) -> None:
        from mmcl_fast.kernels.trajectory import Layout, Trajectories  # which imports Triton

        super().__init__(spec)
        cfg, runs, sides = self._cfg, len(spec.data), 1 + self._cfg.is_multi
        zeros = torch.zeros((), device=spec.device).new_zeros
        layout = Layout.of(cfg.n, cfg.m, cfg.precision, zeros(0))
        S, M, V = layout.slots, layout.rows, layout.slots * (3 - sides)
        self._slots = self._all_slots([layout.split(p) for p in self._positives]).to(spec.device)
        self._runs = Trajectories(
            layout=layout,
            gram=zeros(runs, sides, S, V),
            along_mu=zeros(runs, sides, V),
            norm=zeros(runs, sides),
            z=zeros(runs, sides, M, V),
            signal=zeros(runs, sides, M),
            moved=zeros(runs, sides, M, S),
            moved_signal=zeros(runs, sides, M),
            positives=torch.tensor(self._positives, dtype=torch.int32, device=spec.device),
            tau=torch.tensor([c.tau_value for c in spec.configs], device=spec.device),
            eta=torch.tensor([c.eta for c in spec.configs], device=spec.device),
        )
        self._columns = [self._columns_of("_b" if side else "") for side in range(sides)]
        for side, columns in enumerate(self._columns):
            self._fill(side, 0, *columns.project(columns.noise, columns.mu))
            if not cfg.is_multi:
                views = self._each("augmented")
                self._fill(side, S, *columns.project(views, columns.mu))
        self._test: tuple[Tensor, Tensor] | None = None

    def run(self, count: int, *, update: bool) -> Measured:
        """See `WholeRuns.run`."""
        from mmcl_fast.kernels.trajectory import trajectory_fwd

        cfg = self._cfg
        return Measured(
            *trajectory_fwd(self._runs, count, q=cfg.q, precision=cfg.precision, update=update)
        )

    def signal_and_noise(self) -> tuple[Tensor, Tensor]:
        """See `Engine.signal_and_noise`."""
        measured = self.run(1, update=False)
        return measured.signal[:, 0], measured.noise[:, 0]

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """See `Engine.embeddings`."""
        if self._test is None:
            self._test = self._columns[0].project(self._each("test_noise"), self._each("nu"))
        m, q = self._cfg.m, self._cfg.q
        signal = self._runs.signal[:, 0, :m, None]
        own = self._by_sample(self._runs.z[:, 0, :m])
        seen = Features(power_relu(torch.cat([own, signal, -signal], dim=2), q))
        noise, mu = self.moved()[0]
        gram, start = self._test
        moved = torch.cat([noise, mu[:, :, None]], dim=2)
        unseen = Features(power_relu(torch.baddbmm(start, moved, gram), q))
        sides = (one_hot_sides(torch.stack(self._each(f"{x}labels"))) for x in ("", "test_"))
        return embed(seen, next(sides)), embed(unseen, next(sides))

    def moved(self) -> list[tuple[Tensor, Tensor]]:
        """See `WholeRuns.moved`."""
        m = self._cfg.m
        return [
            (self._by_sample(self._runs.moved[:, side, :m]), self._runs.moved_signal[:, side, :m])
            for side in range(len(self._columns))
        ]

    def state(self) -> dict[str, Tensor]:
        """See `Engine.state`."""
        return {name: getattr(self._runs, name) for name in _TRAINED}

    def _fill(self, side: int, first: int, gram: Tensor, start: Tensor) -> None:
        """Enter inner products and pre-activations of vectors from column `first` on."""
        runs, n, m = self._runs, self._cfg.n, self._cfg.m
        r = torch.arange(len(gram), device=gram.device)[:, None]
        at = self._slots
        runs.gram[r[:, :, None], side, at[:, :, None], first + at[:, None, :]] = gram[:, :n, :n]
        runs.along_mu[r, side, first + at] = gram[:, n, :n]
        runs.norm[:, side] = gram[:, n, n]
        # What is indexed comes first: [R, n, m].
        runs.z[r, side, :m, first + at] = start[:, :, :n].mT
        runs.signal[:, side, :m] = start[:, :, n]

    def _by_sample(self, x: Tensor) -> Tensor:
        """Columns of [R, m, slots or more] in the order of the samples, [R, m, n]."""
        return torch.gather(x, 2, self._slots[:, None, :].expand(-1, x.shape[1], -1))

    def _all_slots(self, splits: list[int]) -> Tensor:
        """The slot of each sample of each run, [R, n]."""
        orders, counts = self._orders, torch.tensor(self._positives)[:, None]
        places = torch.arange(orders.shape[1]).expand_as(orders)
        ranks = torch.empty_like(orders).scatter_(1, orders, places)
        return torch.where(ranks < counts, ranks, ranks + torch.tensor(splits)[:, None] - counts)

    def _columns_of(self, suffix: str) -> Columns:
        return Columns(*(self._each(f"{name}{suffix}") for name in ("noise", "mu", "weights")))

    def _each(self, name: str) -> list[Tensor]:
        device, tensors = self._spec.device, [getattr(data, name) for data in self._spec.data]
        if device == tensors[0].device or len({x.shape for x in tensors}) > 1:
            return [x.to(device) for x in tensors]
        return list(torch.stack(tensors).to(device).unbind())  # one copy to the device for all


_TRAINED = ("z", "signal", "moved", "moved_signal")


__all__ = ["TritonEngine", "held_numbers", "max_runs", "why_not"]
