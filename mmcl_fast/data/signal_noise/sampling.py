"""Drawing the data of many runs: a few calls per stream, on a GPU one.

The data of a run are a pure function of its config, bit-identical for any batch, number of threads
and device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from mmcl_fast.config import SUFFIXES, ModalityName, TrainConfig
from mmcl_fast.config_checks import ROTATED
from mmcl_fast.data.signal_noise.discrete import assigned, drawn_labels, positives
from mmcl_fast.data.signal_noise.orthogonal import in_last_coordinates, orthogonal_rows
from mmcl_fast.data.signal_noise.reduced import reduced_rows
from mmcl_fast.data.signal_noise.run_batches import SignalNoiseBatch
from mmcl_fast.data.signal_noise.scaled_rows import on_device, scaled
from mmcl_fast.data.signal_noise.synthetic import (
    TORCH_DTYPES,
    SignalNoiseData,
    axis_vectors,
    check_labels,
    check_negatives,
    data_bytes,
    shapes,
)
from mmcl_fast.data.signal_noise.views import drawn_views
from mmcl_fast.data.stream.generate import NormalRuns, normal_runs
from mmcl_fast.data.stream.memory import SMALL_BYTES, available_bytes
from mmcl_fast.errors import DataError

CHUNK_BYTES = 1 << 24
CHUNK_LABELS = 1 << 20
ON_CPU = "labels", "attributes", "targets"  # ends of the names of fields that stay there


def sample(cfg: TrainConfig) -> SignalNoiseData:
    """Draw the data and initial weights of a run: a pure function of the config.

    Args:
        cfg: Sizes, strengths, `data_key` and `init_key`.

    Returns: Data in the config's dtype. Reduced and orthogonal data have `cfg.columns` instead of d
        coordinates; streamed data have no noise patches of training samples, which are drawn when
        needed.
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

    Returns: The data in the order of the configs; all fields but labels, attributes and targets are
        on the device.
    Raises: DataError: as `sample`; the memory of a GPU is not checked.
    """
    blocks = []
    for _, group in groupby(configs, _sizes):
        alike = list(group)
        # Only triton draws on the GPU, and it refuses variants: theirs are drawn here and copied.
        on_gpu = device is not None and device.type != "cpu" and not alike[0].is_variant
        normals: NormalRuns = normal_runs
        if device is not None and on_gpu:
            from mmcl_fast.data.signal_noise.gpu import DeviceNormals

            normals = DeviceNormals(device)
        else:
            _require_memory(alike[0], len(alike))
        # On a CPU the draws of one call stay in the cache until the views are computed.
        size = len(alike) if on_gpu else max(1, CHUNK_BYTES // data_bytes(alike[0]))
        drawn = [
            _Draw(alike[start : start + size], normals).block()
            for start in range(0, len(alike), size)
        ]
        if device is not None and alike[0].is_variant:
            drawn = [_copied(block, device) for block in drawn]
        blocks += drawn
    return SignalNoiseBatch(blocks)


def _copied(block: SignalNoiseData, device: torch.device) -> SignalNoiseData:
    """A block drawn on the CPU, all but labels, attributes and targets on a device."""
    fields = {
        name: x if x is None or name.endswith(ON_CPU) else on_device(x, device)
        for name, x in vars(block).items()
    }
    return SignalNoiseData(**fields)


def _sizes(cfg: TrainConfig) -> tuple[Any, ...]:
    """Settings that must be equal for the data of runs to be drawn by one call."""
    # Shapes of the same fields may be those of other draws: reduced data have at most d columns.
    drawn = cfg.data, cfg.dtype, cfg.trains_keys, cfg.is_variant
    return *drawn, tuple(shapes(cfg).items())


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
        fields: dict[str, Any] = {
            "labels": labels,
            "mu": self._signals("mu_norm", 0, weights),
            "nu": self._signals("nu_norm", 0, weights),
            "noise": noise,
            "augmented": None,
            "weights": weights,
            "test_labels": drawn_labels(configs, "test_labels", cfg.n_test),
            "test_noise": self._ood_noise("test_noise", cfg.n_test),
        }
        if k := cfg.probe_samples_value:
            fields["probe_labels"] = _drawable_probe_labels(configs)
            fields["probe_noise"] = self._ood_noise("probe_noise", k)
        if cfg.has_spurious:
            fields["spurious"] = self._along("spurious_norm", cfg.classes or 1, weights)
        for modality in cfg.modalities[1:]:
            fields |= self._further_modality(modality)
        if not cfg.is_multi and noise is not None:
            fields["augmented"] = drawn_views(configs, noise, self._normals)
        return SignalNoiseData(**fields, **self._assigned(fields))

    def _further_modality(self, modality: ModalityName) -> dict[str, Tensor | None]:
        """Fields of modality B or C."""
        cfg, stream = self._cfg, "pair_noise" if modality == "b" else f"pair_noise_{modality}"
        noise, weights = self._patches(modality)
        if noise is not None:
            for r, c in enumerate(self._configs):
                if (order := positives(c, stream)) is not None:
                    noise[r] = noise[r][order]
        # The paper's mu~ is along the second axis, and mu of C too; data in other coordinates have
        # axes of the signals alone.
        is_second = cfg.data not in ROTATED and cfg.classes is None
        first = min(1, weights.shape[-1] - 1) if is_second else 0
        fields = {
            f"mu_{modality}": self._signals(f"mu_{modality}_norm", first, weights),
            f"noise_{modality}": noise,
            f"weights_{modality}": weights,
        }
        if cfg.has_spurious:
            fields[f"spurious_{modality}"] = self._along(
                f"spurious_{modality}_norm", first + (cfg.classes or 1), weights
            )
        return fields

    def _assigned(self, fields: Mapping[str, Any]) -> dict[str, Tensor]:
        """Attributes, positives' labels and targets of all runs, [R, ...] each."""
        if not self._cfg.is_variant:
            return {}
        labels = [name for name in fields if name.endswith("labels")]
        each = [
            assigned(c, {name: fields[name][r] for name in labels})
            for r, c in enumerate(self._configs)
        ]
        found = [name for name in each[0] if name not in labels]
        return {name: torch.stack([x[name] for x in each]) for name in found}

    def _signals(self, norm: str, first: int, like: Tensor) -> Tensor:
        """Signals of the labels, [R, d], or of each class along the next axes, [R, K, d]."""
        classes = self._cfg.classes
        if classes is None:
            return self._along(norm, first, like)
        return torch.stack([self._along(norm, first + k, like) for k in range(classes)], dim=1)

    def _along(self, norm: str, axis: int, like: Tensor) -> Tensor:
        return axis_vectors(like.shape[-1], axis, [getattr(c, norm) for c in self._configs], like)

    def _patches(self, modality: ModalityName) -> tuple[Tensor | None, Tensor]:
        """Noise patches [R, n, columns], unless streamed, and initial weights [R, m, columns]."""
        cfg, suffix = self._cfg, SUFFIXES[modality]
        noise_level = f"sigma_xi{suffix}_value" if suffix else "sigma_xi"
        sigma = [getattr(c, noise_level) for c in self._configs]
        sigma_0 = [c.sigma_0 for c in self._configs]
        if cfg.data in ROTATED:
            rows = reduced_rows if cfg.data == "reduced" else orthogonal_rows
            noise, weights = rows(self._configs, modality, self._normals)
            dtype = TORCH_DTYPES[cfg.dtype]
            return scaled(noise, sigma, dtype), scaled(weights, sigma_0, dtype)
        d = cfg.widths[modality]
        first = self._draw(f"init{suffix}", (cfg.m, d), sigma_0, self._init_keys)
        if cfg.data == "streamed":
            return None, first
        return self._draw(f"noise{suffix}", (cfg.n, d), sigma), first

    def _ood_noise(self, stream: str, count: int) -> Tensor:
        """Noise patches of the test distribution, [R, count, columns]."""
        cfg, is_limit = self._cfg, self._cfg.data == "orthogonal"
        dims = cfg.m if is_limit else cfg.columns
        rows = self._draw(stream, (count, dims), [c.sigma_xi for c in self._configs])
        return in_last_coordinates(cfg, rows) if is_limit else rows

    def _draw(
        self,
        stream: str,
        shape: tuple[int, int],
        scales: Sequence[float],
        keys: Sequence[int] | None = None,
    ) -> Tensor:
        keys = self._keys if keys is None else keys
        return self._normals(stream, keys, shape, scales, TORCH_DTYPES[self._cfg.dtype])


def check_drawable(cfg: TrainConfig) -> None:
    """Raise the errors of `sample` without drawing the data."""
    _require_memory(cfg, 1)
    _drawable_labels([cfg])
    if cfg.probe_samples_value:
        _drawable_probe_labels([cfg])


def _drawable_labels(configs: Sequence[TrainConfig]) -> Tensor:
    """Labels of runs of equal sizes, [R, n]; two of them occur in each."""
    labels = drawn_labels(configs, "labels", configs[0].n)
    for r in _refused(configs, labels)[:1]:
        subject = f"seed {configs[r].data_key} draws"
        check_labels(configs[r], labels[r], subject)
        check_negatives(configs[r], labels[r], subject)
    return labels


def undrawable(configs: Sequence[TrainConfig]) -> list[int]:
    """Which of some runs `sample` refuses for their labels, at the cost of drawing these.

    Args:
        configs: Settings of each run; consecutive runs of equal sizes and dtype share a call.

    Returns: Their indices, ascending.
    """
    refused, start = [], 0
    for (n, _, k, _), group in groupby(
        configs, lambda cfg: (cfg.n, cfg.dtype, cfg.probe_samples_value, cfg.classes)
    ):
        alike = list(group)
        size = max(1, CHUNK_LABELS // max(n, k))
        for first in range(0, len(alike), size):
            part = alike[first : first + size]
            found = set(_refused(part, drawn_labels(part, "labels", n)))
            if k:
                found |= set(_of_one_label(drawn_labels(part, "probe_labels", k)))
            refused += [start + first + r for r in sorted(found)]
        start += len(alike)
    return refused


def _refused(configs: Sequence[TrainConfig], labels: Tensor) -> list[int]:
    """Runs without a second label, or whose rarer label has fewer samples than negatives needed."""
    if configs[0].classes is not None:
        return _of_one_label(labels)
    positive = (labels > 0).sum(1)
    rarer = torch.minimum(positive, labels.shape[1] - positive)
    needed = torch.tensor([cfg.negatives_per_sample or 1 for cfg in configs])
    return (rarer < needed).nonzero()[:, 0].tolist()


def _drawable_probe_labels(configs: Sequence[TrainConfig]) -> Tensor:
    """Labels of the samples that the linear probe is fitted on, [R, k]; two of them in each."""
    labels = drawn_labels(configs, "probe_labels", configs[0].probe_samples_value)
    for r in _of_one_label(labels)[:1]:
        cfg = configs[r]
        check_labels(cfg, labels[r], f"seed {cfg.data_key} draws", size="probe_samples")
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
        hint = "a smaller n" if cfg.data in ROTATED else "a smaller d, or data = reduced"
        if cfg.data == "explicit" and not cfg.is_variant:
            hint += " or streamed"
        several = f"{runs} runs of " if runs > 1 else ""
        raise DataError(
            f"d: expected data that fit into {available / 2**30:.1f} GiB of free memory, got "
            f"{several}{data_bytes(cfg) / 2**30:.1f} GiB at n = {cfg.n}, d = {cfg.d}; take {hint}"
        )


__all__ = [
    "check_drawable",
    "sample",
    "sample_many",
    "sample_with_labels",
    "undrawable",
]
