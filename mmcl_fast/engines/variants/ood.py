"""Embeddings of training samples and of samples of the test distribution."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmcl_fast.engines.activation import activate
from mmcl_fast.engines.alignment import even
from mmcl_fast.engines.protocol import EngineSpec, OodSet
from mmcl_fast.engines.variants.columns import held, stacked_axes
from mmcl_fast.engines.variants.modality import Modality


@dataclass(frozen=True)
class _OodSamples:
    """Products of k samples with the columns, and with w(0), and their codes.

    Columns of the products: noise patches, padded to an even number, then codes.
    """

    gram: Tensor  # [R, columns, even(k) + codes]
    initial: Tensor  # [R, even(m), even(k) + codes]
    codes: Tensor  # [R, codes, even(k)]
    count: int


class OodEmbeddings:
    """`hbar` of modality A for samples of the test distribution, whose products are kept.

    Args:
        spec: The runs.
        modality: A.
        decayed: Whether the weights at the start shrink.
    """

    def __init__(self, spec: EngineSpec, modality: Modality, *, decayed: bool) -> None:
        self._spec, self._modality, self._decayed = spec, modality, decayed
        self._sets: dict[OodSet, _OodSamples] = {}

    def of(self, name: OodSet) -> Tensor:
        """Embeddings of a set, [R, k, m]."""
        if name not in self._sets:
            self._sets[name] = self._samples(name)
        x, layout = self._sets[name], self._modality.layout
        z = self._modality.preactivations(x.gram, x.initial, decayed=self._decayed)
        noise, codes = z[:, :, : -layout.codes], z[:, :, -layout.codes :]
        found = embed(noise, codes, x.codes, self._spec.cfg.q)
        return found[:, : x.count, : layout.neurons].contiguous()

    def _samples(self, name: OodSet) -> _OodSamples:
        vectors, layout = self._modality.vectors, self._modality.layout
        noise, labels = held(self._spec, f"{name}_noise"), held(self._spec, f"{name}_labels")
        attributes = spurious = None
        if layout.has_spurious:
            attributes = torch.stack(held(self._spec, f"{name}_attributes"))
            spurious = held(self._spec, "spurious")
        count = len(noise[0])
        parts = [
            vectors.products(noise, even(count)),
            vectors.code_products(stacked_axes(held(self._spec, "nu"), spurious)),
        ]
        gram, initial = (torch.cat(x, dim=2) for x in zip(*parts, strict=True))
        codes = layout.one_hot(torch.stack(labels), attributes, even(count))
        return _OodSamples(gram, initial, codes, count)


def embed(noise: Tensor, codes: Tensor, one_hot: Tensor, q: int) -> Tensor:
    """`hbar` (3): activations of the noise patch plus those of each signal patch, [R, k, m].

    Args:
        noise: Pre-activations of the noise patches, [R, m, k].
        codes: Pre-activations of the codes, [R, m, codes].
        one_hot: Codes of the samples' signal patches, [R, codes, k].
        q: Power of the activation.
    """
    # Products with zeros and ones pick without rounding.
    return (activate(codes, q) @ one_hot).add_(activate(noise, q)).mT


__all__ = ["OodEmbeddings", "embed"]
