"""Signal-noise data of equations (1), (2), (5), drawn from the stream of `docs/stream.md`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmcl_fast.config import TrainConfig
from mmcl_fast.data import generate
from mmcl_fast.data._region import MAX_THREADS
from mmcl_fast.data.generate import normal, words
from mmcl_fast.data.memory import SMALL_BYTES, available_bytes
from mmcl_fast.data.reduced import reduced_rows
from mmcl_fast.errors import DataError

TORCH_DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True, kw_only=True)
class SignalNoiseData:
    """One data set with the weights at the start of training; tensors of one dtype on the CPU.

    Attributes:
        labels: y, +1 or -1, both present, [n].
        mu: Signal of modality A, [d].
        nu: Signal of the out-of-distribution test data, [d].
        noise: Noise patches xi_i of modality A, [n, d]; None if data are streamed (`data.rows`).
        augmented: Noise patches xi_i + eps_i of the augmented view, [n, d]; None if multi-modal or
            streamed.
        weights: w_r(0), [m, d].
        test_labels: +1 or -1, [n_test].
        test_noise: Noise patches zeta_i of the test data, [n_test, d].
        mu_b: Signal of modality B, [d_b]; None if single-modal, as the next two.
        noise_b: Noise patches of modality B, [n, d_b]; None also if streamed.
        weights_b: Weights of modality B's encoder at the start, [m, d_b].
    """

    labels: Tensor
    mu: Tensor
    nu: Tensor
    noise: Tensor | None
    augmented: Tensor | None
    weights: Tensor
    test_labels: Tensor
    test_noise: Tensor
    mu_b: Tensor | None = None
    noise_b: Tensor | None = None
    weights_b: Tensor | None = None


def sample(cfg: TrainConfig) -> SignalNoiseData:
    """Draw the data and initial weights of a run: a pure function of the config.

    Args:
        cfg: Sizes, strengths, `data_key` and `init_key`.

    Returns: Data in the config's dtype. Reduced data have `cfg.columns` instead of d coordinates;
        streamed data have no noise patches of training samples, which are drawn when needed.
    Raises: DataError: all n labels came out equal (then no sample has a negative), or the data
        would not fit into memory.
    """
    labels = _drawable_labels(cfg)
    noise, weights = _draw_patches(cfg, "a")
    shared: dict[str, Any] = {
        "labels": labels,
        "mu": axis_vector(cfg.columns, 0, cfg.mu_norm, cfg.dtype),
        "nu": axis_vector(cfg.columns, 0, cfg.nu_norm, cfg.dtype),
        "noise": noise,
        "weights": weights,
        "test_labels": draw_labels(cfg, "test_labels", cfg.n_test),
        "test_noise": _draw(cfg, "test_noise", (cfg.n_test, cfg.columns), cfg.sigma_xi),
    }
    if not cfg.is_multi:
        view = None if noise is None else draw_augmented(cfg, noise, 0)
        return SignalNoiseData(**shared, augmented=view)
    noise_b, weights_b = _draw_patches(cfg, "b")
    # The paper's mu~ lies along the second axis; reduced data keep the one axis that matters.
    axis = 0 if cfg.data == "reduced" else min(1, cfg.columns_b - 1)
    return SignalNoiseData(
        **shared,
        augmented=None,
        mu_b=axis_vector(cfg.columns_b, axis, cfg.mu_b_norm, cfg.dtype),
        noise_b=noise_b,
        weights_b=weights_b,
    )


def _draw(
    cfg: TrainConfig, stream: str, shape: tuple[int, int], scale: float, key: int | None = None
) -> Tensor:
    key = cfg.data_key if key is None else key
    threads = min(torch.get_num_threads(), MAX_THREADS)  # any number gives the same values
    return normal(key, stream, (1, *shape), scale=scale, dtype=cfg.dtype, threads=threads)[0]


def _draw_patches(cfg: TrainConfig, modality: str) -> tuple[Tensor | None, Tensor]:
    """Noise patches [n, columns], unless streamed, and initial weights [m, columns]."""
    is_a = modality == "a"
    sigma = cfg.sigma_xi if is_a else cfg.sigma_xi_b_value
    if cfg.data == "reduced":
        noise, weights = reduced_rows(cfg, modality)
        dtype = TORCH_DTYPES[cfg.dtype]
        return (noise * sigma).to(dtype), (weights * cfg.sigma_0).to(dtype)
    d, suffix = (cfg.d, "") if is_a else (cfg.d_b_value, "_b")
    weights = _draw(cfg, f"init{suffix}", (cfg.m, d), cfg.sigma_0, cfg.init_key)
    if cfg.data == "streamed":
        return None, weights
    return _draw(cfg, f"noise{suffix}", (cfg.n, d), sigma), weights


def data_bytes(cfg: TrainConfig) -> int:
    """Memory of a run's data."""
    numbers = sum(math.prod(shape) for shape in _shapes(cfg).values())
    return numbers * TORCH_DTYPES[cfg.dtype].itemsize


def check_drawable(cfg: TrainConfig) -> None:
    """Refuse, before any work, data that `sample` would refuse."""
    _drawable_labels(cfg)


def _drawable_labels(cfg: TrainConfig) -> Tensor:
    _require_memory(cfg)
    labels = draw_labels(cfg, "labels", cfg.n)
    check_both_labels(labels, f"seed {cfg.data_key} draws")
    return labels


def _require_memory(cfg: TrainConfig) -> None:
    needed = data_bytes(cfg)
    if needed <= SMALL_BYTES:
        return
    available = available_bytes()
    if available is not None and needed > available:
        hint = "a smaller d, or data = reduced" if cfg.data != "reduced" else "a smaller n"
        if cfg.data == "explicit":
            hint += " or streamed"
        raise DataError(
            f"d: expected data that fit into {available / 2**30:.1f} GiB of free memory, got "
            f"{needed / 2**30:.1f} GiB at n = {cfg.n}, d = {cfg.d}; take {hint}"
        )


def axis_vector(d: int, axis: int, norm: float, dtype: str) -> Tensor:
    """A vector of given norm along one coordinate axis, as the paper's mu, mu~ and nu, [d]."""
    v = torch.zeros(d, dtype=TORCH_DTYPES[dtype])
    v[axis] = norm
    return v


def draw_labels(cfg: TrainConfig, stream: str, count: int) -> Tensor:
    """Labels of +1 and -1 with probability 1/2 each, [count]."""
    return generate.labels(cfg.data_key, stream, (1, count), dtype=cfg.dtype)[0]


def draw_augmented(cfg: TrainConfig, noise: Tensor, epoch: int) -> Tensor:
    """Noise patches `xi_i + eps_i` of the augmented view of an epoch, [n, d], on noise's device."""
    epsilon = normal(
        cfg.data_key,
        "augment",
        (1, *noise.shape),
        epoch=epoch if cfg.augment == "per_epoch" else 0,
        scale=cfg.sigma_eps,
        dtype=cfg.dtype,
    )[0]
    return epsilon.to(noise.device).add_(noise)


def draw_negatives(cfg: TrainConfig, labels: Tensor, epoch: int) -> Tensor | None:
    """N(i) as a bool mask [n, n] on the CPU, or None where it is all samples of the other label.

    M smallest priority words among the other label: a uniform subset without replacement.
    """
    wanted = cfg.negatives_per_sample
    if wanted is None:
        return None
    y = labels.cpu().numpy()
    n = len(y)
    if wanted >= max((y > 0).sum(), (y < 0).sum()):
        return None
    other = y[:, None] != y[None, :]
    drawn_at = epoch if cfg.negatives_draw == "per_epoch" else 0
    priority = words(cfg.data_key, "negatives", (1, n, n), epoch=drawn_at)[0].astype(np.int64)
    # A same-label priority above every word sorts last; the stable sort breaks ties by index.
    order = np.argsort(np.where(other, priority, 1 << 32), axis=1, kind="stable")
    chosen = np.zeros((n, n), dtype=bool)
    np.put_along_axis(chosen, order[:, :wanted], values=True, axis=1)
    return torch.from_numpy(chosen & other)


def draw_minibatches(cfg: TrainConfig, epoch: int) -> list[Tensor]:
    """Index sets of one epoch's minibatches, a fresh order each epoch; the last may be smaller."""
    if cfg.batch_size is None:
        raise ValueError("batch_size: expected an integer, got None")
    keys = words(cfg.data_key, "minibatch", (1, 1, cfg.n), epoch=epoch)[0, 0]
    order = torch.from_numpy(np.argsort(keys, kind="stable"))
    return list(order.split(cfg.batch_size))


def check_both_labels(labels: Tensor, subject: str) -> None:
    """Refuse labels that are not +-1 with both signs present."""
    values = set(labels.unique().tolist())
    if not values <= {1.0, -1.0}:
        raise DataError(f"labels: expected +1 and -1, got values {sorted(values)[:5]}")
    if len(values) < 2:
        raise DataError(
            f"labels: expected both +1 and -1, {subject} {len(labels)} labels that are all "
            f"{labels[0].item():+.0f}; take another seed or a larger n"
        )


def as_data(cfg: TrainConfig, data: SignalNoiseData | Mapping[str, Any] | None) -> SignalNoiseData:
    """The data of a run: drawn if None, else the given arrays, checked against the config.

    Args:
        cfg: The run's settings; its sizes must be those of the data.
        data: None, a `SignalNoiseData`, or a mapping from its field names to arrays.

    Raises: DataError: a field is missing, unknown, of wrong shape or not finite.
    """
    if data is None:
        return sample(cfg)
    if cfg.data == "streamed":
        raise DataError(
            "data: expected none of your own with data = streamed, which draws them from the "
            "stream, got some; take data = explicit"
        )
    given = dict(vars(data)) if isinstance(data, SignalNoiseData) else dict(data)
    names = {f.name for f in dataclasses.fields(SignalNoiseData)}
    if extra := sorted(set(given) - names):
        raise DataError(f"data: expected fields among {sorted(names)}, got {extra[0]!r}")
    fields: dict[str, Tensor | None] = {}
    for name, shape in _shapes(cfg).items():
        value = given.get(name)
        if value is None:
            raise DataError(f"data.{name}: expected shape {list(shape)}, got nothing")
        tensor = torch.as_tensor(value).detach().to("cpu", TORCH_DTYPES[cfg.dtype])
        if tuple(tensor.shape) != shape:
            raise DataError(f"data.{name}: expected shape {list(shape)}, got {list(tensor.shape)}")
        # A sum is finite only if all terms are, and quicker than a look at each (`python -m
        # bench.choices`).
        if not (tensor.sum().isfinite() or tensor.isfinite().all()):
            raise DataError(f"data.{name}: expected finite values, got NaN or infinity")
        fields[name] = tensor
    fields.setdefault("augmented", None)
    result = SignalNoiseData(**fields)  # type: ignore[arg-type]
    check_both_labels(result.labels, "got")
    return result


def _shapes(cfg: TrainConfig) -> dict[str, tuple[int, ...]]:
    d = cfg.columns
    b = cfg.columns_b
    shapes: dict[str, tuple[int, ...]] = {
        "labels": (cfg.n,),
        "mu": (d,),
        "nu": (d,),
        "weights": (cfg.m, d),
        "test_labels": (cfg.n_test,),
        "test_noise": (cfg.n_test, d),
    }
    if cfg.is_multi:
        shapes |= {"mu_b": (b,), "weights_b": (cfg.m, b)}
    if cfg.data == "streamed":
        return shapes
    shapes["noise"] = cfg.n, d
    return shapes | ({"noise_b": (cfg.n, b)} if cfg.is_multi else {"augmented": (cfg.n, d)})


__all__ = [
    "SignalNoiseData",
    "as_data",
    "check_drawable",
    "data_bytes",
    "draw_augmented",
    "draw_labels",
    "draw_minibatches",
    "draw_negatives",
    "sample",
]
