"""Data of a run from a user's arrays; what is not given is drawn from the stream.

Each wrong thing is one error: it names the field, what was expected and what was given.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Container, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmcl_fast.config import TrainConfig
from mmcl_fast.config_variants import variant_of
from mmcl_fast.data.signal_noise.discrete import assigned
from mmcl_fast.data.signal_noise.sampling import sample, sample_with_labels
from mmcl_fast.data.signal_noise.synthetic import (
    TORCH_DTYPES,
    SignalNoiseData,
    check_labels,
    check_negatives,
    draw_augmented,
    shapes,
)
from mmcl_fast.errors import DataError
from mmcl_fast.names import nearest

FIELDS = tuple(f.name for f in dataclasses.fields(SignalNoiseData))
NORMS = {
    "mu_norm": "mu", "mu_b_norm": "mu_b", "mu_c_norm": "mu_c", "nu_norm": "nu",
    "spurious_norm": "spurious", "spurious_b_norm": "spurious_b", "spurious_c_norm": "spurious_c",
}  # fmt: skip
# Drawn from the labels and the words of a stream, or from one another.
ASSIGNED = (
    "attributes", "test_attributes", "probe_attributes", "positive_labels", "positive_attributes",
    "positive_labels_c", "positive_attributes_c", "targets",
)  # fmt: skip
SPURIOUS_OF = {"mu": "spurious", "nu": "spurious", "mu_b": "spurious_b", "mu_c": "spurious_c"}
# What training without them would change in silence.
NEVER_DROPPED = ("spurious", "attributes", "positive_labels", "positive_attributes")
SAME = 1e-6  # relative; norms that agree so far differ by rounding
ORTHOGONAL = 1e-5  # cosine; of vectors orthogonalised in float32


def from_arrays(cfg: TrainConfig, **arrays: Any) -> SignalNoiseData:
    """Data of a run from arrays of your own, each checked; fields not given are drawn.

    Drawn are, as by `sample(cfg)`: labels, mu, nu, weights, test set, the linear probe's OOD
    samples (probe_on "ood"), noise, modality B, and what a model variant has beyond these. Views
    that are not given are the noise patches given, with augmentation noise of `sigma_eps`. With
    augment "per_epoch" the given or drawn views are those of epoch 0, and every later epoch draws
    augmentation noise anew; so it is with targets and label_noise_draw "per_epoch". Attributes,
    labels of positives and targets that are not given follow from the labels given; with pair
    noise, given `augmented`, `noise_b` and `noise_c` are those of the positive of each sample, as
    drawn ones are.

    Args:
        cfg: Settings; its sizes are those of the arrays, and its modality says which are needed.
        arrays: Fields of `SignalNoiseData` by name: NumPy arrays, tensors or nested lists of real
            numbers. `signal` [n, d] (and `signal_b`) is a first patch for each sample, in place of
            y_i mu; only the engine reference trains on it. Without `mu`, mu is then the mean of
            y_i times the patches; it is what the curve `signal` is measured along. Model variants
            have none. Signals of classes are orthogonal to each other and of equal norm, the
            spurious one is orthogonal to the others.

    Returns: The data, in the config's dtype, on the CPU.
    Raises: DataError: an unknown field, no array of finite real numbers, another shape, labels that
        are not +1 and -1, or data = streamed, which draws all.
    """
    if cfg.data == "streamed":
        raise DataError(
            "data: expected none of your own with data = streamed, which draws them from the "
            "stream, got some; take data = explicit"
        )
    expected = _expected_shapes(cfg)
    given: dict[str, Tensor] = {}
    for name, value in arrays.items():
        if name not in FIELDS:
            near = nearest(name, FIELDS)
            hint = f"; did you mean {near}?" if near else ""
            raise DataError(f"data: expected fields among {', '.join(FIELDS)}, got {name!r}{hint}")
        if value is None:
            continue
        if name not in expected:
            raise DataError(f"data.{name}: expected none {_without(cfg, name)}, got one")
        given[name] = _tensor(name, value, expected[name], cfg)
    for name, x in given.items():
        if name.endswith("labels"):
            _check_labels(name, x, cfg.classes)
        elif name.endswith(("attributes", "targets")):
            _check_labels(name, x, None)
    if "labels" in given:
        check_labels(cfg, given["labels"], "got")
        check_negatives(cfg, given["labels"], "data has")
    if "probe_labels" in given:
        check_labels(cfg, given["probe_labels"], "got", size="probe_samples")
    data = _completed(cfg, given)
    if cfg.classes is not None or cfg.has_spurious:
        _check_signals(cfg, data, given)
    return data


def as_data(cfg: TrainConfig, data: SignalNoiseData | Mapping[str, Any] | None) -> SignalNoiseData:
    """Data of a run: drawn if None, else from the user's fields (`from_arrays`).

    Raises: DataError: `data` is neither, or as `from_arrays`.
    """
    if data is None:
        return sample(cfg)
    if isinstance(data, SignalNoiseData):
        # Data of more modalities also serve training of fewer.
        used = {*_expected_shapes(cfg), *NEVER_DROPPED}
        if "c" in cfg.modalities:
            used |= {"positive_labels_c", "positive_attributes_c"}
        return from_arrays(cfg, **{k: v for k, v in vars(data).items() if k in used})
    if not isinstance(data, Mapping):
        raise DataError(
            "data: expected a SignalNoiseData or a mapping of its fields to arrays, such as "
            f"{{'noise': ..., 'labels': ...}}, got {_kind(data)}"
        )
    return from_arrays(cfg, **{str(name): value for name, value in data.items()})


def with_own_norms(cfg: TrainConfig, data: SignalNoiseData) -> TrainConfig:
    """The config with the norms of the data's signals, where they are not the config's."""
    found = {}
    for name, field in NORMS.items():
        vector = getattr(data, field)
        if vector is not None:
            norms = torch.linalg.vector_norm(vector.double(), dim=-1)
            norm, stated = norms.max().item(), getattr(cfg, name)
            if abs(norm - stated) > SAME * max(norm, stated):
                found[name] = norm
    return cfg.replace(**found) if found else cfg


def _expected_shapes(cfg: TrainConfig) -> dict[str, tuple[int, ...]]:
    expected = shapes(cfg)
    if cfg.is_variant:
        return expected
    expected["signal"] = cfg.n, cfg.columns
    if cfg.is_multi:
        expected["signal_b"] = cfg.n, cfg.columns_b
    return expected


def _without(cfg: TrainConfig, name: str) -> str:
    """In which runs a field has no place, for the message that refuses it."""
    if name.startswith("signal") and cfg.is_variant:
        return f"with {variant_of(cfg)}"
    if name == "targets":
        return f"with objective {cfg.objective}"
    if name.startswith("positive") and not cfg.pair_noise:
        return "without pair_noise"
    if ("spurious" in name or "attributes" in name) and not cfg.has_spurious:
        return "without spurious_norm"
    if name.startswith("probe"):
        return "with probe_on train"
    if name.endswith("_c") and cfg.is_multi:
        return "without mu_c_norm"
    return f"in a {cfg.modality}-modal run"


def _tensor(name: str, value: object, shape: tuple[int, ...], cfg: TrainConfig) -> Tensor:
    """A field as a tensor of the config's dtype on the CPU."""
    dtype = TORCH_DTYPES[cfg.dtype]
    if isinstance(value, Tensor):
        if value.is_complex():
            raise DataError(f"data.{name}: expected real numbers, got {value.dtype}")
        if value.is_meta or value.layout != torch.strided:
            kind = "a meta tensor" if value.is_meta else f"one of layout {value.layout}"
            raise DataError(f"data.{name}: expected a dense tensor with values, got {kind}")
        tensor = value.detach().to("cpu", dtype)
    else:
        tensor = torch.as_tensor(_array(name, value)).to(dtype)
    if tuple(tensor.shape) != shape:
        raise DataError(f"data.{name}: expected shape {list(shape)}, got {list(tensor.shape)}")
    # A sum is finite only if all terms are, and quicker than a look at each (`python -m
    # bench.cpu.choices`).
    if not (tensor.sum().isfinite() or tensor.isfinite().all()):
        raise DataError(
            f"data.{name}: expected finite values, got NaN or infinity (in {cfg.dtype})"
        )
    return tensor


def _array(name: str, value: object) -> np.ndarray[Any, Any]:
    """A NumPy array, or a nested list of numbers, as an array of real numbers."""
    if not isinstance(value, np.ndarray | list | tuple):
        hint = "; take .to_numpy()" if hasattr(value, "to_numpy") else ""
        hint = "; take a list of it" if inspect.isgenerator(value) else hint
        raise DataError(
            f"data.{name}: expected an array, a tensor or a list of numbers, got "
            f"{_kind(value)}{hint}"
        )
    if np.ma.isMaskedArray(value):  # its mask would be dropped
        raise DataError(f"data.{name}: expected an array without a mask, got a masked array")
    try:
        array = np.asarray(value)
    except ValueError:
        raise DataError(f"data.{name}: expected rows of one length, got a ragged list") from None
    except (TypeError, RuntimeError) as error:  # a list of tensors that NumPy cannot take
        raise DataError(f"data.{name}: expected numbers, got a list ({error})") from None
    if array.dtype.kind not in "fiub":
        raise DataError(f"data.{name}: expected real numbers, got an array of {array.dtype}")
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    # torch takes neither foreign byte orders, nor negative strides, nor read-only memory.
    return np.require(array, array.dtype.newbyteorder("="), ["C", "W"])


def _check_labels(name: str, labels: Tensor, classes: int | None) -> None:
    """Refuse values that are no labels; `classes` None: +1 and -1."""
    values = set(labels.unique().tolist())
    if classes is not None:
        if not values <= set(map(float, range(classes))):
            raise DataError(
                f"data.{name}: expected classes 0 .. {classes - 1}, got values {sorted(values)[:5]}"
            )
        return
    if values <= {0.0, 1.0} and 0.0 in values:
        raise DataError(
            f"data.{name}: expected +1 and -1, got 0 and 1; take 2 * {name} - 1 (of bools, as "
            "integers)"
        )
    if not values <= {1.0, -1.0}:
        raise DataError(f"data.{name}: expected +1 and -1, got values {sorted(values)[:5]}")


def _check_signals(cfg: TrainConfig, data: SignalNoiseData, given: Container[str]) -> None:
    """Refuse given signals of different norms, or not orthogonal, or no spurious one at all."""
    all_spurious = [data.spurious, data.spurious_b, data.spurious_c]
    if cfg.has_spurious and not any(x.any() for x in all_spurious if x is not None):
        raise DataError("data.spurious: expected a signal other than 0 with spurious_norm, got 0")
    for name, spurious in SPURIOUS_OF.items():
        culprit = name if name in given else spurious
        if culprit not in given:
            continue
        signals = torch.atleast_2d(getattr(data, name).double())
        norms = torch.linalg.vector_norm(signals, dim=1)
        if norms.max() - norms.min() > SAME * norms.max():
            raise DataError(
                f"data.{name}: expected signals of equal norm, got norms {norms.min():.6g} to "
                f"{norms.max():.6g}"
            )
        if (second := getattr(data, spurious)) is not None:
            signals = torch.cat([signals, second[None].double()])
        unit = torch.nn.functional.normalize(signals, dim=1)
        cosine = (unit @ unit.T).fill_diagonal_(0.0).abs().max().item()
        if cosine > ORTHOGONAL:
            raise DataError(
                f"data.{culprit}: expected orthogonal signals, the spurious one among them, got "
                f"two of cosine {cosine:.3g}"
            )


def _completed(cfg: TrainConfig, given: dict[str, Tensor]) -> SignalNoiseData:
    """The data with drawn fields in place of those not given."""
    if "signal" in given and "mu" not in given:
        labels = given.get("labels")
        if labels is None:
            raise DataError("data.labels: expected the labels of the patches in signal, got none")
        given["mu"] = labels @ given["signal"] / cfg.n
        if cfg.is_multi and "signal_b" in given and "mu_b" not in given:
            given["mu_b"] = labels @ given["signal_b"] / cfg.n
    if cfg.is_multi and (("signal" in given) != ("signal_b" in given)):
        raise DataError("data: expected signal and signal_b together, got one of them")
    needed = set(shapes(cfg)) - set(given)
    if not needed:
        return SignalNoiseData(**_fields(given))
    fields: dict[str, Tensor | None] = dict(given)
    if not needed <= {"augmented", *ASSIGNED}:
        drawn = _drawn(cfg, given)
        for name in needed - {"augmented", *ASSIGNED}:
            fields[name] = getattr(drawn, name)
        if "augmented" in needed and "noise" not in given:
            fields["augmented"] = drawn.augmented
    if "augmented" in needed and "noise" in given:
        fields["augmented"] = draw_augmented(cfg, given["noise"], 0)
    return SignalNoiseData(**_fields(assigned(cfg, fields)))


def _drawn(cfg: TrainConfig, given: Mapping[str, Tensor]) -> SignalNoiseData:
    """Data with the labels given, or drawn ones."""
    holds_noise = {"noise", "noise_b", "noise_c"} & set(shapes(cfg)) <= set(given)
    # Noise patches are the most of the data; they are not drawn to be thrown away.
    is_streamed = holds_noise and cfg.data == "explicit" and not cfg.is_variant
    drawing = cfg.replace(data="streamed") if is_streamed else cfg
    return sample_with_labels(drawing, given["labels"]) if "labels" in given else sample(drawing)


def _fields(found: Mapping[str, Tensor | None]) -> dict[str, Any]:
    return {"augmented": None, "noise": None, **found}


def _kind(value: object) -> str:
    name = type(value).__name__
    return f"a {name}" if name[0].lower() not in "aeiou" else f"an {name}"


__all__ = ["as_data", "from_arrays", "with_own_norms"]
