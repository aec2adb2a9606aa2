"""Encoder on a GPU: features in the dtype of their products, one kernel pass beside each product.

Products are torch's: on an H100 its library ran the encoder's product a third faster than a Triton
kernel with the activation in its epilogue, and the weight gradient's several times faster. Signal
patches are one vector.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmcl_fast.data.signal_noise.rows import SampleRows
from mmcl_fast.engines.activation import signal_gradient
from mmcl_fast.engines.data_parallel import SampleShard
from mmcl_fast.engines.encoder import Encoded, Modality, Order
from mmcl_fast.engines.paper_loss.label_halves import HalvesGradient
from mmcl_fast.kernels.row_passes import rectify_bwd, rectify_fwd
from mmcl_fast.losses.triton_backend.chunked import product

FEATURES = {"ieee": torch.float32, "bf16": torch.bfloat16}  # by precision


class TritonModality(Modality):
    """See `Modality`; weights and their coefficients are float32, features of `FEATURES`."""

    def __init__(
        self, rows: SampleRows, n: int, mu: Tensor, weights: Tensor, precision: str
    ) -> None:
        super().__init__(rows, n, mu, weights, precision)
        # Contiguous by sample, as features are: no pass transposes them.
        self.coefficients = weights.new_zeros(n + 1, len(weights)).T
        self._dtype = FEATURES[precision]

    def encode(self, rows: SampleRows, order: Order, signal: Tensor, count: int) -> Encoded:
        """See `Modality.encode`."""
        w = self.weights.to(self._dtype)
        rectified = w.new_empty(count, len(w))
        largest = [self.weights.new_full((), -torch.inf)]
        for part, x in rows.pieces(order.samples):
            z = x.to(self._dtype) @ w.T
            largest.append(rectify_fwd(z, rectified, order.positions, part.start))
        projection = self.weights @ signal
        return Encoded(
            rectified, torch.stack([projection, -projection], 1), torch.stack(largest).amax()
        )

    def gradients(
        self, g: HalvesGradient, x: Encoded, order: Order, q: int, shard: SampleShard
    ) -> list[Tensor]:
        """See `Modality.gradients`."""
        fill = torch.empty_like if order.samples is None else torch.zeros_like
        to_coefficients = fill(self.coefficients)  # with the same strides
        # The gradient of one masked block is contiguous by neuron; the kernel reads rows.
        rows_of_g = g.noise.contiguous()
        c = rectify_bwd(
            rows_of_g, x.rectified, to_coefficients, (order.positions, order.samples), q=q
        )
        to_coefficients[:, -1] = c_mu = signal_gradient(
            shard.sum(g.signal)[None], x.signal[None], q
        )[0, :, 0]
        to_weights = torch.zeros_like(self.weights)
        for part, rows in self.rows.pieces(order.samples):
            share = product(c[part].T, rows.to(self._dtype))
            to_weights = share if part.start == 0 else to_weights.add_(share)
        to_weights = shard.sum(to_weights).addr_(c_mu, self.mu)
        return [to_weights, to_coefficients, torch.zeros_like(self.initial_scale)]


__all__ = ["FEATURES", "TritonModality"]
