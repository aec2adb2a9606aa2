"""Linear update rules, which apply equally to weights and to their coefficients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mmcl_fast.config import TrainConfig


class LinearDescent:
    """Gradient descent (7), (10), with weight decay and heavy-ball momentum, as `torch.optim.SGD`.

    `g <- g + lambda p;  v <- beta v + g;  p <- p - eta v` is linear: applied to the coordinates of
    the weights in a fixed basis it gives the coordinates of the updated weights.
    """

    def __init__(self, cfg: TrainConfig, parameters: Sequence[Tensor]) -> None:
        self.parameters = list(parameters)
        self._eta = cfg.eta
        self._beta = cfg.momentum_value
        self._decay = cfg.weight_decay
        self._velocity = [torch.zeros_like(p) for p in parameters] if self._beta else []

    def step(self, gradients: Sequence[Tensor], weight: float) -> None:
        """Update the parameters in place; their gradients are `weight` times `gradients`."""
        if not (self._beta or self._decay):
            for p, g in zip(self.parameters, gradients, strict=True):
                p.sub_(g, alpha=self._eta * weight)
            return
        for k, (p, g) in enumerate(zip(self.parameters, gradients, strict=True)):
            direction = g.mul(weight).add_(p, alpha=self._decay)
            if self._beta:
                direction = self._velocity[k].mul_(self._beta).add_(direction)
            p.sub_(direction, alpha=self._eta)

    def state(self) -> dict[str, Tensor]:
        """Parameters and velocities."""
        named = {f"parameter_{k}": p for k, p in enumerate(self.parameters)}
        return named | {f"velocity_{k}": v for k, v in enumerate(self._velocity)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Copy a saved state into place."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])


def torch_optimizer(cfg: TrainConfig, parameters: list[Tensor]) -> torch.optim.Optimizer:
    """The optimizer of torch that a config names; a minibatch's gradient is given to it as is."""
    if cfg.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=cfg.eta, weight_decay=cfg.weight_decay)
    return torch.optim.SGD(
        parameters, lr=cfg.eta, momentum=cfg.momentum_value, weight_decay=cfg.weight_decay
    )


def torch_state(optimizers: Mapping[str, torch.optim.Optimizer]) -> dict[str, Tensor]:
    """Parameters of optimizers, and what these keep of each, by `name.index[.key]`."""
    out: dict[str, Tensor] = {}
    for name, optimizer in optimizers.items():
        for k, p in enumerate(optimizer.param_groups[0]["params"]):
            out[f"{name}.{k}"] = p.detach()
            moments = optimizer.state.get(p, {})
            out |= {f"{name}.{k}.{key}": v for key, v in moments.items() if v is not None}
    return out


def load_torch_state(
    optimizers: Mapping[str, torch.optim.Optimizer], state: Mapping[str, Tensor]
) -> None:
    """Restore `torch_state` of optimizers of the same parameters."""
    for name, optimizer in optimizers.items():
        for k, p in enumerate(optimizer.param_groups[0]["params"]):
            with torch.no_grad():
                p.copy_(state[f"{name}.{k}"])
            prefix = f"{name}.{k}."
            for key in [key for key in state if key.startswith(prefix)]:
                # Adam's step count is on the CPU, its moments are on the parameter's device.
                moment = state[key].clone()
                device = p.device if moment.dim() else moment.device
                optimizer.state[p][key.removeprefix(prefix)] = moment.to(device)


def nest(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Prefix the names of a state, so that several fit into one dictionary."""
    return {f"{prefix}.{name}": tensor for name, tensor in state.items()}


def unnest(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The part of a saved state with a prefix, without it."""
    start = f"{prefix}."
    return {k.removeprefix(start): v for k, v in state.items() if k.startswith(start)}


__all__ = [
    "LinearDescent",
    "load_torch_state",
    "nest",
    "torch_optimizer",
    "torch_state",
    "unnest",
]
