"""The temperature of the loss, fixed or learned as log(1 / tau)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mmcl_fast.config import TrainConfig


class Temperature:
    """tau of R runs; where it is learned, the parameter is t = log(1 / tau).

    Args:
        cfg: Settings of the runs.
        runs: R.
        like: A tensor of the dtype and device of the runs.
    """

    def __init__(self, cfg: TrainConfig, runs: int, like: Tensor) -> None:
        self._tau, self._eta = cfg.tau_value, cfg.eta_tau
        self.log_inverse: Tensor | None = None
        if self._eta is not None:
            self.log_inverse = like.new_full((runs,), -math.log(self._tau))
        self._like, self._runs = like, runs

    def inverse(self) -> float | Tensor:
        """1 / tau: a number where it is fixed, else [R, 1, 1]."""
        if self.log_inverse is None:
            return 1.0 / self._tau
        return self._exponentials(self.log_inverse).view(-1, 1, 1)

    def values(self) -> Tensor:
        """The temperature of each run, [R]."""
        if self.log_inverse is None:
            return self._like.new_full((self._runs,), self._tau)
        return self._exponentials(-self.log_inverse)

    def step(self, gradient: Tensor) -> None:
        """A step of gradient descent on t; `gradient` is dL/dt, [R]."""
        if self.log_inverse is not None and self._eta is not None:
            self.log_inverse.sub_(gradient, alpha=self._eta)

    def _exponentials(self, powers: Tensor) -> Tensor:
        # torch's elementwise powers may round by an element's place in its tensor.
        return torch.tensor([_exp(x) for x in powers.tolist()], dtype=torch.float64).to(powers)


def _exp(x: float) -> float:
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf


__all__ = ["Temperature"]
