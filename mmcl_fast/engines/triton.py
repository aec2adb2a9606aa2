"""Training in coefficient space by a Triton kernel: one run per program, all epochs in one launch.

`kernels/trajectory.py` supports the settings of `native` (float32 gradient descent, all negatives,
one view) on a GPU. Inner products, before training and for evaluation, are computed by
`kernels/inner_products.py` in float32 for any precision of the kernel: one launch for the runs of
each block of the data (`SignalNoiseBatch`).

Numerics: float32 with products of the config's precision; see the kernel. The result of a run does
not depend on its batch.
Cost: see the kernel; memory: `engines.memory_bytes`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmcl_fast.config import TrainConfig
from mmcl_fast.data.signal_noise.synthetic import SignalNoiseData, data_bytes
from mmcl_fast.engines.activation import activate
from mmcl_fast.engines.gram import embed
from mmcl_fast.engines.protocol import Embeddings, EngineSpec, Measured, OodSet
from mmcl_fast.engines.trajectory_base import TrajectoryEngine, unsupported_setting
from mmcl_fast.environment import kernels_lack, triton_interpreted
from mmcl_fast.kernels.trajectory_limits import MAX_NEURONS, MAX_SAMPLES

if TYPE_CHECKING:  # which imports Triton
    from mmcl_fast.kernels.trajectory import Trajectories

BATCH_RUNS = 1056  # eight per multiprocessor of an H100, each of which trains one run at a time
BATCH_BYTES = 1 << 33


def why_not(cfg: TrainConfig) -> str | None:
    """Why this engine cannot train this exactly, or None."""
    on_cuda = torch.cuda.is_available() and cfg.device != "cpu"
    if not on_cuda and not triton_interpreted():
        return (
            "expected a CUDA device (on the CPU a process started with TRITON_INTERPRET=1), got "
            f"device {cfg.device}; use native or gram"
        )
    if reason := kernels_lack(on_cuda=on_cuda):
        return f"{reason}; use gram"
    for name, size, limit in (("n", cfg.n, MAX_SAMPLES), ("m", cfg.m, MAX_NEURONS)):
        if size > limit:
            return f"{name}: a run in one program takes up to {limit}, got {size}; use gram"
    return unsupported_setting(cfg, "the trajectory kernel")


def max_runs(cfg: TrainConfig) -> int:
    """Runs of one batch: enough to fill any GPU, within a bound on memory."""
    bytes_of_run = data_bytes(cfg) + 4 * held_elements(cfg)
    return max(1, min(BATCH_RUNS, BATCH_BYTES // bytes_of_run))


def held_elements(cfg: TrainConfig) -> int:
    """Upper bound on the elements stored for a run: inner products, state, workspace of a step."""
    sides, slots, rows = 1 + cfg.is_multi, cfg.n + 192, cfg.m + 64
    columns = (2 - cfg.is_multi) * slots
    return sides * (2 * slots * columns + rows * columns + 2 * rows * slots + slots * slots // 2)


class TritonEngine(TrajectoryEngine):
    """See the module's documentation, `protocol.Engine` and `protocol.MultiEpochEngine`."""

    def __init__(self, spec: EngineSpec) -> None:
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
            self._write_products(side, suffix)
        self._ood: dict[OodSet, tuple[Tensor, Tensor, Tensor]] = {}
        self._positive: Tensor | None = None

    def run(self, count: int, *, update: bool) -> Measured:
        """See `TrajectoryEngine.run`."""
        from mmcl_fast.kernels.trajectory import trajectory_fwd

        cfg = self._cfg
        return Measured(
            *trajectory_fwd(self._runs, count, q=cfg.q, precision=cfg.precision, update=update)
        )

    def signal_and_noise(self) -> tuple[Tensor, Tensor]:
        """See `Engine.signal_and_noise`."""
        measured = self.run(1, update=False)
        return measured.signal[:, 0], measured.noise[:, 0]

    def embeddings(self) -> Embeddings:
        """See `Engine.embeddings`."""
        cfg, m, q = self._cfg, self._cfg.m, self._cfg.q
        signal = self._runs.signal[:, 0, :m, None]
        noise_z = self._by_sample(self._runs.z[:, 0, :m])
        if self._positive is None:  # once: the copy waits for the GPU
            self._positive = self._are_positive("labels")
        return Embeddings(
            embed(
                activate(noise_z, q),
                activate(torch.cat([signal, -signal], 2), q),
                self._positive,
            ),
            self._embed_ood("test", cfg.n_test),
            self._embed_ood("probe", k) if (k := cfg.probe_samples_value) else None,
        )

    def _embed_ood(self, name: OodSet, count: int) -> Tensor:
        """Embeddings of `count` samples of the test distribution, [R, count, m]."""
        from mmcl_fast.kernels.inner_products import row_products_fwd

        q = self._cfg.q
        if name not in self._ood:  # once: the copy of the labels waits for the GPU
            positive = self._are_positive(f"{name}_labels")
            self._ood[name] = *self._ood_products(name, count), positive
        gram, start, positive = self._ood[name]
        noise, mu = self.span_coefficients()[0]
        coefficients = torch.cat([noise, mu[:, :, None]], dim=2)
        z = row_products_fwd(coefficients, gram, out=torch.empty_like(start), start=start)
        along = z[:, :, count:]
        return embed(
            activate(z[:, :, :count], q),
            activate(torch.cat([along, -along], 2), q),
            positive,
        )

    def _are_positive(self, name: str) -> Tensor:
        """Whether labels are +1, on the device."""
        return (self._spec.batch.stacked(name) > 0).to(self._spec.device)

    def span_coefficients(self) -> list[tuple[Tensor, Tensor]]:
        """See `TrajectoryEngine.span_coefficients`."""
        m = self._cfg.m
        return [
            (self._by_sample(self._runs.moved[:, side, :m]), self._runs.moved_signal[:, side, :m])
            for side in range(1 + self._cfg.is_multi)
        ]

    def state(self) -> dict[str, Tensor]:
        """See `Engine.state`."""
        return {name: getattr(self._runs, name) for name in _TRAINED}

    def _write_products(self, side: int, suffix: str) -> None:
        """Compute the inner products and initial pre-activations of a modality."""
        from mmcl_fast.kernels.inner_products import row_products_fwd as products

        m, S = self._cfg.m, self._runs.layout.slots
        for part, block in self._spec.batch.parts():
            noise, mu, weights = self._on_device(block, *(f"{x}{suffix}" for x in _SPANNING))
            at, x, of = self._in_slot[part], mu[:, None], _ModalityArrays(self._runs, part, side)
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

    def _ood_products(self, name: OodSet, count: int) -> tuple[Tensor, Tensor]:
        """Inner products of OOD patches and nu, v = count + 1, with modality A.

        Returns: With its columns [R, v, n + 1], and with w(0) [R, m, v].
        """
        from mmcl_fast.kernels.inner_products import row_products_fwd as products

        n, m, runs = self._cfg.n, self._cfg.m, len(self._spec.data)
        gram = self._runs.z.new_empty(runs, count + 1, n + 1)
        start = gram.new_empty(runs, m, count + 1)
        for part, block in self._spec.batch.parts():
            noise, mu, weights, patches, nu = self._on_device(
                block, *_SPANNING, f"{name}_noise", "nu"
            )
            for rows, i in ((patches, slice(count)), (nu[:, None], slice(count, None))):
                products(rows, noise, out=gram[part, i, :n])
                products(rows, mu[:, None], out=gram[part, i, n:])
                products(weights, rows, out=start[part, :, i])
        return gram, start

    def _on_device(self, block: SignalNoiseData, *names: str) -> list[Tensor]:
        return [getattr(block, name).to(self._spec.device) for name in names]

    def _samples_in_slots(self, slots: int) -> Tensor:
        """Index of the sample in each slot of each run, -1 if empty, [R, S], int32."""
        runs, n = self._slots.shape
        empty = torch.full((runs, slots), -1, dtype=torch.int32, device=self._slots.device)
        samples = torch.arange(n, dtype=torch.int32, device=empty.device).expand(runs, -1)
        return empty.scatter_(1, self._slots, samples)

    def _by_sample(self, x: Tensor) -> Tensor:
        """Columns [R, m, >= slots] reordered by sample, [R, m, n]."""
        return torch.gather(x, 2, self._slots[:, None, :].expand(-1, x.shape[1], -1))

    def _all_slots(self, splits: list[int]) -> Tensor:
        """Slot of each sample of each run, [R, n]."""
        orders, counts = self._orders, torch.tensor(self._positives)[:, None]
        ranks_in_order = torch.arange(orders.shape[1]).expand_as(orders)
        ranks = torch.empty_like(orders).scatter_(1, orders, ranks_in_order)
        return torch.where(ranks < counts, ranks, ranks + torch.tensor(splits)[:, None] - counts)


class _ModalityArrays:
    """Views of the arrays of one modality in some of the runs."""

    def __init__(self, runs: Trajectories, part: slice, side: int) -> None:
        self.gram, self.along_mu = runs.gram[part, side], runs.along_mu[part, side]
        self.norm, self.z = runs.norm[part, side], runs.z[part, side]
        self.signal = runs.signal[part, side]


_SPANNING = ("noise", "mu", "weights")  # they span the weights
_TRAINED = ("z", "signal", "moved", "moved_signal")


__all__ = ["TritonEngine", "held_elements", "max_runs", "why_not"]
