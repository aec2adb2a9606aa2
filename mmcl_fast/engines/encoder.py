"""Parts of the primal engine: samples of a modality, its encoder, orders of samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mmcl_fast.config import TrainConfig
from mmcl_fast.data.signal_noise.rows import AddedRows, HeldRows, SampleRows, StreamedRows
from mmcl_fast.data.signal_noise.synthetic import SignalNoiseData, draw_augmented
from mmcl_fast.engines.activation import activate, activate_backward, raised, signal_gradient
from mmcl_fast.engines.alignment import aligned
from mmcl_fast.engines.data_parallel import SampleShard
from mmcl_fast.engines.paper_loss.label_halves import Halves, HalvesGradient
from mmcl_fast.losses.torch_backend.matmul import PRODUCTS

Kind = Literal["a", "b", "epsilon"]


@dataclass(frozen=True)
class Order:
    """Samples of a pass, and the order of their features.

    Attributes:
        samples: Indices in reading order, [k]; None: all.
        positions: Feature row of each sample read, [k]; None: reading order.
        split: Number of samples of label +1, if their features come first; else 0.
    """

    samples: Tensor | None
    positions: Tensor | None
    split: int

    @classmethod
    def sorted_batch(cls, labels: Tensor, batch: Tensor) -> Order:
        """A minibatch, read label by label."""
        positive = labels.index_select(0, batch) > 0
        samples = torch.cat([batch[positive], batch[~positive]])
        return cls(samples, None, int(positive.sum()))

    @classmethod
    def sorted_all(cls, labels: Tensor) -> Order:
        """All samples, read in their order, with features sorted by label."""
        order = (labels < 0).to(torch.uint8).argsort(stable=True)
        return cls(None, order.argsort(), int((labels > 0).sum()))

    def to(self, device: torch.device) -> Order:
        """A copy on a device."""
        samples = None if self.samples is None else self.samples.to(device)
        positions = None if self.positions is None else self.positions.to(device)
        return Order(samples, positions, self.split)

    def as_read(self, features: Tensor) -> Tensor:
        """Features [k, m] in reading order."""
        return features if self.positions is None else features.index_select(0, self.positions)


@dataclass(frozen=True)
class Encoded:
    """Activations of samples before the power q.

    Attributes:
        rectified: max(0, <w_r, xi_i>), [k, m].
        signal: <w_r, mu> and -<w_r, mu>, [m, 2].
        largest: max_{r,i} <w_r, xi_i>, 0-d; -inf without samples.
    """

    rectified: Tensor
    signal: Tensor
    largest: Tensor

    def features(self, q: int, split: int) -> Halves:
        """Activations act(z) = max(0, z)^q."""
        noise = self.rectified if q == 1 else raised(self.rectified.clone(), q)
        return Halves(noise, activate(self.signal, q), split)


class Sources:
    """Noise patches of each modality and of the views: from arrays, or drawn from the stream.

    Args:
        cfg: The run's settings.
        data: Its data; fields that are None are drawn.
        samples: Those of this process.
        device: Device of the rows.
        features: Dtype of rows stored on a GPU with kernels; else None.
    """

    def __init__(
        self,
        cfg: TrainConfig,
        data: SignalNoiseData,
        samples: range,
        device: torch.device,
        features: torch.dtype | None = None,
    ) -> None:
        self._cfg, self._samples, self._device = cfg, samples, device
        self._features = features
        self._first_view = data.augmented
        self._view: HeldRows | None = None
        # Unrounded noise patches, to which epsilon is added: a view is rounded once.
        self._unrounded: Tensor | None = None
        noise = data.noise
        if noise is not None and cfg.augment == "per_epoch":
            self._unrounded = noise = aligned(noise.to(device))
        kinds: list[tuple[Kind, Tensor | None]] = [("a", noise)]
        if cfg.is_multi:
            kinds.append(("b", data.noise_b))
        self.rows: list[SampleRows] = []
        for kind, noise in kinds:
            self.rows.append(self._streamed(kind) if noise is None else self._held(noise))

    def views(self, epoch: int) -> SampleRows:
        """Noise patches of the augmented view of an epoch; epoch 0 takes those of the data."""
        if self._first_view is not None and (self._cfg.augment == "fixed" or epoch == 0):
            if self._view is None:
                self._view = self._held(self._first_view)
            return self._view
        self._view = None  # later epochs do not read it
        if self._cfg.data == "orthogonal":  # eps has m normals, not a row of the stream
            assert self._unrounded is not None
            return self._held(draw_augmented(self._cfg, self._unrounded, epoch))
        drawn = self._streamed("epsilon", epoch)
        if self._unrounded is None:
            return AddedRows(drawn, self.rows[0])
        return AddedRows(drawn, HeldRows(self._unrounded, elements=drawn.piece_elements))

    def _held(self, noise: Tensor) -> HeldRows:
        if self._features is None:
            return HeldRows(aligned(noise.to(self._device)))
        return HeldRows(aligned(noise.to(self._device, self._features)), elements=None)

    def _streamed(self, kind: Kind, epoch: int = 0) -> StreamedRows:
        if self._features is None:
            rows = StreamedRows
        else:
            from mmcl_fast.data.signal_noise.gpu import DeviceRows as rows  # imports Triton
        return rows(self._cfg, kind, self._device, epoch=epoch, samples=self._samples)


class Modality:
    """Weights of one encoder, and their coefficients (a, A) in the span of the data.

    Args:
        rows: Noise patches of the samples, [n, d].
        n: Number of samples.
        mu: The signal, [d].
        weights: Initial weights, [m, d].
        precision: Of the products with noise patches; weights and updates keep their dtype.
    """

    def __init__(
        self, rows: SampleRows, n: int, mu: Tensor, weights: Tensor, precision: str
    ) -> None:
        self.rows, self.mu, self._product = rows, aligned(mu), PRODUCTS[precision]
        self.weights = weights.clone()  # [m, d]
        self.coefficients = weights.new_zeros(weights.shape[0], n + 1)  # A, [m, n + 1]
        self.initial_scale = weights.new_ones(1)  # a

    def encode(self, rows: SampleRows, order: Order, signal: Tensor, count: int) -> Encoded:
        """Encode `count` samples of `rows` in an order."""
        rectified = self.weights.new_empty(count, len(self.weights))
        largest = [rectified.new_full((), -torch.inf)]
        for part, x in rows.pieces(order.samples):
            z = self._product(x, self.weights)
            largest.append(z.amax())
            if order.positions is None:
                torch.clamp_min(z, 0.0, out=rectified[part])
            else:
                rectified.index_copy_(0, order.positions[part], z.relu_())
        projection = self.weights @ signal
        return Encoded(
            rectified, torch.stack([projection, -projection], 1), torch.stack(largest).amax()
        )

    def gradients(
        self, g: HalvesGradient, x: Encoded, order: Order, q: int, shard: SampleShard
    ) -> list[Tensor]:
        """Gradients with respect to the weights, A and a, each divided by `g.weight`."""
        c = order.as_read(activate_backward(g.noise, x.rectified, q))  # [k, m]
        c_mu = signal_gradient(shard.sum(g.signal)[None], x.signal[None], q)[0, :, 0]
        if order.samples is None:
            to_coefficients = torch.empty_like(self.coefficients)
            to_coefficients[:, :-1] = c.T
        else:
            to_coefficients = torch.zeros_like(self.coefficients)
            to_coefficients[:, :-1].index_copy_(1, order.samples, c.T)
        to_coefficients[:, -1] = c_mu
        to_weights: Tensor | None = None
        for part, rows in self.rows.pieces(order.samples):
            share = self._product(c[part].T, rows.T)
            to_weights = share if to_weights is None else to_weights.add_(share)
        if to_weights is None:  # no local sample is in the minibatch
            to_weights = torch.zeros_like(self.weights)
        to_weights = shard.sum(to_weights).addr_(c_mu, self.mu)
        return [to_weights, to_coefficients, torch.zeros_like(self.initial_scale)]


__all__ = ["Encoded", "Modality", "Order", "Sources"]
