"""What the tests of `info_nce` run on: cases, their tensors, and the three ways to compute them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mmcl_fast.losses import info_nce
from mmcl_fast.reference.contrastive import info_nce as reference
from tests.support.budget import compute_dtype, value_and_grads

DTYPES = [torch.float16, torch.bfloat16, torch.float32]


@dataclass(frozen=True)
class Case:
    id: str
    n: int
    m: int
    d: int
    why: str
    options: dict[str, Any] = field(default_factory=dict)
    temperature: float = 0.2
    classes: int = 0  # 0: no labels
    key_labels: bool = False
    paired_labels: bool = False  # key i has query i's label
    positive_key: bool = False
    positive: bool = False  # indices, some of them equal
    extra: int = 0
    hard: int = 0
    hard_counts: bool = False  # 0 .. hard of them, and not-a-number as padding
    same: bool = False  # query and key are one tensor


OTHER = {"negatives": "other_label"}
CASES = [
    Case("pairs", 64, 64, 32, "every default"),
    Case("ragged", 67, 130, 19, "M > N: the diagonal is not the matrix's; odd sizes"),
    Case("chunks", 1030, 1100, 16, "a second chunk of another size", temperature=0.5),
    Case("many_keys", 300, 9000, 8, "fewest rows a chunk, three chunks"),
    Case("positive_key", 40, 70, 24, "the diagonal is a negative here", positive_key=True),
    Case("few_keys", 40, 7, 24, "M < N needs positive_key", positive_key=True),
    Case("paper_6", 60, 60, 20, "equation (6)", OTHER | {"stop_gradient": "key"}, 1.0, 2,
         positive_key=True),
    Case("other_label", 50, 80, 16, "labels of both sides", OTHER, classes=3, key_labels=True),
    Case("symmetric", 65, 65, 32, "CLIP", {"symmetric": True}),
    Case("symmetric_chunks", 1100, 1100, 8, "columns merged over chunks", {"symmetric": True}, 0.5),
    Case("symmetric_none", 33, 33, 16, "gradient needs the upstream of rows and columns",
         {"symmetric": True, "reduction": "none"}),
    Case("symmetric_none_chunks", 1100, 1100, 8, "the same, recomputed over chunks",
         {"symmetric": True, "reduction": "none"}, 0.5),
    Case("paper_9", 1100, 1100, 8, "equation (9); running column mixture over chunks",
         OTHER | {"symmetric": True, "stop_gradient": "key"}, 1.0, 2),
    Case("stopped_none", 48, 48, 16, "rows of upstream onto a kept gradient",
         {"symmetric": True, "stop_gradient": "key", "reduction": "none"}),
    Case("mirrored_labels", 40, 40, 16, "labels differ by side: the mirror must swap them",
         OTHER | {"symmetric": True}, classes=3, key_labels=True),
    Case("one_way_none", 1030, 1100, 8, "recomputed over chunks", {"reduction": "none"}),
    Case("nothing_default", 45, 61, 20, "every option off its default",
         OTHER | {"stop_gradient": "key", "reduction": "sum", "backend": "torch"}, 0.7, 4,
         key_labels=True, positive_key=True),
    Case("positive", 50, 33, 24, "M < N, and a key that is the positive of several", positive=True),
    Case("exclude_self", 40, 47, 24, "the diagonal is neither positive nor negative",
         {"exclude_self": True}, positive_key=True),
    Case("positive_exclude_self", 40, 47, 24, "two keys a row are no negatives",
         {"exclude_self": True}, positive=True),
    Case("exclude_self_few_keys", 40, 7, 24, "most rows have no self among the keys",
         {"exclude_self": True}, positive_key=True, extra=40),
    Case("extra", 30, 41, 24, "shared negatives after M > N keys", extra=17),
    Case("extra_labels", 30, 41, 24, "shared negatives have no label", OTHER, classes=2,
         key_labels=True, extra=9),
    Case("hard", 30, 30, 24, "negatives of one row each", hard=5),
    Case("hard_chunks", 1030, 1100, 8, "the same over chunks", temperature=0.5, hard=3),
    Case("hard_none", 30, 41, 24, "recomputed", {"reduction": "none"}, hard=5),
    Case("hard_alone", 20, 0, 24, "no key at all", positive_key=True, hard=5),
    Case("hard_counts", 30, 41, 24, "a number of each query", hard=4, hard_counts=True),
    Case("hard_counts_chunks", 1030, 1100, 8, "the same over chunks, recomputed",
         {"reduction": "none"}, 0.5, hard=3, hard_counts=True),
    Case("hard_counts_alone", 20, 0, 24, "some rows have no negative", positive_key=True, hard=3,
         hard_counts=True),
    Case("hard_counts_stopped", 30, 41, 24, "no gradient of theirs",
         OTHER | {"stop_gradient": "key"}, classes=3, key_labels=True, hard=4, hard_counts=True),
    Case("smoothing_hard_counts", 20, 0, 24, "padding has no share of the target",
         {"label_smoothing": 0.3}, positive_key=True, hard=4, hard_counts=True),
    Case("smoothing_hard_counts_all", 45, 61, 20, "every exclusion and addition counts once",
         OTHER | {"label_smoothing": 0.3, "exclude_self": True, "reduction": "none"}, classes=4,
         key_labels=True, positive=True, extra=5, hard=3, hard_counts=True),
    Case("smoothing", 45, 60, 24, "a share of the target on the negatives",
         {"label_smoothing": 0.2}),
    Case("smoothing_symmetric", 45, 45, 24, "of both directions",
         {"label_smoothing": 0.2, "symmetric": True}),
    Case("smoothing_stopped", 45, 45, 24, "keys of the even part are stopped too",
         OTHER | {"label_smoothing": 0.2, "symmetric": True, "stop_gradient": "key"}, classes=3),
    Case("smoothing_all", 45, 61, 20, "every exclusion and addition counts once",
         OTHER | {"label_smoothing": 0.3, "exclude_self": True, "reduction": "none"}, classes=4,
         key_labels=True, positive=True, extra=5, hard=3),
    Case("smoothing_hard_alone", 20, 0, 24, "no key that is a row itself",
         {"label_smoothing": 0.3, "exclude_self": True}, positive_key=True, hard=5),
    Case("smoothing_lonely", 12, 12, 8, "no negatives: nothing to spread over",
         OTHER | {"label_smoothing": 0.3}, classes=1, positive_key=True),
    Case("same_halves", 60, 60, 20, "one block of scores for both labels",
         OTHER | {"stop_gradient": "key"}, 1.0, 2, positive_key=True, same=True),
    Case("same_halves_chunks", 2100, 2100, 8, "the same over chunks, with a running mixture",
         OTHER | {"stop_gradient": "key"}, 1.0, 2, positive_key=True, same=True),
    Case("same_halves_paired", 60, 60, 20, "its own row is the positive",
         OTHER | {"stop_gradient": "key"}, 1.0, 2, same=True),
    Case("same_two_labelings", 60, 60, 20, "the same rows, labelled otherwise as keys",
         OTHER | {"stop_gradient": "key"}, 1.0, 2, key_labels=True, positive_key=True, same=True),
    Case("same_three_labels", 60, 60, 20, "no halves", OTHER | {"stop_gradient": "key"}, 1.0, 3,
         positive_key=True, same=True),
    Case("same_self", 60, 60, 20, "scores on and above the diagonal", {"exclude_self": True},
         positive_key=True, same=True),
    Case("same_self_chunks", 1100, 1100, 8, "squares and rectangles",
         {"exclude_self": True, "reduction": "none"}, 0.5, positive_key=True, same=True),
    Case("same_plain", 30, 30, 8, "both places get a gradient", same=True),
    Case("halves_both", 1500, 1500, 8, "two labels, both gradients", OTHER | {"symmetric": True},
         0.5, 2),
    Case("halves_one_way", 1500, 1500, 8, "two labels, M = N", OTHER, 0.5, 2),
    Case("halves_key_labels", 70, 90, 8, "labels sorted on each side",
         OTHER, 0.5, 2, key_labels=True, positive_key=True),
    Case("halves_more_keys", 40, 60, 8, "row i's positive is key i, which sorting moves elsewhere",
         OTHER, 0.5, 2, key_labels=True, paired_labels=True),
    Case("two_labels_mixed", 40, 40, 8, "a positive of the other label is no negative",
         OTHER | {"symmetric": True}, 0.5, 2, key_labels=True),
    Case("two_labels_positive", 40, 40, 8, "positives anywhere: no halves", OTHER, 0.5, 2,
         positive=True),
    Case("two_labels_exclude_self", 40, 40, 8, "row i may be of the other label",
         OTHER | {"exclude_self": True}, 0.5, 2, key_labels=True, positive_key=True),
    Case("two_labels_hard", 40, 40, 8, "each row keeps its own", OTHER, 0.5, 2, hard=3),
    Case("halves_none", 40, 40, 8, "upstream in the order of the sorted rows",
         OTHER | {"symmetric": True, "reduction": "none"}, 0.5, 2),
    Case("halves_stopped_none", 40, 40, 8, "temperature row by row, in the caller's order",
         OTHER | {"symmetric": True, "stop_gradient": "key", "reduction": "none"}, 0.5, 2),
    Case("same_self_hard", 40, 40, 8, "negatives of one row each: no symmetric blocks",
         {"exclude_self": True}, 0.5, positive_key=True, hard=3, same=True),
    Case("smoothing_mirrored_labels", 40, 40, 8, "labels differ by side: the mirror swaps them",
         OTHER | {"symmetric": True, "label_smoothing": 0.3}, 0.5, 3, key_labels=True),
    Case("smoothing_positive_self", 40, 8, 8, "a positive that is row i is left out once",
         {"exclude_self": True, "label_smoothing": 0.3}, 0.5, positive=True),
    Case("everything", 45, 61, 20, "every option that goes with the others",
         OTHER | {"stop_gradient": "key", "exclude_self": True, "label_smoothing": 0.1,
                  "reduction": "sum"}, 0.7, 3, key_labels=True, positive=True, extra=6, hard=2),
    Case("single_row", 1, 7, 16, "degenerate chunk"),
    Case("single_pair", 1, 1, 16, "no negative at all"),
    Case("one_label", 12, 12, 8, "no row has a negative", OTHER, classes=1),
    Case("lonely_label", 30, 30, 8, "the last row's label is everyone else's too",
         OTHER, classes=-1, key_labels=True),
]  # fmt: skip
SHARED = Case("shared_positive", 4096, 2, 64, "every query has one of two positives", positive=True)


def make(case: Case, dtype: torch.dtype, seed: int = 0) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Differentiable tensors drawn in `dtype`, and the other arguments."""
    g = torch.Generator().manual_seed(seed)
    rows = {"query": case.n, "key": case.m} | (
        {"positive_key": case.n} if case.positive_key else {}
    )
    rows |= {"extra_negatives": case.extra} if case.extra else {}
    tensors = {k: normalize(torch.randn(n, case.d, generator=g)).to(dtype) for k, n in rows.items()}
    if case.hard:
        hard = torch.randn(case.n, case.hard, case.d, generator=g)
        tensors["hard_negatives"] = normalize(hard, dim=2).to(dtype)
    if case.same:
        del tensors["key"]
    tensors["temperature"] = torch.tensor(case.temperature)
    options = dict(case.options)
    if case.hard_counts:
        counts = torch.arange(case.n) * 7 % (case.hard + 1)
        padding = torch.arange(case.hard) >= counts[:, None]
        tensors["hard_negatives"][padding] = torch.nan
        options["hard_negative_counts"] = counts
    if case.positive:
        options["positive"] = torch.randint(0, case.m, (case.n,), generator=g)
    if case.classes:
        options["labels"] = torch.randint(0, max(case.classes, 1), (case.n,), generator=g)
        if case.key_labels:
            options["key_labels"] = torch.randint(0, abs(case.classes), (case.m,), generator=g)
        if case.paired_labels:
            options["key_labels"][: case.n] = options["labels"]
        if case.classes < 0:
            options["labels"] = torch.arange(case.n) % 5
            options["labels"][-1] = 7
            options["key_labels"] = torch.full((case.m,), 7)
    return tensors, options


def upstream_of(case: Case) -> Tensor:
    if case.options.get("reduction") != "none":
        return torch.tensor(0.7)
    weights = torch.randn(case.n, generator=torch.Generator().manual_seed(9))
    return weights.masked_fill(torch.arange(case.n) % 7 == 3, 0.0)


def temperature_terms(case: Case, upstream: Tensor) -> float:
    """Size of the terms of the temperature's gradient: unit rows, weights of at most 2 a row."""
    rows = {"sum": case.n}.get(case.options.get("reduction", "mean"), 1)
    return 2 * rows * upstream.abs().sum().item() / case.temperature**2


def three_ways(
    tensors: dict[str, Tensor], options: dict[str, Any], upstream: Tensor
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    wide = compute_dtype(tensors["query"].dtype)
    measure = of_one_tensor(
        partial(reference, **{k: v for k, v in options.items() if k != "backend"})
    )
    exact = value_and_grads(measure, {k: v.double() for k, v in tensors.items()}, upstream)
    plain = value_and_grads(measure, {k: v.to(wide) for k, v in tensors.items()}, upstream)
    ours = value_and_grads(of_one_tensor(partial(info_nce, **options)), tensors, upstream)
    return ours, plain, exact


def of_one_tensor(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A loss whose key is the query itself where no key is given."""
    return lambda query, key=None, **rest: loss(query, query if key is None else key, **rest)
