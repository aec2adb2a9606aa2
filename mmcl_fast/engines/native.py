"""Training in coefficient space by the native core (`csrc/core/trajectory.h`), many epochs a call.

Supports float32 gradient descent with all negatives and one view. Samples are sorted by label, so
only scores between the labels are computed; single-modal, one block of them serves the queries of
both labels. The update is `Z <- Z + C K`, restricted to the columns of C of active samples.

Numerics: float32; bit-identical for any instruction set, number of threads and batch.
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
from mmcl_fast.data.signal_noise.synthetic import data_bytes
from mmcl_fast.engines.protocol import Embeddings, Engine, EngineSpec, Measured, OodSet
from mmcl_fast.engines.trajectory_base import TrajectoryEngine, unsupported_setting
from mmcl_fast.engines.variants import native as variants
from mmcl_fast.engines.variants.sizes import able_engine

# The largest n at which `python -m bench.cpu.choices` compares the engine with `gram`, which alone
# uses several cores for one run.
AUTO_SAMPLES = 2048
# Of variants, whose scores are those of all pairs: at n = 1024 an epoch takes 0.7 times as long as
# in `gram`, at 2048 1.1 times (negatives all, m = 50, one thread).
AUTO_VARIANT_SAMPLES = 1024
BATCH_RUNS = 64
BATCH_BYTES = 1 << 30
OrderedRows = tuple[npt.NDArray[np.float32], Sequence[int] | None]  # and their order
ProductJob = tuple[list[npt.NDArray[np.float32]], list[OrderedRows], list[OrderedRows], int]


def why_not(cfg: TrainConfig) -> str | None:
    """Why the native engine cannot train this exactly, or None."""
    if cfg.device == "cuda":
        able = able_engine(cfg) if cfg.is_variant else "triton or gram"
        return f"device cuda: the native core runs on the CPU; use {able}"
    if cfg.is_variant:
        return variants.why_not(cfg)
    return unsupported_setting(cfg, "the native core")


def is_quickest(cfg: TrainConfig) -> bool:
    """Whether `auto` prefers this engine for a config that it can train: small n."""
    return cfg.n <= (AUTO_VARIANT_SAMPLES if cfg.is_variant else AUTO_SAMPLES)


def max_runs(cfg: TrainConfig) -> int:
    """Runs of one batch: enough for any number of threads, within a bound on memory."""
    if cfg.is_variant:
        elements = variants.state_elements(cfg)
    else:
        columns = (2 - cfg.is_multi) * cfg.n + 1
        elements = (1 + cfg.is_multi) * columns * (cfg.n + 1 + cfg.m)
    return max(1, min(BATCH_RUNS, BATCH_BYTES // (data_bytes(cfg) + 4 * elements)))


def native_engine(spec: EngineSpec) -> Engine:
    """The engine of the paper's model, or of its variants."""
    return variants.VariantNativeEngine(spec) if spec.cfg.is_variant else NativeEngine(spec)


class NativeEngine(TrajectoryEngine):
    """See the module's documentation, `protocol.Engine` and `protocol.MultiEpochEngine`."""

    def __init__(self, spec: EngineSpec) -> None:
        super().__init__(spec)
        self._labels = spec.batch.stacked("labels").gather(1, self._orders)
        suffixes = ("", "_b") if self._cfg.is_multi else ("",)
        self._gram, self._z, self._coefficients = [], [], []
        for suffix in suffixes:
            gram, z = self._project(suffix)
            self._gram.append(gram)
            self._z.append(z)
            self._coefficients.append(z.new_zeros(len(spec.data), self._cfg.m, self._cfg.n + 1))
        self._ood: dict[OodSet, tuple[Tensor, Tensor, Tensor]] = {}

    def signal_and_noise(self) -> tuple[Tensor, Tensor]:
        """See `Engine.signal_and_noise`."""
        n, z = self._cfg.n, self._z[0]
        return z[:, :, n].abs().amax(1), z[:, :, :n].amax((1, 2))

    def embeddings(self) -> Embeddings:
        """See `Engine.embeddings`."""
        cfg, z = self._cfg, self._z[0]
        train = z.new_empty(len(z), cfg.n, cfg.m)
        _native.embed(
            train.numpy(),
            z.numpy(),
            self._labels.numpy(),
            self._orders.numpy(),
            q=cfg.q,
            threads=torch.get_num_threads(),
        )
        return Embeddings(
            train,
            self._embed_ood("test", cfg.n_test),
            self._embed_ood("probe", k) if (k := cfg.probe_samples_value) else None,
        )

    def _embed_ood(self, name: OodSet, count: int) -> Tensor:
        """Embeddings of `count` samples of the test distribution, [R, count, m]."""
        if name not in self._ood:
            labels = self._spec.batch.stacked(f"{name}_labels")
            self._ood[name] = *self._project_ood(name, count), labels
        gram, start, labels = self._ood[name]
        out = start.new_empty(len(start), count, self._cfg.m)
        _native.embed(
            out.numpy(),
            start.numpy(),
            labels.numpy(),
            q=self._cfg.q,
            moved=self._coefficients[0].numpy(),
            gram=gram.numpy(),
            threads=torch.get_num_threads(),
        )
        return out

    def span_coefficients(self) -> list[tuple[Tensor, Tensor]]:
        """See `TrajectoryEngine.span_coefficients`."""
        n = self._cfg.n
        modalities = []
        for coefficients in self._coefficients:
            noise = torch.empty_like(coefficients[:, :, :n])
            for r, order in enumerate(self._orders):
                noise[r].index_copy_(1, order, coefficients[r, :, :n])
            modalities.append((noise, coefficients[:, :, n]))
        return modalities

    def state(self) -> dict[str, Tensor]:
        """See `Engine.state`."""
        named = {f"z_{k}": z for k, z in enumerate(self._z)}
        return named | {f"moved_{k}": x for k, x in enumerate(self._coefficients)}

    def run(self, count: int, *, update: bool) -> Measured:
        """See `TrajectoryEngine.run`."""
        cfg = self._cfg
        curves = self._z[0].new_empty(3, len(self._spec.data), count)
        _native.train_trajectories(
            [gram.numpy() for gram in self._gram],
            [z.numpy() for z in self._z],
            [x.numpy() for x in self._coefficients],
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
        """Inner products of the vectors of a modality with its columns and with w(0).

        Vectors: the noise patches, mu and, single-modal, the views, sorted by label.

        Returns: K [R, n + 1, v] and Z(0) [R, m, v].
        """
        n, m, runs = self._cfg.n, self._cfg.m, len(self._spec.data)
        vectors = n + 1 + (0 if self._cfg.is_multi else n)
        gram, z = torch.empty(runs, n + 1, vectors), torch.empty(runs, m, vectors)
        jobs: list[ProductJob] = []
        noise, mu, weights = self._columns(suffix)
        augmented = self._rows("augmented") if vectors > n + 1 else [None] * runs
        for r, (order, *out) in enumerate(
            zip(self._orders.tolist(), gram.numpy(), z.numpy(), strict=True)
        ):
            columns: list[OrderedRows] = [(noise[r], order), (mu[r], None)]
            view = augmented[r]
            views = [] if view is None else [(view, order)]
            jobs.append((out, [*columns, (weights[r], None)], [*columns, *views], n + 1))
        _native.inner_products(jobs, threads=torch.get_num_threads())
        return gram, z

    def _project_ood(self, name: OodSet, count: int) -> tuple[Tensor, Tensor]:
        """As `_project`, of OOD patches and nu with modality A, v = count + 1."""
        n, m, runs = self._cfg.n, self._cfg.m, len(self._spec.data)
        gram, start = torch.empty(runs, n + 1, count + 1), torch.empty(runs, m, count + 1)
        jobs: list[ProductJob] = []
        noise, mu, weights = self._columns("")
        ood_noise, nu = self._rows(f"{name}_noise"), self._rows("nu")
        for r, (order, *out) in enumerate(
            zip(self._orders.tolist(), gram.numpy(), start.numpy(), strict=True)
        ):
            columns: list[OrderedRows] = [(noise[r], order), (mu[r], None), (weights[r], None)]
            jobs.append((out, columns, [(ood_noise[r], None), (nu[r], None)], 0))
        _native.inner_products(jobs, threads=torch.get_num_threads())
        return gram, start

    def _columns(self, suffix: str) -> list[list[npt.NDArray[np.float32]]]:
        """Of each run what spans the weights of a modality (noise patches, mu), and w(0)."""
        return [self._rows(f"{name}{suffix}") for name in ("noise", "mu", "weights")]

    def _rows(self, name: str) -> list[npt.NDArray[np.float32]]:
        """A field of each run: a matrix, or a vector as one row."""
        rows: list[npt.NDArray[np.float32]] = []
        for block in self._spec.batch.blocks:
            # One array of all runs: a view of a tensor costs ten times that of an array.
            field = getattr(block, name).contiguous().numpy()
            rows += list(field if field.ndim == 3 else field[:, None])
        return rows


__all__ = ["NativeEngine", "is_quickest", "max_runs", "native_engine", "why_not"]
