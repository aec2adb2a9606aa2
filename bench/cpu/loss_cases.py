"""The losses that are timed, each at one size with its peers, and the gate before any timing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from mmcl_fast import losses

from ..peers import losses as peers
from ..peers.losses import Loss, T

OURS, DENSE, LINEAR, COMPILED = "mmcl_fast", "dense", "linear_cross_entropy", "dense, compiled"
OPEN_CLIP, CUT, LIGHTLY = "open_clip", "cut-cross-entropy", "lightly"
METRIC_LEARNING = "pytorch-metric-learning"
GATE_N = 512


@dataclass(frozen=True)
class Case:
    """One loss at one size; `units` are products of 2 N N D flop that it takes at least.

    `inputs` names what of `make_inputs` the losses get, in their order. The first of `others` is
    the dense form, with which the gate compares. `short` cases are those of `mmcl bench`.
    """

    name: str
    n: int
    d: int
    inputs: str
    ours: Loss
    others: Mapping[str, Loss]
    units: float
    memory_only: bool = False
    short: bool = True


def _ours_one_way(x: Tensor, y: Tensor, scale: Tensor) -> Tensor:
    return losses.info_nce(x, y, temperature=1 / scale)


def _ours_paper(x: Tensor, y: Tensor, positive: Tensor, same: Tensor, labels: Tensor) -> Tensor:
    return losses.info_nce(
        x,
        y,
        positive_key=positive,
        labels=labels,
        negatives="other_label",
        stop_gradient="key",
        temperature=T,
    )


def _ours_both(x: Tensor, y: Tensor, positive: Tensor, same: Tensor, labels: Tensor) -> Tensor:
    return 2 * losses.info_nce(
        x,
        y,
        symmetric=True,
        labels=labels,
        negatives="other_label",
        stop_gradient="key",
        temperature=T,
    )


def _smoothed(x: Tensor, y: Tensor, *, reduction: Literal["mean", "none"]) -> Tensor:
    return losses.info_nce(x, y, symmetric=True, label_smoothing=0.1, reduction=reduction)


def _same(loss: Loss) -> Loss:
    """Query and key are one tensor."""
    return lambda x, positive, same, labels: loss(x, x, positive, same, labels)


def _masked(loss: Loss) -> Loss:
    """Dense forms get the mask of equal labels made beforehand."""
    return lambda x, y, positive, same, labels: loss(x, y, positive, same)


_CLIP = {DENSE: peers.dense_clip, LINEAR: peers.linear_clip, OPEN_CLIP: peers.open_clip_clip}
_COMPILED_CLIP = {COMPILED: peers.compiled(peers.dense_clip)}
_ONE_WAY = {
    DENSE: peers.dense_one_way,
    LINEAR: peers.linear_one_way,
    COMPILED: peers.compiled(peers.dense_one_way),
}
_PAPER = {
    DENSE: _masked(peers.masked_single),
    COMPILED: _masked(peers.compiled(peers.masked_single)),
}
_PAPER_ITSELF = {name: _same(loss) for name, loss in _PAPER.items()}
_PAPER_BOTH = {
    DENSE: _masked(peers.masked_both),
    COMPILED: _masked(peers.compiled(peers.masked_both)),
}
_NT_XENT = {
    DENSE: peers.dense_nt_xent,
    COMPILED: peers.compiled(peers.dense_nt_xent),
    LIGHTLY: peers.lightly_nt_xent,
}
_SIGLIP = {
    DENSE: peers.dense_siglip,
    COMPILED: peers.compiled(peers.dense_siglip),
    OPEN_CLIP: peers.open_clip_siglip,
}
_ALL_CLIP = {**_CLIP, **_COMPILED_CLIP, CUT: peers.cut_clip}
_SMALL_NT_XENT = {DENSE: peers.dense_nt_xent, METRIC_LEARNING: peers.metric_learning_nt_xent}
_ours_clip = losses.compat.ClipLoss()
_ours_siglip = losses.compat.SigLipLoss()
_ours_nt_xent = losses.NTXentLoss(temperature=T)
CASES = (
    Case("symmetric", 2048, 256, "xys", _ours_clip, _ALL_CLIP, 4),
    Case("symmetric", 128, 128, "xys", _ours_clip, {**_CLIP, **_COMPILED_CLIP}, 4),
    Case("symmetric", 8192, 128, "xys", _ours_clip, {**_CLIP, **_COMPILED_CLIP}, 4),
    Case("symmetric", 32768, 128, "xys", _ours_clip, {}, 4, memory_only=True, short=False),
    Case("one way", 2048, 256, "xys", _ours_one_way, _ONE_WAY, 3, short=False),
    Case(
        "paper (6), another key", 2048, 256, "xypml", _ours_paper, _PAPER, 1, short=False,
    ),
    Case(
        "paper (6), the query as key", 2048, 256, "xpml", _same(_ours_paper), _PAPER_ITSELF, 3 / 4,
    ),
    Case("paper (9)", 2048, 256, "xypml", _ours_both, _PAPER_BOTH, 3 / 2),
    Case("NT-Xent", 1024, 256, "xy", _ours_nt_xent, _NT_XENT, 8),
    # The library's time and memory grow with the third power of N.
    Case("NT-Xent", 96, 256, "xy", _ours_nt_xent, _SMALL_NT_XENT, 8),
    Case("SigLIP", 2048, 256, "xysb", _ours_siglip, _SIGLIP, 3),
    # Whether anything grows with N x N shows at 20,000 rows: 1.5 GiB of scores.
    *(
        Case(name, n, 128, "xy", ours, {}, 4, memory_only=True, short=False)
        for name, n, ours in (
            ("NT-Xent", 10_000, _ours_nt_xent),
            ("DCL", 10_000, lambda x, y: losses.dcl(x, y, temperature=T)),
            ("SupCon", 20_000, lambda x, y: losses.sup_con(x, torch.arange(len(x)) // 4)),
            ("label smoothing", 20_000, partial(_smoothed, reduction="mean")),
            ("a loss for each row", 20_000, lambda x, y: _smoothed(x, y, reduction="none").sum()),
        )
    ),
)  # fmt: skip


def make_inputs(case: Case, n: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Unit rows, a scale, a bias, a positive, labels and their mask, as the case needs."""
    g = torch.Generator().manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(3, n, case.d, generator=g), dim=2).to(dtype)
    labels = torch.randint(0, 2, (n,), generator=g)
    labels[:2] = torch.tensor([0, 1])
    made = {
        "x": rows[0].clone().requires_grad_(),
        "y": rows[1].clone().requires_grad_(),
        "p": rows[2],
        "s": torch.tensor(1 / T, dtype=dtype, requires_grad=True),
        "b": torch.tensor(-10.0, dtype=dtype, requires_grad=True),
    }
    if "m" in case.inputs:
        made["m"], made["l"] = labels[:, None] == labels, labels.int()
    return [made[letter] for letter in case.inputs]


def step(loss: Loss, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Forward and backward: the value and all gradients."""
    requested = [x for x in inputs if x.requires_grad]
    value = loss(*inputs)
    return [
        value.detach(),
        *torch.autograd.grad(value, requested, allow_unused=True, materialize_grads=True),
    ]


def wrong(case: Case, variants: Mapping[str, Loss]) -> list[str]:
    """Those of the variants whose value or gradients are off by more than float32 explains."""
    if not case.others:
        return []
    n = min(case.n, GATE_N)
    exact = step(next(iter(case.others.values())), make_inputs(case, n, torch.float64))
    failures = []
    for name, loss in variants.items():
        got = step(loss, make_inputs(case, n))
        far = [
            float((a.double() - b).abs().max() / b.abs().max().clamp(min=1e-30))
            for a, b in zip(got, exact, strict=True)
            if float(b.abs().max()) > 0
        ]
        if not all(x < 2e-5 for x in far):
            failures.append(f"{name}: {max(far):.1e}")
    return failures


__all__ = [
    "CASES",
    "COMPILED",
    "CUT",
    "DENSE",
    "GATE_N",
    "LINEAR",
    "OPEN_CLIP",
    "OURS",
    "Case",
    "make_inputs",
    "step",
    "wrong",
]
