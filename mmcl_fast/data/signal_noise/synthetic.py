"""Signal-noise data of equations (1), (2), (5); what is drawn of them in each epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmcl_fast.config import SUFFIXES, TrainConfig
from mmcl_fast.data.signal_noise.views import drawn_epsilon, view_of
from mmcl_fast.data.stream.generate import normal, words
from mmcl_fast.errors import DataError

TORCH_DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True, kw_only=True, repr=False)
class SignalNoiseData:
    """Data of one run with its initial weights; tensors of one dtype.

    Labels, attributes and targets are on the CPU; the other fields are on one device, the GPU if
    drawn there.

    Attributes:
        labels: y, +1 or -1, both present, [n]; with classes, their numbers 0 .. K - 1.
        mu: Signal of modality A, [d]; with classes a row for each, [K, d], as nu and mu_b.
        nu: Signal of the out-of-distribution test data, [d].
        noise: Noise patches xi_i of modality A, [n, d]; None if data are streamed (`rows`).
        augmented: Noise patches xi_i + eps_i of the augmented view, [n, d]; None if multi-modal or
            streamed.
        weights: w_r(0), [m, d].
        test_labels: +1 or -1, [n_test].
        test_noise: Noise patches zeta_i of the test data, [n_test, d].
        probe_labels: Labels of the samples of the test distribution that the linear probe is fitted
            on, +1 or -1, both present, [probe_samples]; None with probe_on train, as the next one.
        probe_noise: Their noise patches, [probe_samples, d].
        mu_b: Signal of modality B, [d_b]; None if single-modal, as the next two.
        noise_b: Noise patches of modality B, [n, d_b]; None also if streamed.
        weights_b: Weights of modality B's encoder at the start, [m, d_b].
        signal: First patch of each sample, [n, d], of own data whose signal is not y_i mu; None:
            y_i mu.
        signal_b: First patch of each sample in modality B, [n, d_b]; None likewise.
        positive_labels: Label of each sample's positive, [n]; None: its own. Row i of `augmented`
            and `noise_b` is of the positive of sample i.
        mu_c: Signal of modality C, [d_c]; None without one, as the next three.
        noise_c: Noise patches of modality C, [n, d_c]; row i is of the sample's positive in C.
        weights_c: Weights of modality C's encoder at the start, [m, d_c].
        positive_labels_c: Label of that positive, [n]; None: the sample's own.
        spurious: Signal of the spurious attribute in modality A, [d]; None without one, as the
            next eight.
        spurious_b: The same of modality B, [d_b]; None if single-modal.
        spurious_c: The same of modality C, [d_c]; None without one.
        attributes: Attribute of each sample, +1 or -1: its second patch is this times `spurious`,
            [n].
        positive_attributes: That of its positive, [n]; None: its own.
        positive_attributes_c: That of its positive in modality C, likewise.
        test_attributes: Of the test data, [n_test].
        probe_attributes: Of the samples that the linear probe is fitted on; None with probe_on
            train.
        targets: Labels that objective logistic is told, +1 or -1, [n]; None for another loss.
    """

    labels: Tensor
    mu: Tensor
    nu: Tensor
    noise: Tensor | None
    augmented: Tensor | None
    weights: Tensor
    test_labels: Tensor
    test_noise: Tensor
    probe_labels: Tensor | None = None
    probe_noise: Tensor | None = None
    mu_b: Tensor | None = None
    noise_b: Tensor | None = None
    weights_b: Tensor | None = None
    signal: Tensor | None = None
    signal_b: Tensor | None = None
    positive_labels: Tensor | None = None
    mu_c: Tensor | None = None
    noise_c: Tensor | None = None
    weights_c: Tensor | None = None
    positive_labels_c: Tensor | None = None
    spurious: Tensor | None = None
    spurious_b: Tensor | None = None
    spurious_c: Tensor | None = None
    attributes: Tensor | None = None
    positive_attributes: Tensor | None = None
    positive_attributes_c: Tensor | None = None
    test_attributes: Tensor | None = None
    probe_attributes: Tensor | None = None
    targets: Tensor | None = None

    def __repr__(self) -> str:
        shapes = {name: list(x.shape) for name, x in vars(self).items() if x is not None}
        return f"SignalNoiseData({', '.join(f'{name} {shape}' for name, shape in shapes.items())})"


def data_bytes(cfg: TrainConfig) -> int:
    """Memory of the data of a run, in bytes."""
    elements = sum(math.prod(shape) for shape in shapes(cfg).values())
    return elements * TORCH_DTYPES[cfg.dtype].itemsize


def axis_vectors(d: int, axis: int, norms: Sequence[float], like: Tensor) -> Tensor:
    """Vectors of given norms along one axis, as the paper's mu, mu~ and nu, [R, d]; as `like`."""
    v = like.new_zeros(len(norms), d)
    v[:, axis] = like.new_tensor(norms)
    return v


def draw_augmented(cfg: TrainConfig, noise: Tensor, epoch: int) -> Tensor:
    """Noise patches of the augmented views of an epoch, [n, d], on noise's device.

    Row i is of the positive j of sample i, itself without pair noise: `view_scale xi_j + eps_j`,
    with coordinates set to 0 at the rate `view_mask`.

    Args:
        cfg: Settings.
        noise: Noise patches xi of modality A, [n, d], in the order of the samples.
        epoch: 0 .. 2^24 - 1; read where views are drawn in each epoch.
    """
    drawn_at = epoch if cfg.augment == "per_epoch" else 0

    def normals(
        stream: str,
        keys: Sequence[int],
        shape: tuple[int, int],
        scales: Sequence[float],
        dtype: torch.dtype,
    ) -> Tensor:
        return normal(keys[0], stream, (1, *shape), epoch=drawn_at, scale=scales[0], dtype=dtype)

    epsilon = drawn_epsilon([cfg], normals)[0]
    return view_of(cfg, noise, epsilon.to(noise.device), drawn_at)


def draw_negatives(cfg: TrainConfig, labels: Tensor, epoch: int) -> Tensor | None:
    """N(i) as a bool mask [n, n] on the CPU, or None if it is all samples of the other label.

    The M smallest priority words of the other label: a uniform subset without replacement.
    """
    count = cfg.negatives_per_sample
    if count is None:
        return None
    y = labels.cpu().numpy()
    n = len(y)
    if count >= max((y > 0).sum(), (y < 0).sum()):
        return None
    other = y[:, None] != y[None, :]
    epoch_drawn = epoch if cfg.negatives_draw == "per_epoch" else 0
    priority = words(cfg.data_key, "negatives", (1, n, n), epoch=epoch_drawn)[0].astype(np.int64)
    # A same-label priority above every word sorts last; the stable sort breaks ties by index.
    order = np.argsort(np.where(other, priority, 1 << 32), axis=1, kind="stable")
    mask = np.zeros((n, n), dtype=bool)
    np.put_along_axis(mask, order[:, :count], values=True, axis=1)
    return torch.from_numpy(mask & other)


def draw_minibatches(cfg: TrainConfig, epoch: int) -> list[Tensor]:
    """Indices of the minibatches of an epoch, reordered each epoch; the last may be smaller."""
    if cfg.batch_size is None:
        raise ValueError("batch_size: expected an integer, got None")
    keys = words(cfg.data_key, "minibatch", (1, 1, cfg.n), epoch=epoch)[0, 0]
    order = torch.from_numpy(np.argsort(keys, kind="stable"))
    return list(order.split(cfg.batch_size))


def check_labels(cfg: TrainConfig, labels: Tensor, subject: str, *, size: str = "n") -> None:
    """Refuse labels of which fewer than two differ, or that are no labels of this config.

    Args:
        cfg: Its `classes` are 0 .. classes - 1; without, labels are +1 and -1.
        labels: [n].
        subject: Who has them, with a verb: begins the end of the message.
        size: The setting that is their number.
    """
    name = "labels" if size == "n" else "probe_labels"
    values = set(labels.unique().tolist())
    expected = "+1 and -1" if cfg.classes is None else f"classes 0 .. {cfg.classes - 1}"
    known = {1.0, -1.0} if cfg.classes is None else set(map(float, range(cfg.classes)))
    if not values <= known:
        raise DataError(f"{name}: expected {expected}, got values {sorted(values - known)[:5]}")
    if len(values) < 2:
        both = "both +1 and -1" if cfg.classes is None else "at least two classes"
        sign = "+" if cfg.classes is None else ""
        raise DataError(
            f"{name}: expected {both}, {subject} {len(labels)} labels that are all "
            f"{labels[0].item():{sign}.0f}; take another seed or a larger {size}"
        )


def check_negatives(cfg: TrainConfig, labels: Tensor, subject: str) -> None:
    """Refuse M negatives a sample where the rarer label, whose samples they are, has fewer."""
    rarer = min(int((labels > 0).sum()), int((labels < 0).sum()))
    if cfg.negatives_per_sample is not None and cfg.negatives_per_sample > rarer:
        raise DataError(
            f"negatives_per_sample: expected at most {rarer}, the samples of the rarer label that "
            f"{subject}, got {cfg.negatives_per_sample}; take fewer, or None for all"
        )


def shapes(cfg: TrainConfig) -> dict[str, tuple[int, ...]]:
    """Shapes of the fields of a run that are not None."""
    n, d = cfg.n, cfg.columns
    others = {SUFFIXES[x]: width for x, width in cfg.widths.items() if x != "a"}
    signals = () if cfg.classes is None else (cfg.classes,)
    sizes: dict[str, tuple[int, ...]] = {
        "labels": (n,),
        "mu": (*signals, d),
        "nu": (*signals, d),
        "weights": (cfg.m, d),
        "test_labels": (cfg.n_test,),
        "test_noise": (cfg.n_test, d),
    }
    if k := cfg.probe_samples_value:
        sizes |= {"probe_labels": (k,), "probe_noise": (k, d)}
    for suffix, width in others.items():
        sizes |= {f"mu{suffix}": (*signals, width), f"weights{suffix}": (cfg.m, width)}
    if cfg.is_variant:
        sizes |= _variant_shapes(cfg)
    if cfg.data == "streamed":
        return sizes
    sizes["noise"] = n, d
    if not others:
        return sizes | {"augmented": (n, d)}
    return sizes | {f"noise{suffix}": (n, width) for suffix, width in others.items()}


def _variant_shapes(cfg: TrainConfig) -> dict[str, tuple[int, ...]]:
    """Shapes of the fields that the paper's model does not have."""
    sizes: dict[str, tuple[int, ...]] = {}
    if cfg.has_spurious:
        sizes["attributes"] = (cfg.n,)
        sizes["test_attributes"] = (cfg.n_test,)
        if k := cfg.probe_samples_value:
            sizes["probe_attributes"] = (k,)
        for modality, width in cfg.widths.items():
            sizes[f"spurious{SUFFIXES[modality]}"] = (width,)
    if cfg.pair_noise:
        for suffix in cfg.positive_suffixes:
            sizes[f"positive_labels{suffix}"] = (cfg.n,)
            if cfg.has_spurious:
                sizes[f"positive_attributes{suffix}"] = (cfg.n,)
    if cfg.objective == "logistic":
        sizes["targets"] = (cfg.n,)
    return sizes


__all__ = [
    "SignalNoiseData",
    "axis_vectors",
    "check_labels",
    "check_negatives",
    "data_bytes",
    "draw_augmented",
    "draw_minibatches",
    "draw_negatives",
    "shapes",
]
