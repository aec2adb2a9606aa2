"""The signal patches of samples: which signal each sample has, of modality, view and OOD data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mmcl_fast.data.signal_noise.synthetic import SignalNoiseData

SampleSet = Literal["a", "b", "c", "view", "test", "probe"]


@dataclass(frozen=True)
class SignalPatches:
    """One patch of each sample, plus or minus one of few vectors.

    Attributes:
        vectors: mu, or mu_k of each class, or the spurious signal, [k, d].
        signs: The sample's coefficient of each vector: one entry of a row is +1 or -1, [n, k].
    """

    vectors: Tensor
    signs: Tensor

    def rows(self) -> Tensor:
        """The patches, [n, d]; each is a vector or its negative exactly."""
        return self.signs @ self.vectors

    def projected(self, weights: Tensor) -> Tensor:
        """Inner products with weights [m, d], [n, m], on the weights' device."""
        signs, vectors = (x.to(weights.device) for x in (self.signs, self.vectors))
        return signs @ (vectors @ weights.T)


def signal_patches(data: SignalNoiseData, samples: SampleSet) -> list[SignalPatches]:
    """The signal patches of samples: that of the label, and the spurious one if there is any.

    Args:
        data: Data of one run, without a signal patch for each sample.
        samples: Training data of modality a, b or c, the augmented view of a, or OOD data.
    """
    labels, attributes = _of(data, samples)
    signals = {"b": data.mu_b, "c": data.mu_c, "test": data.nu, "probe": data.nu}
    mu = signals.get(samples, data.mu)
    assert mu is not None
    patches = [SignalPatches(_rows(mu), _signs(labels.to(mu.device), mu))]
    spurious = {"b": data.spurious_b, "c": data.spurious_c}.get(samples, data.spurious)
    if spurious is not None and attributes is not None:
        signs = attributes.to(spurious.device).unsqueeze(1)
        patches.append(SignalPatches(_rows(spurious), signs))
    return patches


def _of(data: SignalNoiseData, samples: SampleSet) -> tuple[Tensor, Tensor | None]:
    """Labels and attributes of samples."""
    if samples == "test":
        return data.test_labels, data.test_attributes
    if samples == "probe":
        assert data.probe_labels is not None
        return data.probe_labels, data.probe_attributes
    labels, attributes = data.labels, data.attributes
    if samples == "a":
        return labels, attributes
    of_positives = data.positive_labels, data.positive_attributes
    if samples == "c":
        of_positives = data.positive_labels_c, data.positive_attributes_c
    given_labels, given_attributes = of_positives
    return (
        labels if given_labels is None else given_labels,
        attributes if given_attributes is None else given_attributes,
    )


def _rows(vectors: Tensor) -> Tensor:
    return vectors if vectors.ndim == 2 else vectors.unsqueeze(0)


def _signs(labels: Tensor, mu: Tensor) -> Tensor:
    """[n, k]: the label itself, or with classes (mu [K, d]) one-hot."""
    if mu.ndim == 1:
        return labels.unsqueeze(1)
    return torch.nn.functional.one_hot(labels.long(), len(mu)).to(mu.dtype)


__all__ = ["SampleSet", "SignalPatches", "signal_patches"]
