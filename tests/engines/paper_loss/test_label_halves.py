"""The losses over label halves against autograd of the reference."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mmcl_fast import reference
from mmcl_fast.engines.paper_loss import label_halves as module
from mmcl_fast.engines.paper_loss.label_halves import (
    Halves,
    HalvesGradient,
    multi_halves,
    one_way_halves,
    single_halves,
)
from tests.engines.loss_cases import CASES, TAU, Case, by_autograd, problem
from tests.support.budget import assert_within_budget

LONE = Case("one_label", 7, 5, "a minibatch whose samples are all of one label", positives=7)


def sorted_halves(labels: Tensor, signal: Tensor, noise: Tensor) -> Halves:
    """From signal features [2, m] and noise features [n, m] in any order of labels."""
    order = (labels < 0).int().argsort(stable=True)
    return Halves(noise[order], signal.T, int((labels > 0).sum()))


def unsorted(labels: Tensor, g: HalvesGradient) -> tuple[Tensor, Tensor]:
    places = (labels < 0).int().argsort(stable=True).argsort()
    return g.weight * g.signal.T, g.weight * g.noise[places]


def three(labels: Tensor, tensors: list[Tensor]) -> list[Halves]:
    pairs = zip(tensors[::2], tensors[1::2], strict=True)
    return [sorted_halves(labels, signal, noise) for signal, noise in pairs]


def single(labels: Tensor, tensors: list[Tensor]) -> dict[str, Tensor]:
    """Loss (6) and its gradient; query and key are the first pair, positives the third.

    Signal features of a real encoder: one of each pair is 0, so opposite labels do not meet there.
    """
    own, _, view = three(labels, tensors)
    loss, (g,) = single_halves(own, view, TAU)
    return dict(zip(("loss", "signal", "noise"), (loss, *unsorted(labels, g)), strict=True))


def single_exact(labels: Tensor, tensors: list[Tensor]) -> dict[str, Tensor]:
    as_key = [*tensors[:2], *tensors[:2], *tensors[4:]]
    found = by_autograd(labels, as_key, reference.other_label(labels))
    return dict(zip(("loss", "signal", "noise"), found, strict=True))


def multi(labels: Tensor, tensors: list[Tensor]) -> dict[str, Tensor]:
    a, b, _ = three(labels, tensors)
    loss, gradients = multi_halves(a, b, TAU)
    found = {"loss": loss}
    for name, g in zip("ab", gradients, strict=True):
        found[f"signal_{name}"], found[f"noise_{name}"] = unsorted(labels, g)
    return found


def multi_exact(labels: Tensor, tensors: list[Tensor]) -> dict[str, Tensor]:
    a, b = tensors[:2], tensors[2:4]
    negatives = reference.other_label(labels)
    (one, *ga), (other, *gb) = (
        by_autograd(labels, [*x, *y, *y], negatives) for x, y in ((a, b), (b, a))
    )
    names = ("signal_a", "noise_a", "signal_b", "noise_b")
    return {"loss": one + other, **dict(zip(names, (*ga, *gb), strict=True))}


def in_blocks(query: Halves, key: Halves, positive: Halves, cuts: list[int]) -> list[Tensor]:
    """Loss and gradients of all queries, taken by shares, each against the keys share by share."""
    shares = list(pairwise([0, *cuts, len(query.noise)]))

    def share(x: Halves, a: int, b: int) -> Halves:
        """Samples a to b of those sorted by label."""
        return Halves(x.noise[a:b], x.signal, min(max(x.split - a, 0), b - a))

    total = torch.zeros((), dtype=query.noise.dtype)
    signal, noise = torch.zeros_like(query.signal), []
    for own in shares:
        q, k, p = (share(x, *own) for x in (query, key, positive))
        blocks = [share(key, *other) for other in shares]
        loss, (g,) = one_way_halves(
            q, q if query is key else k, p, TAU, blocks=blocks, sample_count=len(query.noise)
        )
        total, signal = total + loss, signal + g.weight * g.signal
        noise.append(g.weight * g.noise)
    return [total, signal.T, torch.cat(noise)]


def made(case: Case) -> tuple[Tensor, list[Tensor]]:
    """A problem whose signal features are those of an encoder: relu(a) and relu(-a)."""
    labels, tensors = problem(case)
    for k in (0, 2, 4):
        tensors[k][1] = torch.where(tensors[k][0] > 0, 0.0, tensors[k][1])
    return labels, tensors


LOSSES = {"single": (single, single_exact), "multi": (multi, multi_exact)}


@pytest.mark.parametrize("modality", LOSSES)
@pytest.mark.parametrize("rows_at_once", [None, 3], ids=["whole", "chunked"])
@pytest.mark.parametrize("case", [*CASES, LONE], ids=lambda c: c.id)
def test_value_and_gradient(case: Case, rows_at_once, modality: str, monkeypatch) -> None:
    if rows_at_once:
        monkeypatch.setattr(module, "chunk_rows", lambda n, m: rows_at_once)
    labels, tensors = made(case)
    ours, exact = (f(labels, tensors) for f in LOSSES[modality])
    for name, theirs in exact.items():
        scale = float(theirs.abs().max())
        torch.testing.assert_close(
            ours[name], theirs, rtol=1e-12, atol=1e-13 * scale + 1e-300, msg=name
        )


@pytest.mark.parametrize("rising", [False, True], ids=["", "tops_rise"])
@pytest.mark.parametrize("modality", LOSSES)
@pytest.mark.parametrize("rows_at_once", [None, 3], ids=["whole", "chunked"])
@pytest.mark.parametrize("case", [*CASES, LONE], ids=lambda c: c.id)
def test_keys_that_come_in_blocks(
    case: Case, rows_at_once, modality: str, rising: bool, monkeypatch
) -> None:
    if rows_at_once:
        monkeypatch.setattr(module, "chunk_rows", lambda n, m: rows_at_once)
    labels, tensors = made(case)
    order = (labels < 0).int().argsort(stable=True)
    if rising:  # later keys have by far the larger scores
        growth = torch.linspace(0.1, 3.0, case.n, dtype=torch.float64)[order.argsort(), None]
        for k in (1, 3):
            tensors[k] = tensors[k] * growth
    first, second, third = three(labels, tensors)
    key, positive = (first, third) if modality == "single" else (second, second)
    columns = tensors[:2] if modality == "single" else tensors[2:4]
    positives = tensors[4:] if modality == "single" else columns
    exact = by_autograd(labels, [*tensors[:2], *columns, *positives], reference.other_label(labels))
    places = order.argsort()
    # Shares of one label, of both, of a single sample, and of none.
    cuts = [k for k in (case.n // 3, case.n // 3, case.n - 1) if 0 < k < case.n]
    loss, signal, noise = in_blocks(first, key, positive, cuts)
    for ours, theirs in zip((loss, signal, noise[places]), exact, strict=True):
        scale = float(theirs.abs().max())
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13 * scale + 1e-300)


@pytest.mark.parametrize("modality", LOSSES)
@pytest.mark.parametrize(("n", "m"), [(700, 40), (1100, 130)])
def test_float32_within_the_budget_of_autograd(n: int, m: int, modality: str, monkeypatch) -> None:
    # The size at which the native passes and oneDNN's product are used, in several chunks.
    monkeypatch.setattr(module, "chunk_rows", lambda n, m: 150)
    labels, tensors = made(Case("large", n, m, "", size=0.3))
    rounded = [t.float() for t in tensors]
    ours, exact = LOSSES[modality]
    assert_within_budget(
        ours(labels.float(), rounded),
        plain=exact(labels.float(), rounded),
        exact=exact(labels, [t.double() for t in rounded]),
    )


@pytest.mark.parametrize("modality", LOSSES)
def test_the_loss_alone_is_the_same_loss(modality: str) -> None:
    labels, tensors = made(CASES[2])
    first, second, third = three(labels, tensors)
    arguments = (first, third) if modality == "single" else (first, second)
    loss_of = single_halves if modality == "single" else multi_halves
    with_gradient, _ = loss_of(*arguments, TAU)
    alone, none = loss_of(*arguments, TAU, want_gradient=False)
    assert not none
    torch.testing.assert_close(alone, with_gradient, rtol=1e-14, atol=0)


def test_a_loss_near_zero_keeps_its_relative_accuracy() -> None:
    labels = torch.tensor([1.0, -1, -1, 1, -1])
    zero, noise = torch.zeros(2, 1), torch.full((5, 1), 1e-3)
    ahead = torch.full((5, 1), 30 * TAU * 1e3)
    own, view = sorted_halves(labels, zero, noise), sorted_halves(labels, zero, ahead)
    loss, _ = single_halves(own, view, TAU)
    counts = torch.where(labels > 0, 3.0, 2.0).double()
    expected = torch.log1p(counts * torch.exp(torch.tensor(1e-6 / TAU - 30, dtype=torch.float64)))
    torch.testing.assert_close(loss.double(), expected.mean(), rtol=1e-5, atol=0)


class _Watch(TorchDispatchMode):
    """Entries of the largest tensor that any operation returned, and flop of products."""

    def __init__(self) -> None:
        super().__init__()
        self.entries, self.flop = 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            self.entries = max(self.entries, out.numel())
            if func is torch.ops.aten.mm.out:
                self.flop += 2 * out.numel() * args[0].shape[1]
        return out


@pytest.mark.parametrize(("modality", "products"), [("single", 1.5), ("multi", 3)])
def test_products_are_the_least_and_scores_come_in_chunks(modality: str, products: float) -> None:
    n, m = 3000, 8  # too thin for oneDNN: every product is torch's, and is counted
    labels = torch.ones(n)
    labels[n // 2 :] = -1
    x, y = (sorted_halves(labels, torch.zeros(2, m), torch.rand(n, m)) for _ in range(2))
    with _Watch() as watch:
        (single_halves if modality == "single" else multi_halves)(x, y, TAU)
    assert watch.flop == products * n**2 * m
    assert watch.entries == module.chunk_rows(n // 2, n // 2) * (n // 2) < n**2 / 4


def test_one_direction_in_blocks_computes_no_product_twice() -> None:
    n, m, own = 3000, 8, 1000
    key = Halves(torch.rand(n, m), torch.zeros(m, 2), n // 2)
    blocks = [Halves(key.noise[k : k + own], key.signal, own // 2) for k in range(0, n, own)]
    with _Watch() as watch:
        one_way_halves(blocks[0], blocks[0], blocks[0], TAU, blocks=blocks, sample_count=n)
    assert watch.flop == 2 * own * n * m
    assert watch.entries == (own // 2) ** 2
