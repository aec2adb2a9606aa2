"""Pre-activations of the initial weights, in which the appendix states most of its lemmas."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmcl_fast.config import TrainConfig
from mmcl_fast.data.signal_noise.sampling import sample
from mmcl_fast.training.run import Run


@dataclass(frozen=True)
class Start:
    """A run before its first step, float64.

    Attributes:
        labels: +1 or -1, [n].
        signal: <w_r(0), mu>, [m].
        noise: <w_r(0), xi_i>, [m, n].
        overlap: <xi_j, xi_i> / |xi_j|^2, [n, n].
        mu_overlap: <mu, xi_i> / |mu|^2, [n].
    """

    labels: Tensor
    signal: Tensor
    noise: Tensor
    overlap: Tensor
    mu_overlap: Tensor

    @property
    def largest(self) -> float:
        """Largest pre-activation in size, over neurons and patches."""
        return float(torch.maximum(self.signal.abs().max(), self.noise.abs().max()))

    def other_label_sums(self) -> Tensor:
        """Sum over the samples of the other label of the neuron's activations, [m, n].

        The paper's B_r(0), of the label that sample i has.
        """
        activations = self.noise.clamp(min=0)
        positive = self.labels > 0
        sums = [activations[:, positive == side].sum(1) for side in (False, True)]
        return torch.where(positive, sums[0][:, None], sums[1][:, None])

    def negatives(self) -> Tensor:
        """M: number of samples of the other label, [n]."""
        positive = self.labels > 0
        count = int(positive.sum())
        return torch.where(positive, len(positive) - count, count).double()

    def moved(self, run: Run) -> Tensor:
        """<w_r, xi_i> at the end of modality A's training, [m, n]."""
        assert run.gamma is not None
        assert run.rho is not None
        gamma, rho = run.gamma.double(), run.rho.double()
        return self.noise + gamma[:, None] * self.mu_overlap + rho @ self.overlap


def start_of(cfg: TrainConfig) -> Start:
    """Modality A of a run's data before training."""
    data = sample(cfg)
    assert data.noise is not None
    mu, noise, weights = (x.double() for x in (data.mu, data.noise, data.weights))
    return Start(
        labels=data.labels,
        signal=weights @ mu,
        noise=weights @ noise.T,
        overlap=(noise @ noise.T) / noise.square().sum(1)[:, None],
        mu_overlap=noise @ mu / mu.square().sum(),
    )


__all__ = ["Start", "start_of"]
