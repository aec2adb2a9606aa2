"""Training in coefficient space by the native core: whole stretches of epochs in one call.

What `gram` does with a matrix product per step is done here by C++ (`csrc/core/trajectory.h`), for
the plain case: float32, gradient descent, all negatives, one view. Samples are sorted by label, so
only scores between the labels are computed; in the single-modal case one block of them serves the
queries of both labels. Pre-activations move by `Z <- Z + C K`, and of the change C only the columns
of active samples are touched.

Numerics: float32; the same bits on every instruction set, for any number of threads and any batch.
Cost of an epoch per run: 2 m (p (2 n + 1)(n + 1) + (1 + p) n^2 / 2) flop for a fraction p of active
pre-activations; one run per thread.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mmcl_fast import _native
from mmcl_fast.config import TrainConfig
from mmcl_fast.data.signal_noise.synthetic import SignalNoiseData, data_bytes
from mmcl_fast.engines.protocol import Measured, Spec
from mmcl_fast.engines.trajectory_base import WholeRuns, beyond_plain_descent

# Beyond this nothing was measured, and more cores help `gram` alone; up to here
# `python -m bench.cpu.choices` times the two engines.
AUTO_SAMPLES = 2048
BATCH_RUNS = 64
BATCH_BYTES = 1 << 30
Rows = tuple[npt.NDArray[np.float32], Sequence[int] | None]  # and the order to take them in
Job = tuple[list[npt.NDArray[np.float32]], list[Rows], list[Rows], int]


def why_not(cfg: TrainConfig) -> str | None:
    """Why the native engine cannot train this exactly, or None."""
    if cfg.device == "cuda":
        return "device cuda: the native core runs on the CPU; use triton or gram"
    return beyond_plain_descent(cfg, "the native core")


def is_quickest(cfg: TrainConfig) -> bool:
    """Whether `auto` may prefer it where it can train a config: small runs."""
    return cfg.n <= AUTO_SAMPLES


def max_runs(cfg: TrainConfig) -> int:
    """Runs to train side by side: enough for any number of threads, within a bound of memory."""
    columns = (2 - cfg.is_multi) * cfg.n + 1
    numbers = (1 + cfg.is_multi) * columns * (cfg.n + 1 + cfg.m)
    return max(1, min(BATCH_RUNS, BATCH_BYTES // (data_bytes(cfg) + 4 * numbers)))


class NativeEngine(WholeRuns):
    """See the module's documentation, `protocol.Engine` and `protocol.StretchEngine`."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self._labels = spec.batch.stacked("labels").gather(1, self._orders)
        self._test_labels = spec.batch.stacked("test_labels")
        suffixes = ("", "_b") if self._cfg.is_multi else ("",)
        self._gram, self._z, self._moved = [], [], []
        for suffix in suffixes:
            gram, z = self._project(suffix)
            self._gram.append(gram)
            self._z.append(z)
            self._moved.append(z.new_zeros(len(spec.data), self._cfg.m, self._cfg.n + 1))
        self._test: tuple[Tensor, Tensor] | None = None

    def signal_and_noise(self) -> tuple[Tensor, Tensor]:
        """See `Engine.signal_and_noise`."""
        n, z = self._cfg.n, self._z[0]
        return z[:, :, n].abs().amax(1), z[:, :, :n].amax((1, 2))

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """See `Engine.embeddings`."""
        cfg, z = self._cfg, self._z[0]
        gram, start = self._project_test()
        seen = z.new_empty(len(z), cfg.n, cfg.m)
        unseen = z.new_empty(len(z), cfg.n_test, cfg.m)
        threads = torch.get_num_threads()
        _native.embed(
            seen.numpy(),
            z.numpy(),
            self._labels.numpy(),
            self._orders.numpy(),
            q=cfg.q,
            threads=threads,
        )
        _native.embed(
            unseen.numpy(),
            start.numpy(),
            self._test_labels.numpy(),
            q=cfg.q,
            moved=self._moved[0].numpy(),
            gram=gram.numpy(),
            threads=threads,
        )
        return seen, unseen

    def moved(self) -> list[tuple[Tensor, Tensor]]:
        """See `WholeRuns.moved`."""
        n = self._cfg.n
        found = []
        for moved in self._moved:
            noise = torch.empty_like(moved[:, :, :n])
            for r, order in enumerate(self._orders):
                noise[r].index_copy_(1, order, moved[r, :, :n])
            found.append((noise, moved[:, :, n]))
        return found

    def state(self) -> dict[str, Tensor]:
        """See `Engine.state`."""
        named = {f"z_{k}": z for k, z in enumerate(self._z)}
        return named | {f"moved_{k}": moved for k, moved in enumerate(self._moved)}

    def run(self, count: int, *, update: bool) -> Measured:
        """See `WholeRuns.run`."""
        cfg = self._cfg
        curves = self._z[0].new_empty(3, len(self._spec.data), count)
        _native.train_trajectories(
            [gram.numpy() for gram in self._gram],
            [z.numpy() for z in self._z],
            [moved.numpy() for moved in self._moved],
            self._positives,
            [cfg.tau_value for cfg in self._spec.configs],
            [cfg.eta for cfg in self._spec.configs],
            curves.numpy(),
            n=cfg.n,
            m=cfg.m,
            q=cfg.q,
            update=update,
            threads=torch.get_num_threads(),
        )
        return Measured(*curves)

    def _project(self, suffix: str) -> tuple[Tensor, Tensor]:
        """Inner products of a modality's vectors with its columns [R, n + 1, v] and w(0) [R, m, v].

        Vectors: the noise patches, mu and, in the single-modal case, the views; samples sorted.
        """
        n, m, runs = self._cfg.n, self._cfg.m, len(self._spec.data)
        vectors = n + 1 + (0 if self._cfg.is_multi else n)
        gram, z = torch.empty(runs, n + 1, vectors), torch.empty(runs, m, vectors)
        jobs: list[Job] = []
        for x, order, *out in zip(
            self._spec.data, self._orders.tolist(), gram.numpy(), z.numpy(), strict=True
        ):
            columns, weights = _columns(x, order, suffix)
            views = [] if x.augmented is None else [(_rows(x.augmented), order)]
            jobs.append((out, [*columns, (weights, None)], [*columns, *views], n + 1))
        _native.inner_products(jobs, threads=torch.get_num_threads())
        return gram, z

    def _project_test(self) -> tuple[Tensor, Tensor]:
        """The same of modality A with the test data and nu, [R, ..., n_test + 1]."""
        if self._test is None:
            n, m, runs = self._cfg.n, self._cfg.m, len(self._spec.data)
            vectors = self._cfg.n_test + 1
            gram, start = torch.empty(runs, n + 1, vectors), torch.empty(runs, m, vectors)
            jobs: list[Job] = []
            for x, order, *out in zip(
                self._spec.data, self._orders.tolist(), gram.numpy(), start.numpy(), strict=True
            ):
                columns, weights = _columns(x, order, "")
                test: list[Rows] = [(_rows(x.test_noise), None), (_rows(x.nu), None)]
                jobs.append((out, [*columns, (weights, None)], test, 0))
            _native.inner_products(jobs, threads=torch.get_num_threads())
            self._test = gram, start
        return self._test


def _columns(
    x: SignalNoiseData, order: list[int], suffix: str
) -> tuple[list[Rows], npt.NDArray[np.float32]]:
    """What a modality's weights are combinations of, but for w(0), and w(0)."""
    noise, mu, weights = (getattr(x, f"{name}{suffix}") for name in ("noise", "mu", "weights"))
    return [(_rows(noise), order), (_rows(mu), None)], _rows(weights)


def _rows(tensor: Tensor) -> npt.NDArray[np.float32]:
    """Rows as they are, or a vector as one row."""
    rows: npt.NDArray[np.float32] = torch.atleast_2d(tensor).contiguous().numpy()
    return rows


__all__ = ["NativeEngine", "is_quickest", "max_runs", "why_not"]
