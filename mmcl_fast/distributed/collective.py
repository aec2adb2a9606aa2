"""One collective call: all ranks agree on its arguments, then each computes its part."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from mmcl_fast.distributed.autograd import (
    Call,
    GradientScale,
    Mode,
    distributed_loss,
    requested_of,
)
from mmcl_fast.distributed.exchange import EXCHANGES
from mmcl_fast.distributed.group import (
    DTYPES,
    CallSignature,
    Group,
    agree,
    bits_of,
    equal_members,
    group_of,
    report_refusal,
)
from mmcl_fast.distributed.problem import LocalProblem
from mmcl_fast.losses.contrast import Form
from mmcl_fast.losses.validation import check_options

_SCALES = ("ddp", "sum")
_FORMS: tuple[Form, ...] = ("softmax", "decoupled", "sigmoid")


class Setting(NamedTuple):
    """How a distributed loss runs.

    Attributes:
        group: The processes; None: the default group. Ranks are those inside the group.
        mode: "gather" | "ring".
        gradient: "ddp" | "sum".
        equal_batches: A promise that every rank has as many rows as this one, and equal arguments;
            it is not checked.
        local_loss: See `clip_loss`.
        gather_with_grad: See `clip_loss`.
    """

    group: Group | None = None
    mode: Mode = "gather"
    gradient: GradientScale = "ddp"
    equal_batches: bool = False
    local_loss: bool = False
    gather_with_grad: bool = True

    def check(self) -> None:
        """Each option is one of its known values.

        Raises:
            TypeError: A switch is no bool.
            ValueError: Another option is none of its values; the message lists them.
        """
        check_options(local_loss=self.local_loss, gather_with_grad=self.gather_with_grad)
        for name, value, known in (
            ("mode", self.mode, tuple(EXCHANGES)),
            ("gradient", self.gradient, _SCALES),
        ):
            if value not in known:
                listed = " | ".join(repr(choice) for choice in known)
                raise ValueError(f"{name}: expected {listed}, got {value!r}")


def collective_loss(setting: Setting, build: Callable[[], LocalProblem]) -> Tensor:
    """The loss of the whole batch, of which `build` makes this rank's part.

    Args:
        setting: How it runs.
        build: Checks the arguments and makes the problem of them. Called once, inside: what it
            refuses is refused on every rank.

    Raises:
        TypeError, ValueError: Those of `build`; ranks do not agree; `setting` is refused.
        RuntimeError: There is no process group.
    """
    loss: Tensor = _agreed_loss(setting, build)
    return loss


# Reading the signatures of other ranks cannot be traced: `torch.compile` runs this eagerly.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def _agreed_loss(setting: Setting, build: Callable[[], LocalProblem]) -> Tensor:
    """The loss of the problem that `build` makes of checked arguments, if all ranks agree."""
    group = group_of(setting.group)
    try:
        setting.check()
        problem = build()
    except (TypeError, ValueError):
        if not setting.equal_batches:  # the other ranks wait for this signature
            report_refusal(group)
        raise
    local, (requested, extra_learns) = problem.contrast, requested_of(problem)
    extra = 0 if problem.extra is None else len(problem.extra)
    members = equal_members(group, len(local.query), extra)
    if not setting.equal_batches:
        signature = CallSignature(
            rows=len(local.query),
            extra_rows=extra,
            features=local.query.shape[1],
            dtype=DTYPES.index(local.query.dtype),
            loss=_code(problem),
            mode=list(EXCHANGES).index(setting.mode),
            gradient=_SCALES.index(setting.gradient),
            requires_grad=sum(needed << k for k, needed in enumerate((*requested, extra_learns))),
            label_smoothing=bits_of(problem.label_smoothing),
            local_loss=int(setting.local_loss),
            gather_with_grad=int(setting.gather_with_grad),
            labels=sum(1 + x.is_floating_point() for x in problem.payload[1:]),
            extra_negatives=int(problem.extra is not None),
            hard_negatives=int(local.hard is not None),
        )
        members = agree(group, signature)
    return distributed_loss(
        Call(
            problem=problem,
            requested=requested,
            extra_learns=extra_learns,
            members=members,
            mode=setting.mode,
            factor=float(members.size if setting.gradient == "ddp" else 1),
            local_value=setting.local_loss,
            others_constant=not (setting.gather_with_grad or setting.local_loss),
        )
    )


def _code(problem: LocalProblem) -> int:
    """A number that differs between losses."""
    local = problem.contrast
    flags = local.symmetric, local.stopped, local.key is None, problem.classes is not None
    return sum(flag << k for k, flag in enumerate(flags)) + (_FORMS.index(local.form) << len(flags))


__all__ = ["Setting", "collective_loss"]
