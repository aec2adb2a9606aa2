"""The autograd function of the distributed losses."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from mmcl_fast.distributed.exchange import EXCHANGES
from mmcl_fast.distributed.group import Members
from mmcl_fast.distributed.problem import INPUTS, LocalProblem
from mmcl_fast.distributed.sigmoid import sigmoid_pass
from mmcl_fast.distributed.softmax import softmax_gradients, softmax_statistics
from mmcl_fast.losses.autograd import frees_graph
from mmcl_fast.losses.contrast import Gradients, Requested

Mode = Literal["gather", "ring"]
GradientScale = Literal["ddp", "sum"]

_SCALARS = ("temperature", "bias")


@dataclass(frozen=True)
class Call:
    """Arguments of forward and backward.

    Attributes:
        problem: Of this rank; its features are those of the forward pass.
        requested: Inputs of the contrast whose gradient is needed.
        extra_learns: Whether that of the extra negatives is needed.
        members: The ranks.
        mode: A key of `EXCHANGES`.
        factor: Ratio of the returned gradients to those of the mean of the ranks' returned losses.
        local_value: Each rank returns the mean over its own rows, not over the whole batch.
        others_constant: The features of other ranks are constants of this rank's loss: gradients of
            features are its own, not the sum over ranks.
    """

    problem: LocalProblem
    requested: Requested
    extra_learns: bool
    members: Members
    mode: Mode
    factor: float
    local_value: bool = False
    others_constant: bool = False

    @property
    def weight(self) -> float:
        """Weight of one row loss of this rank in the mean of the ranks' returned losses."""
        members = self.members
        if self.local_value:
            return 1.0 / (members.size * members.rows[members.rank])
        return 1.0 / members.total

    @property
    def feature_factor(self) -> float:
        """`factor`, for gradients of features."""
        return self.factor / self.members.size if self.others_constant else self.factor


def requested_of(problem: LocalProblem) -> tuple[Requested, bool]:
    """The gradients that autograd will request: of the contrast, and of the extra negatives."""
    if not torch.is_grad_enabled():
        return Requested(), False
    learns = {name: x is not None and x.requires_grad for name, x in problem.inputs.items()}
    extra_learns = learns.pop("extra")
    return Requested(**learns), extra_learns


def distributed_loss(call: Call) -> Tensor:
    """The loss over the whole batch, the same on every rank; a collective call."""
    inputs = call.problem.inputs.values()
    result: Tensor = _Distributed.apply(call, *inputs)  # type: ignore[no-untyped-call]
    return result


class _Distributed(torch.autograd.Function):
    """Softmax forms keep their statistics for the backward pass; the sigmoid keeps gradients."""

    @staticmethod
    def forward(ctx: Any, call: Call, *inputs: Tensor | None) -> Tensor:
        problem = call.problem.detached
        local = problem.contrast
        with torch.autocast(local.query.device.type, enabled=False):
            saved: tuple[Tensor | None, ...]
            where = call.members, EXCHANGES[call.mode]
            if local.form == "sigmoid":
                loss_sum, saved = sigmoid_pass(local, *where, call.requested, call.weight)
            else:
                loss_sum, saved = softmax_statistics(problem, *where)
            if call.local_value:
                loss = loss_sum / len(local.query)
            else:
                loss = call.members.shared_sum(loss_sum) * call.weight
        # Inputs too, so that autograd notices if they are changed before the backward pass.
        ctx.save_for_backward(*inputs, *saved)
        ctx.call = replace(call, problem=problem)
        return loss

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        saved, call = ctx.saved_tensors, ctx.call
        if frees_graph():
            ctx.call = None
        gradients = _OnceDifferentiable.apply(call, upstream, *saved)  # type: ignore[no-untyped-call]
        return None, *gradients


class _OnceDifferentiable(torch.autograd.Function):
    """The backward pass, which refuses to be differentiated."""

    @staticmethod
    def forward(ctx: Any, call: Call, upstream: Tensor, *saved: Tensor) -> tuple[Any, ...]:
        inputs, statistics = saved[: len(INPUTS)], saved[len(INPUTS) :]
        local = call.problem.contrast
        with torch.autocast(local.query.device.type, enabled=False):
            of_extra = None
            if local.form == "sigmoid":
                gradients = Gradients(*statistics)
            else:
                where = call.members, EXCHANGES[call.mode]
                learns = call.requested, call.extra_learns
                arguments = call.problem, *where, *learns, call.weight
                gradients, of_extra = softmax_gradients(*arguments, statistics)
            factors = (call.factor if name in _SCALARS else call.feature_factor for name in INPUTS)
            return tuple(
                None if gradient is None else (gradient * (upstream * factor)).to(x.dtype)
                for gradient, factor, x in zip(
                    _summed(call, gradients, of_extra), factors, inputs, strict=True
                )
            )

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Any, ...]:
        raise RuntimeError("distributed losses: expected one differentiation, got a second")


def _summed(call: Call, gradients: Gradients, of_extra: Tensor | None) -> list[Tensor | None]:
    """In the order of `INPUTS`; of scalars, 1 / size of the sum over ranks for each rank."""
    requested = [name for name in _SCALARS if getattr(call.requested, name)]
    parts: dict[str, Tensor | None] = {
        "query": gradients.query,
        "key": gradients.key,
        "hard": gradients.hard,
        "extra": of_extra,
    }
    if requested:
        shares = torch.stack([getattr(gradients, name).sum() for name in requested])
        whole = call.members.shared_sum(shares) / call.members.size
        parts |= dict(zip(requested, whole.unbind(), strict=True))
    learns = call.requested._asdict() | {"extra": call.extra_learns}
    return [parts.get(name) if learns[name] else None for name in INPUTS]


__all__ = ["Call", "GradientScale", "Mode", "distributed_loss", "requested_of"]
