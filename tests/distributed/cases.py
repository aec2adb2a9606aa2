"""What the worker processes run, and what one process makes of the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from mmcl_fast import reference
from mmcl_fast.distributed import (
    DistributedDCLLoss,
    DistributedInfoNCELoss,
    DistributedNTXentLoss,
    DistributedSigLIPLoss,
    DistributedSupConLoss,
    clip_loss,
    siglip_loss,
)
from mmcl_fast.reference.contrastive import info_nce

WORLD = 3
MODES = ("gather", "ring")
PAIR = (2, 0)  # global ranks of the group of two: none is its own rank there
ALONE = (1,)
GROUPS = ((0, 1, 2), PAIR, ALONE)


@dataclass(frozen=True)
class Case:
    id: str
    why: str
    loss: str = "infonce"
    options: dict[str, Any] = field(default_factory=dict)
    rows: tuple[int, ...] = (7, 5, 8)
    d: int = 6
    temperature: float = 0.2
    dtype: torch.dtype = torch.float64
    group: tuple[int, ...] = (0, 1, 2)
    classes: int = 0
    gradient: str = "ddp"
    upstream: tuple[float, ...] = (1.0, 1.0, 1.0)
    frozen: tuple[str, ...] = ()
    calls: int = 1  # of one module; gradients are those of the last
    scale: float = 1.0  # of the features
    shape: tuple[int, ...] = ()  # of temperature and bias
    extra: tuple[int, ...] = ()  # extra negatives of each rank
    hard: tuple[int, ...] = ()  # hard negatives of each query, rank by rank
    trained: bool = False  # features near an optimum, where parts of a gradient cancel


SYMMETRIC = {"symmetric": True}
OTHER = {"negatives": "other_label"}
SMOOTHED = {"label_smoothing": 0.2}
STOPPED = {"stop_gradient": "key"}
CASES = [
    Case("one_way", "every default, batches of three sizes"),
    Case("symmetric", "CLIP", options=SYMMETRIC),
    Case("even", "batches of one size are gathered without copies", options=SYMMETRIC,
         rows=(6, 6, 6)),
    Case("single_rows", "one row a rank: no negative at home", options=SYMMETRIC, rows=(1, 1, 1)),
    Case("pair", "ranks inside a group of two", options=SYMMETRIC, rows=(9, 4), group=PAIR),
    Case("pair_one_way", "the same, one way", rows=(3, 8), group=PAIR,
         shape=(1,)),
    Case("alone", "a group of one", options=SYMMETRIC, rows=(9,), group=ALONE),
    Case("stopped", "no gradient travels", options=STOPPED),
    Case("stopped_symmetric", "each direction differentiated in its query",
         options=STOPPED | SYMMETRIC),
    Case("labels", "three labels, masked", options=OTHER, classes=3),
    Case("two_labels", "sorted into halves within a tile", options=OTHER | SYMMETRIC, classes=2),
    Case("one_label", "no negative anywhere", options=OTHER | SYMMETRIC, classes=1),
    Case("paper_9", "equation (9)", options=OTHER | SYMMETRIC | STOPPED, classes=2),
    Case("upstream", "another upstream on every rank", options=SYMMETRIC,
         upstream=(2.5, 0.5, -3.0)),
    Case("sum", "gradients to be added up", options=SYMMETRIC, gradient="sum"),
    Case("frozen_key", "one tower learns", options=SYMMETRIC, frozen=("key",)),
    Case("frozen_query", "the tower whose keys travel learns alone", options=SYMMETRIC,
         frozen=("query", "temperature")),
    Case("frozen_towers", "only the temperature learns", options=SYMMETRIC,
         frozen=("query", "key")),
    Case("promised", "later calls exchange no sizes", options=SYMMETRIC | {"equal_batches": True},
         rows=(4, 4, 4), calls=3),
    Case("large_logits", "+-1000: tops differ by far between ranks", options=SYMMETRIC,
         scale=14.0),
    Case("confident", "a loss near 0 keeps its relative accuracy", options=SYMMETRIC, d=32,
         temperature=0.02),
    Case("float32", "the promised arithmetic", options=SYMMETRIC, rows=(40, 33, 50), d=24,
         dtype=torch.float32),
    Case("bfloat16", "sums in float32", options=SYMMETRIC, rows=(40, 33, 50), d=24,
         dtype=torch.bfloat16),
    Case("float16", "gradients travel in float32", rows=(40, 33, 50), d=24, dtype=torch.float16),
    Case("extra", "of other numbers on every rank", extra=(3, 0, 2)),
    Case("extra_pair", "ranks inside a group of two", rows=(9, 4), extra=(0, 5), group=PAIR,
         gradient="sum"),
    Case("extra_alone", "a group of one", rows=(9,), extra=(4,), group=ALONE),
    Case("extra_nowhere", "none on any rank", extra=(0, 0, 0)),
    Case("extra_queue", "negatives that do not learn", extra=(4, 2, 3),
         frozen=("extra_negatives",)),
    Case("extra_learns_alone", "nothing else does", extra=(4, 2, 3),
         frozen=("query", "key", "temperature")),
    Case("extra_promised", "later calls exchange no sizes", options={"equal_batches": True},
         rows=(4, 4, 4), extra=(2, 2, 2), hard=(3, 3, 3), calls=3),
    Case("hard", "each query's own", hard=(3, 3, 3), upstream=(2.5, 0.5, -3.0)),
    Case("hard_ragged", "of other numbers on every rank", hard=(1, 4, 2)),
    Case("more_negatives", "whatever their labels", options=SMOOTHED | OTHER, classes=3,
         extra=(3, 0, 2), hard=(2, 2, 2)),
    Case("more_stopped", "no gradient of theirs", options=SMOOTHED | STOPPED, extra=(3, 0, 2),
         hard=(2, 2, 2)),
    Case("more_float32", "the promised arithmetic", options=SMOOTHED, rows=(40, 33, 50), d=24,
         extra=(20, 5, 30), hard=(3, 3, 3), dtype=torch.float32),
    Case("clip", "open_clip's arguments", loss="clip", shape=(1,)),
    Case("siglip", "one ring", loss="siglip"),
    Case("siglip_pair", "ranks inside a group of two", loss="siglip", rows=(9, 4), group=PAIR,
         shape=(1,)),
    Case("siglip_frozen", "numbers and one tower learn", loss="siglip", frozen=("query",)),
    Case("siglip_sum", "upstream on kept gradients", loss="siglip", gradient="sum",
         upstream=(2.5, 0.5, -3.0)),
    Case("siglip_float32", "the promised arithmetic", loss="siglip", rows=(40, 33, 50), d=24,
         dtype=torch.float32),
    Case("siglip_bfloat16", "sums in float32", loss="siglip", rows=(40, 33, 50), d=24,
         dtype=torch.bfloat16),
    Case("open_clip_siglip", "open_clip's arguments", loss="open_clip_siglip", shape=(1,)),
    Case("ntxent", "all views of everyone", loss="ntxent"),
    Case("ntxent_pair", "ranks inside a group of two", loss="ntxent", rows=(9, 4), group=PAIR,
         shape=(1,)),
    Case("ntxent_upstream", "another upstream on every rank", loss="ntxent",
         upstream=(2.5, 0.5, -3.0)),
    Case("dcl", "no positive among the negatives", loss="dcl"),
    Case("dcl_single_rows", "no negative at home", loss="dcl", rows=(1, 1, 1), gradient="sum"),
    Case("dcl_alone", "no negative anywhere", loss="dcl", rows=(1,), group=ALONE),
    Case("supcon", "positives on every rank", loss="supcon", classes=4),
    Case("supcon_rare", "rows without positives, others have theirs elsewhere", loss="supcon",
         classes=12, upstream=(2.5, 0.5, -3.0)),
    Case("supcon_single_rows", "one row a rank", loss="supcon", classes=2, rows=(1, 1, 1)),
    Case("supcon_pair", "ranks inside a group of two", loss="supcon", classes=3, rows=(9, 4),
         group=PAIR, shape=(1,), gradient="sum"),
    Case("supcon_alone", "a group of one", loss="supcon", classes=3, rows=(9,), group=ALONE),
    Case("supcon_float32", "the promised arithmetic", loss="supcon", classes=5, rows=(40, 33, 50),
         d=24, dtype=torch.float32),
    Case("supcon_bfloat16", "both parts of a gradient are added before they are rounded",
         loss="supcon", classes=5, rows=(16, 9, 15), d=24, dtype=torch.bfloat16, trained=True),
    Case("smoothed", "one way", options=SMOOTHED),
    Case("smoothed_symmetric", "each direction has candidates of its own",
         options=SMOOTHED | SYMMETRIC, upstream=(2.5, 0.5, -3.0)),
    Case("smoothed_stopped", "no gradient travels", options=SMOOTHED | STOPPED),
    Case("smoothed_paper_9", "each direction differentiated in its query",
         options=SMOOTHED | OTHER | SYMMETRIC | STOPPED, classes=3),
    Case("smoothed_labels", "candidates of other labels", options=SMOOTHED | OTHER | SYMMETRIC,
         classes=3, gradient="sum"),
    Case("smoothed_one_label", "the positive is the only candidate", options=SMOOTHED | OTHER,
         classes=1),
    Case("smoothed_single_rows", "no negative at home", options=SMOOTHED | SYMMETRIC,
         rows=(1, 1, 1)),
    Case("smoothed_frozen_key", "one tower learns", options=SMOOTHED | SYMMETRIC, frozen=("key",)),
    Case("smoothed_float32", "the promised arithmetic", options=SMOOTHED | SYMMETRIC,
         rows=(40, 33, 50), d=24, dtype=torch.float32),
    Case("smoothed_bfloat16", "both parts of a gradient are added before they are rounded",
         options=SMOOTHED | SYMMETRIC, rows=(16, 9, 15), d=24, dtype=torch.bfloat16, trained=True),
    Case("ntxent_float32", "the promised arithmetic", loss="ntxent", rows=(40, 33, 50), d=24,
         dtype=torch.float32),
    Case("ntxent_sharp", "a pair's score is rounded once, though a payload's rows are not aligned",
         loss="ntxent", rows=(41, 41, 41), d=23, temperature=1e-5, dtype=torch.float32),
    Case("supcon_sharp", "a pair's score is rounded once", loss="supcon", classes=5,
         rows=(40, 33, 50), d=24, temperature=1e-5, dtype=torch.float32),
]  # fmt: skip
# For two GPUs.
NCCL = [
    replace(case, group=(0, 1))
    for case in (
        *(case for case in CASES if case.group == PAIR),
        Case("nccl_labels", "sent beside the features", options=OTHER | SYMMETRIC | STOPPED,
             classes=3, rows=(9, 4), group=PAIR),
        Case("nccl_bfloat16", "sums in float32", options=SYMMETRIC, rows=(300, 200), d=24,
             dtype=torch.bfloat16, group=PAIR),
    )
]  # fmt: skip
# Sizes tell what a tensor is: n x n scores < n x D features < n x N < N x D, and N x D < N x N in
# the narrow ones.
WATCHED = [
    Case(f"{loss}_{name}", why, loss=loss, rows=(16,) * 3, d=d, classes=3 * (loss == "supcon"))
    for loss in ("clip", "siglip", "ntxent", "supcon")
    for name, d, why in (
        ("wide", 40, "a tile is smaller than one rank's features"),
        ("narrow", 2, "the whole batch's scores are larger than its features"),
    )
]


def tensors_of(case: Case) -> dict[str, Tensor]:
    """Differentiable tensors of the whole batch, drawn in the case's dtype."""
    g = torch.Generator().manual_seed(5)
    n = sum(case.rows)
    shared = torch.randn(n, case.d, generator=g)
    x = {
        name: case.scale * normalize(shared + torch.randn(n, case.d, generator=g))
        for name in ("query", "key")
    }
    wide = torch.float64 if case.dtype == torch.float64 else torch.float32
    numbers = {"temperature": torch.full(case.shape, case.temperature, dtype=wide)}
    if case.loss in ("siglip", "open_clip_siglip"):
        numbers["bias"] = torch.full(case.shape, -1.5, dtype=wide)
    more = {
        "extra_negatives": (sum(case.extra),) if case.extra else (),
        "hard_negatives": (n, max(case.hard)) if case.hard else (),
    }
    for name, sizes in more.items():
        if sizes:
            x[name] = case.scale * normalize(torch.randn(*sizes, case.d, generator=g), dim=-1)
    if case.trained:
        x = _trained(case, x)
    return {name: tensor.to(case.dtype) for name, tensor in x.items()} | numbers


def _trained(case: Case, x: dict[str, Tensor]) -> dict[str, Tensor]:
    """The features after gradient descent."""
    leaves = {name: tensor.double().requires_grad_() for name, tensor in x.items()}
    optimizer = torch.optim.Adam(leaves.values(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        oracle(case)(**leaves, temperature=case.temperature).backward()
        optimizer.step()
    return {name: tensor.detach() for name, tensor in leaves.items()}


def labels_of(case: Case) -> Tensor | None:
    if not case.classes:
        return None
    g = torch.Generator().manual_seed(6)
    return torch.randint(0, case.classes, (sum(case.rows),), generator=g)


def oracle(case: Case) -> Callable[..., Tensor]:
    """The loss of the whole batch in one process, of the tensors of `tensors_of`."""
    if case.loss in ("ntxent", "dcl"):
        of_views = {"ntxent": reference.nt_xent, "dcl": reference.dcl}[case.loss]
        return lambda query, key, temperature: of_views(query, key, temperature=temperature)
    if case.loss in ("siglip", "open_clip_siglip"):
        return reference.siglip
    if case.loss == "supcon":
        return lambda query, key, temperature: reference.sup_con(
            query, labels_of(case), temperature=temperature
        )
    options = {k: v for k, v in case.options.items() if k != "equal_batches"}
    if case.loss == "clip":
        options = SYMMETRIC
    if len(set(case.hard)) > 1:
        return partial(_ragged, case)
    return partial(info_nce, labels=labels_of(case), **options)


def _ragged(
    case: Case, query: Tensor, key: Tensor, hard_negatives: Tensor, temperature: Tensor
) -> Tensor:
    """One way, where each rank's queries have another number of hard negatives."""
    count = torch.tensor(case.hard).repeat_interleave(torch.tensor(case.rows))
    absent = torch.arange(hard_negatives.shape[1]) >= count[:, None]
    hard = (query[:, None] * hard_negatives).sum(dim=2) / temperature
    scores = torch.cat([query @ key.T / temperature, hard.masked_fill(absent, -torch.inf)], dim=1)
    return cross_entropy(scores, torch.arange(len(query)))


def distributed(case: Case, mode: str, group: Any, part: slice) -> Callable[..., Tensor]:
    """The same loss of the rows of this rank, `part`, of the tensors of this rank."""
    where = {"group": group, "mode": mode, "gradient": case.gradient}
    if case.loss == "clip":
        return lambda query, key, temperature: clip_loss(query, key, 1 / temperature, **where)
    if case.loss == "open_clip_siglip":
        return lambda query, key, temperature, bias: siglip_loss(
            query, key, 1 / temperature, bias, **where
        )
    kinds = {
        "infonce": DistributedInfoNCELoss,
        "siglip": DistributedSigLIPLoss,
        "ntxent": DistributedNTXentLoss,
        "dcl": DistributedDCLLoss,
        "supcon": DistributedSupConLoss,
    }
    labels = labels_of(case)
    more = {} if labels is None else {"labels": labels[part]}
    made: list[nn.Module] = []

    def loss(query: Tensor, key: Tensor, **others: Tensor) -> Tensor:
        numbers = {k: x for k, x in others.items() if k in ("temperature", "bias")}
        if not made:
            made.append(kinds[case.loss](**numbers, **case.options, **where))
        for name, value in numbers.items():
            setattr(made[0], name, value)
        own = {k: x.to(query.device) for k, x in more.items()}
        own |= {k: x for k, x in others.items() if k not in numbers}
        rows = (query,) if case.loss == "supcon" else (query, key)
        value: Tensor = made[0](*rows, **own)
        return value

    return loss


OPEN_CLIP = [(True, True), (False, False), (False, True)]  # gather_with_grad, local_loss
EVEN, UNEVEN = (4, 4, 4), (4, 6, 3)


def as_open_clip(
    images: Tensor,
    texts: Tensor,
    scale: Tensor,
    rows: tuple[int, ...],
    options: tuple[bool, bool],
) -> list[Tensor]:
    """The value of open_clip's `ClipLoss` on each rank, of the whole batch in one process.

    Their mean has the gradient that DistributedDataParallel makes of theirs.
    """
    gather_with_grad, local_loss = options
    values = []
    for rank in range(len(rows)):
        own = torch.zeros(sum(rows), 1, dtype=torch.bool)
        own[part_of(rows, rank)] = True
        live = own if not local_loss else torch.zeros_like(own)
        everyone = [
            x if gather_with_grad else torch.where(live, x, x.detach()) for x in (images, texts)
        ]
        queries = [
            x[own[:, 0]] if local_loss else y
            for x, y in zip((images, texts), everyone, strict=True)
        ]
        at = torch.arange(sum(rows))[own[:, 0]] if local_loss else torch.arange(sum(rows))
        values.append(
            sum(
                cross_entropy(scale * query @ key.T, at)
                for query, key in zip(queries, reversed(everyone), strict=True)
            )
            / 2
        )
    return values


class Towers(nn.Module):
    """Two tiny encoders and a scale, for `DistributedDataParallel`."""

    def __init__(self) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(7)
        self.image = nn.Linear(5, 4, dtype=torch.float64)
        self.text = nn.Linear(3, 4, dtype=torch.float64)
        self.log_scale = nn.Parameter(torch.tensor(1.2, dtype=torch.float64))
        with torch.no_grad():
            for p in (*self.image.parameters(), *self.text.parameters()):
                p.copy_(torch.randn(p.shape, generator=g, dtype=torch.float64))

    def forward(self, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pair = (normalize(torch.tanh(f(x))) for f, x in ((self.image, images), (self.text, texts)))
        return *pair, self.log_scale.exp()


def pictures(rows: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Inputs of `Towers` for the whole batch."""
    g = torch.Generator().manual_seed(8)
    n = sum(rows)
    images = torch.randn(n, 5, generator=g, dtype=torch.float64)
    return images, torch.randn(n, 3, generator=g, dtype=torch.float64)


def part_of(rows: tuple[int, ...], rank: int) -> slice:
    """A rank's rows of the whole batch."""
    start = sum(rows[:rank])
    return slice(start, start + rows[rank])
