"""Training in coefficient space by a Triton kernel: one run per program, all epochs in one launch.

What `native` does on a CPU (float32, gradient descent, all negatives, one view) is done by
`kernels/trajectory.py` for as many runs at once as a GPU has room for. Inner products, before
training and for evaluation, are those of `kernels/inner_products.py`, in float32 whatever the
precision of the kernel's products: one launch for all runs side by side whose d is the same.

Numerics: float32 with products of the config's precision; see the kernel. A run is the same
whatever runs beside it.
Cost: see the kernel; memory: `engines.memory_bytes`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmcl_fast.config import TrainConfig
from mmcl_fast.data.signal_noise.synthetic import SignalNoiseData, data_bytes
from mmcl_fast.engines.gram import embed
from mmcl_fast.engines.protocol import Measured, Spec
from mmcl_fast.engines.trajectory_base import WholeRuns, beyond_plain_descent
from mmcl_fast.environment import kernels_lack, triton_interpreted
from mmcl_fast.kernels.trajectory_limits import MAX_NEURONS, MAX_SAMPLES
from mmcl_fast.model import power_relu

if TYPE_CHECKING:  # which imports Triton
    from mmcl_fast.kernels.trajectory import Trajectories

BATCH_RUNS = 1056  # eight for each of an H100's multiprocessors, which train one at a time
BATCH_BYTES = 1 << 33


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
    sides, slots, rows = 1 + cfg.is_multi, cfg.n + 192, cfg.m + 64
    columns = (2 - cfg.is_multi) * slots
    return sides * (2 * slots * columns + rows * columns + 2 * rows * slots + slots * slots // 2)


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
        used = torch.tensor([layout.split(p) + layout.split(cfg.n - p) for p in self._positives])
        self._runs = Trajectories(
            layout=layout,
            order=used.argsort(descending=True, stable=True).to(spec.device, torch.int32),
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
        self._in_slot = self._samples_in_slots(S)
        for side, suffix in enumerate(("", "_b")[:sides]):
            self._enter(side, suffix)
        self._test: tuple[Tensor, Tensor] | None = None
        self._is_positive: list[Tensor] | None = None

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
        from mmcl_fast.kernels.inner_products import row_products_fwd

        m, n_test, q = self._cfg.m, self._cfg.n_test, self._cfg.q
        if self._test is None:
            self._test = self._test_products()
        signal = self._runs.signal[:, 0, :m, None]
        own = self._by_sample(self._runs.z[:, 0, :m])
        noise, mu = self.moved()[0]
        gram, start = self._test
        moved = torch.cat([noise, mu[:, :, None]], dim=2)
        z = row_products_fwd(moved, gram, out=torch.empty_like(start), start=start)
        if self._is_positive is None:  # once: sending them waits for the GPU
            self._is_positive = [
                (self._spec.batch.stacked(name) > 0).to(z.device)
                for name in ("labels", "test_labels")
            ]
        seen, unseen = self._is_positive
        along = z[:, :, n_test:]
        return (
            embed(power_relu(own, q), power_relu(torch.cat([signal, -signal], 2), q), seen),
            embed(
                power_relu(z[:, :, :n_test], q),
                power_relu(torch.cat([along, -along], 2), q),
                unseen,
            ),
        )

    def moved(self) -> list[tuple[Tensor, Tensor]]:
        """See `WholeRuns.moved`."""
        m = self._cfg.m
        return [
            (self._by_sample(self._runs.moved[:, side, :m]), self._runs.moved_signal[:, side, :m])
            for side in range(1 + self._cfg.is_multi)
        ]

    def state(self) -> dict[str, Tensor]:
        """See `Engine.state`."""
        return {name: getattr(self._runs, name) for name in _TRAINED}

    def _enter(self, side: int, suffix: str) -> None:
        """Enter inner products and pre-activations of a modality's vectors at the start."""
        from mmcl_fast.kernels.inner_products import row_products_fwd as products

        m, S = self._cfg.m, self._runs.layout.slots
        for part, block in self._spec.batch.parts():
            noise, mu, weights = self._on_device(block, *(f"{x}{suffix}" for x in _COLUMNS))
            at, x, of = self._in_slot[part], mu[:, None], _Side(self._runs, part, side)
            products(x, x, out=of.norm[:, None, None])
            products(weights, x, out=of.signal[:, :m, None])
            kinds = [noise]
            if not self._cfg.is_multi:
                kinds += self._on_device(block, "augmented")
            for k, vectors in enumerate(kinds):
                here = slice(k * S, (k + 1) * S)
                products(noise, vectors, out=of.gram[:, :, here], rows=at, columns=at)
                products(x, vectors, out=of.along_mu[:, None, here], columns=at)
                products(weights, vectors, out=of.z[:, :m, here], columns=at)

    def _test_products(self) -> tuple[Tensor, Tensor]:
        """Products of test vectors and nu with the columns [R, n_test + 1, n + 1], and w(0)."""
        from mmcl_fast.kernels.inner_products import row_products_fwd as products

        n, m, n_test, runs = self._cfg.n, self._cfg.m, self._cfg.n_test, len(self._spec.data)
        gram = self._runs.z.new_empty(runs, n_test + 1, n + 1)
        start = gram.new_empty(runs, m, n_test + 1)
        for part, block in self._spec.batch.parts():
            noise, mu, weights, test, nu = self._on_device(block, *_COLUMNS, "test_noise", "nu")
            for rows, i in ((test, slice(n_test)), (nu[:, None], slice(n_test, None))):
                products(rows, noise, out=gram[part, i, :n])
                products(rows, mu[:, None], out=gram[part, i, n:])
                products(weights, rows, out=start[part, :, i])
        return gram, start

    def _on_device(self, block: SignalNoiseData, *names: str) -> list[Tensor]:
        return [getattr(block, name).to(self._spec.device) for name in names]

    def _samples_in_slots(self, slots: int) -> Tensor:
        """The sample in each slot of each run, -1 where there is none, [R, S], int32."""
        runs, n = self._slots.shape
        empty = torch.full((runs, slots), -1, dtype=torch.int32, device=self._slots.device)
        samples = torch.arange(n, dtype=torch.int32, device=empty.device).expand(runs, -1)
        return empty.scatter_(1, self._slots, samples)

    def _by_sample(self, x: Tensor) -> Tensor:
        """Columns of [R, m, slots or more] in the order of the samples, [R, m, n]."""
        return torch.gather(x, 2, self._slots[:, None, :].expand(-1, x.shape[1], -1))

    def _all_slots(self, splits: list[int]) -> Tensor:
        """The slot of each sample of each run, [R, n]."""
        orders, counts = self._orders, torch.tensor(self._positives)[:, None]
        places = torch.arange(orders.shape[1]).expand_as(orders)
        ranks = torch.empty_like(orders).scatter_(1, orders, places)
        return torch.where(ranks < counts, ranks, ranks + torch.tensor(splits)[:, None] - counts)


class _Side:
    """One modality of some of the runs: their part of each array."""

    def __init__(self, runs: Trajectories, part: slice, side: int) -> None:
        self.gram, self.along_mu = runs.gram[part, side], runs.along_mu[part, side]
        self.norm, self.z = runs.norm[part, side], runs.z[part, side]
        self.signal = runs.signal[part, side]


_COLUMNS = ("noise", "mu", "weights")  # what weights are combinations of
_TRAINED = ("z", "signal", "moved", "moved_signal")


__all__ = ["TritonEngine", "held_numbers", "max_runs", "why_not"]
