"""Drawing the data of many runs: a few calls per stream, on a GPU one.

The data of a run are a pure function of its config, bit-identical for any batch, number of threads
and device.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from mmcl_fast.config import TrainConfig
from mmcl_fast.data.signal_noise.reduced import reduced_rows
from mmcl_fast.data.signal_noise.run_batches import SignalNoiseBatch, on_device
from mmcl_fast.data.signal_noise.synthetic import (
    TORCH_DTYPES,
    SignalNoiseData,
    axis_vectors,
    check_both_labels,
    check_negatives,
    data_bytes,
)
from mmcl_fast.data.stream.generate import NormalRuns, label_runs, normal_runs
from mmcl_fast.data.stream.memory import SMALL_BYTES, available_bytes
from mmcl_fast.errors import DataError

CHUNK_BYTES = 1 << 24
CHUNK_LABELS = 1 << 20


def sample(cfg: TrainConfig) -> SignalNoiseData:
    """Draw the data and initial weights of a run: a pure function of the config.

    Args:
        cfg: Sizes, strengths, `data_key` and `init_key`.

    Returns: Data in the config's dtype. Reduced data have `cfg.columns` instead of d coordinates;
        streamed data have no noise patches of training samples, which are drawn when needed.
    Raises: DataError: all n labels came out equal (then no sample has a negative), or all of the
        linear probe's; the rarer label has fewer samples than `negatives_per_sample`; or the data
        would not fit into memory.
    """
    return sample_many([cfg])[0]


def sample_with_labels(cfg: TrainConfig, labels: Tensor) -> SignalNoiseData:
    """`sample(cfg)` with given labels [n]; all else is as drawn.

    Raises: DataError: the data would not fit into memory.
    """
    _require_memory(cfg, 1)
    return SignalNoiseBatch([_Draw([cfg], normal_runs, labels[None]).block()])[0]


def sample_many(
    configs: Sequence[TrainConfig], device: torch.device | None = None
) -> SignalNoiseBatch:
    """`sample` of each config, bit for bit; consecutive runs of equal sizes share calls.

    Args:
        configs: Settings of each run; any may differ.
        device: A CUDA device to draw on; default: the CPU.

    Returns: The data in the order of the configs; all fields but the labels are on the device.
    Raises: DataError: as `sample`; the memory of a GPU is not checked.
    """
    normals: NormalRuns = normal_runs
    on_gpu = device is not None and device.type != "cpu"
    if device is not None and on_gpu:
        from mmcl_fast.data.signal_noise.gpu import DeviceNormals

        normals = DeviceNormals(device)
    blocks = []
    for _, group in groupby(configs, _sizes):
        alike = list(group)
        if not on_gpu:
            _require_memory(alike[0], len(alike))
        # On a CPU the draws of one call stay in the cache until the views are computed.
        size = len(alike) if on_gpu else max(1, CHUNK_BYTES // data_bytes(alike[0]))
        blocks += [
            _Draw(alike[start : start + size], normals).block()
            for start in range(0, len(alike), size)
        ]
    return SignalNoiseBatch(blocks)


def _sizes(cfg: TrainConfig) -> tuple[Any, ...]:
    """Settings that must be equal for the data of runs to be drawn by one call."""
    test = cfg.n_test, cfg.probe_samples_value
    return cfg.data, cfg.modality, cfg.dtype, cfg.n, cfg.m, *test, cfg.columns, cfg.columns_b


class _Draw:
    """Data of runs of equal sizes."""

    def __init__(
        self,
        configs: Sequence[TrainConfig],
        normals: NormalRuns,
        labels: Tensor | None = None,
    ) -> None:
        self._configs, self._cfg, self._normals = configs, configs[0], normals
        self._keys = [cfg.data_key for cfg in configs]
        self._init_keys = [cfg.init_key for cfg in configs]
        self._labels = labels

    def block(self) -> SignalNoiseData:
        """Data of all runs; each tensor has a leading dimension of runs."""
        cfg, configs = self._cfg, self._configs
        labels = _drawable_labels(configs) if self._labels is None else self._labels
        noise, weights = self._patches("a")
        sigma_xi = [c.sigma_xi for c in configs]
        fields: dict[str, Any] = {
            "labels": labels,
            "mu": axis_vectors(cfg.columns, 0, [c.mu_norm for c in configs], weights),
            "nu": axis_vectors(cfg.columns, 0, [c.nu_norm for c in configs], weights),
            "noise": noise,
            "augmented": None,
            "weights": weights,
            "test_labels": label_runs(self._keys, "test_labels", cfg.n_test, cfg.dtype),
            "test_noise": self._draw("test_noise", (cfg.n_test, cfg.columns), sigma_xi),
        }
        if k := cfg.probe_samples_value:
            fields["probe_labels"] = _drawable_probe_labels(configs)
            fields["probe_noise"] = self._draw("probe_noise", (k, cfg.columns), sigma_xi)
        if cfg.is_multi:
            fields["noise_b"], weights_b = self._patches("b")
            # The paper's mu~ is along the second axis; reduced data have one explicit axis.
            axis = 0 if cfg.data == "reduced" else min(1, cfg.columns_b - 1)
            norms = [c.mu_b_norm for c in configs]
            fields["mu_b"] = axis_vectors(cfg.columns_b, axis, norms, weights_b)
            fields["weights_b"] = weights_b
        elif noise is not None:
            scales = [c.sigma_eps for c in configs]
            fields["augmented"] = self._draw("augment", (cfg.n, cfg.columns), scales).add_(noise)
        return SignalNoiseData(**fields)

    def _patches(self, modality: str) -> tuple[Tensor | None, Tensor]:
        """Noise patches [R, n, columns], unless streamed, and initial weights [R, m, columns]."""
        cfg, is_a = self._cfg, modality == "a"
        sigma = [c.sigma_xi if is_a else c.sigma_xi_b_value for c in self._configs]
        sigma_0 = [c.sigma_0 for c in self._configs]
        if cfg.data == "reduced":
            noise, weights = reduced_rows(self._configs, modality, self._normals)
            return self._scaled(noise, sigma), self._scaled(weights, sigma_0)
        suffix, d = ("", cfg.columns) if is_a else ("_b", cfg.columns_b)
        first = self._draw(f"init{suffix}", (cfg.m, d), sigma_0, self._init_keys)
        if cfg.data == "streamed":
            return None, first
        return self._draw(f"noise{suffix}", (cfg.n, d), sigma), first

    def _draw(
        self,
        stream: str,
        shape: tuple[int, int],
        scales: Sequence[float],
        keys: Sequence[int] | None = None,
    ) -> Tensor:
        keys = self._keys if keys is None else keys
        return self._normals(stream, keys, shape, scales, TORCH_DTYPES[self._cfg.dtype])

    def _scaled(self, rows: Tensor, scales: Sequence[float]) -> Tensor:
        factors = on_device(torch.tensor(scales, dtype=rows.dtype), rows.device)
        return rows.mul_(factors[:, None, None]).to(TORCH_DTYPES[self._cfg.dtype])


def check_drawable(cfg: TrainConfig) -> None:
    """Raise the errors of `sample` without drawing the data."""
    _require_memory(cfg, 1)
    _drawable_labels([cfg])
    if cfg.probe_samples_value:
        _drawable_probe_labels([cfg])


def _drawable_labels(configs: Sequence[TrainConfig]) -> Tensor:
    """Labels of runs of equal sizes, [R, n]; both signs occur in each."""
    cfg = configs[0]
    labels = label_runs([c.data_key for c in configs], "labels", cfg.n, cfg.dtype)
    for r in _refused(configs, labels)[:1]:
        subject = f"seed {configs[r].data_key} draws"
        check_both_labels(labels[r], subject)
        check_negatives(configs[r], labels[r], subject)
    return labels


def undrawable(configs: Sequence[TrainConfig]) -> list[int]:
    """Which of some runs `sample` refuses for their labels, at the cost of drawing these.

    Args:
        configs: Settings of each run; consecutive runs of equal sizes and dtype share a call.

    Returns: Their indices, ascending.
    """
    refused, start = [], 0
    for (n, dtype, k), group in groupby(
        configs, lambda cfg: (cfg.n, cfg.dtype, cfg.probe_samples_value)
    ):
        alike = list(group)
        size = max(1, CHUNK_LABELS // max(n, k))
        for first in range(0, len(alike), size):
            part = alike[first : first + size]
            keys = [cfg.data_key for cfg in part]
            found = set(_refused(part, label_runs(keys, "labels", n, dtype)))
            if k:
                found |= set(_of_one_label(label_runs(keys, "probe_labels", k, dtype)))
            refused += [start + first + r for r in sorted(found)]
        start += len(alike)
    return refused


def _refused(configs: Sequence[TrainConfig], labels: Tensor) -> list[int]:
    """Runs in which the rarer label has fewer samples than each sample needs negatives."""
    positives = (labels > 0).sum(1)
    rarer = torch.minimum(positives, labels.shape[1] - positives)
    needed = torch.tensor([cfg.negatives_per_sample or 1 for cfg in configs])
    return (rarer < needed).nonzero()[:, 0].tolist()


def _drawable_probe_labels(configs: Sequence[TrainConfig]) -> Tensor:
    """Labels of the samples that the linear probe is fitted on, [R, k]; both signs in each."""
    cfg = configs[0]
    keys = [c.data_key for c in configs]
    labels = label_runs(keys, "probe_labels", cfg.probe_samples_value, cfg.dtype)
    for r in _of_one_label(labels)[:1]:
        check_both_labels(labels[r], f"seed {keys[r]} draws", size="probe_samples")
    return labels


def _of_one_label(labels: Tensor) -> list[int]:
    """Runs whose labels are all equal."""
    return (labels == labels[:, :1]).all(1).nonzero()[:, 0].tolist()


def _require_memory(cfg: TrainConfig, runs: int) -> None:
    needed = runs * data_bytes(cfg)
    if needed <= SMALL_BYTES:
        return
    available = available_bytes()
    if available is not None and needed > available:
        hint = "a smaller d, or data = reduced" if cfg.data != "reduced" else "a smaller n"
        if cfg.data == "explicit":
            hint += " or streamed"
        several = f"{runs} runs of " if runs > 1 else ""
        raise DataError(
            f"d: expected data that fit into {available / 2**30:.1f} GiB of free memory, got "
            f"{several}{data_bytes(cfg) / 2**30:.1f} GiB at n = {cfg.n}, d = {cfg.d}; take {hint}"
        )


__all__ = ["check_drawable", "sample", "sample_many", "sample_with_labels", "undrawable"]
