"""The losses with pytorch-metric-learning's call, beside its own: value and gradients."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode

from tests.support.budget import value_and_grads

pytest.importorskip("pytorch_metric_learning", reason='needs pip install -e ".[test]"')
distances, losses, miners, reducers, regularizers = (
    import_module(f"pytorch_metric_learning.{name}")
    for name in ("distances", "losses", "miners", "reducers", "regularizers")
)
ours = import_module("mmcl_fast.losses.compat.metric_learning")

N, M, D = 24, 15, 6
G = torch.Generator().manual_seed(17)
X, Y = (torch.randn(k, D, dtype=torch.float64, generator=G) for k in (N, M))
# Classes of several sizes, one of a single row; of the others one without a partner.
LABELS = torch.tensor([0] * 6 + [1] * 2 + [2] * 7 + [3] + [4] * 8)[torch.randperm(N, generator=G)]
OTHER_LABELS = torch.randint(0, 4, (M,), generator=G)
NAMES = ["NTXentLoss", "SupConLoss"]
Loss = Callable[..., Tensor]


def pair(name: str, **options: Any) -> tuple[Loss, Loss]:
    return getattr(ours, name)(**options), getattr(losses, name)(**options)


def assert_same(found: Loss, expected: Loss, **tensors: Tensor) -> None:
    upstream = torch.tensor(0.7, dtype=torch.float64)
    mine, theirs = (value_and_grads(loss, tensors, upstream) for loss in (found, expected))
    for key, value in theirs.items():
        torch.testing.assert_close(mine[key], value, rtol=1e-9, atol=1e-12)


REFERENCES: dict[str, Callable[[Loss], Loss]] = {
    "labels": lambda loss: lambda x, y: loss(x, LABELS) + 0 * y.sum(),
    "ref_emb": lambda loss: lambda x, y: loss(x, LABELS, ref_emb=y, ref_labels=OTHER_LABELS),
    "labels as floats": lambda loss: lambda x, y: loss(x, LABELS / 3) + 0 * y.sum(),
    "the same labels": lambda loss: lambda x, y: loss(
        x, LABELS, ref_emb=x.flip(0), ref_labels=LABELS
    ) + 0 * y.sum(),
    "equal labels": lambda loss: lambda x, y: loss(
        x, LABELS, ref_emb=x.flip(0), ref_labels=LABELS.clone()
    ) + 0 * y.sum(),
    "one other row": lambda loss: lambda x, y: loss(
        x, LABELS, ref_emb=y[:1], ref_labels=LABELS[:1]
    ),
    "one of each": lambda loss: lambda x, y: loss(
        x[:1], LABELS[:1], ref_emb=y[:2], ref_labels=torch.stack([LABELS[0], LABELS[0] + 1])
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("reference", REFERENCES)
def test_labels(name: str, reference: str) -> None:
    mine, theirs = (REFERENCES[reference](loss) for loss in pair(name, temperature=0.2))
    assert_same(mine, theirs, x=X, y=Y)


OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "reducer": {"reducer": reducers.ThresholdReducer(low=0.5)},
    "regularizer": {"embedding_regularizer": regularizers.LpRegularizer()},
    "dot product": {"distance": distances.DotProductSimilarity(normalize_embeddings=False)},
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("option", OPTIONS)
def test_options_of_their_constructor(name: str, option: str) -> None:
    mine, theirs = pair(name, **OPTIONS[option])
    assert_same(lambda x: mine(x, LABELS), lambda x: theirs(x, LABELS), x=X)


MINERS = {
    "triplets": lambda: miners.TripletMarginMiner(margin=0.5),
    "pairs": lambda: miners.MultiSimilarityMiner(epsilon=0.5),
    "hardest": lambda: miners.BatchHardMiner(),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("miner", MINERS)
def test_pairs_of_a_miner_count_as_often_as_they_are_listed(name: str, miner: str) -> None:
    mined = MINERS[miner]()(X, LABELS)
    assert len(mined[0])
    mine, theirs = pair(name, temperature=0.2)
    assert_same(lambda x: mine(x, LABELS, mined), lambda x: theirs(x, LABELS, mined), x=X)
    repeated = tuple(torch.cat([at, at[:3]]) for at in mined)
    assert_same(lambda x: mine(x, None, repeated), lambda x: theirs(x, None, repeated), x=X)


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_without_negatives_or_without_positives_has_loss_zero(name: str) -> None:
    mine, theirs = pair(name)
    for labels in (torch.zeros(N, dtype=torch.long), torch.arange(N)):
        assert_same(lambda x, at=labels: mine(x, at), lambda x, at=labels: theirs(x, at), x=X)
        assert mine(X, labels) == 0
    empty = torch.tensor([], dtype=torch.long)
    some = torch.arange(3)
    for pairs in ((empty, empty, some, some + 1), (some, some + 1, empty, empty)):
        assert mine(X, LABELS, pairs) == theirs(X, LABELS, pairs) == 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("symmetric", [False, True])
def test_self_supervised(name: str, symmetric: bool) -> None:
    mine, theirs = (
        losses.SelfSupervisedLoss(loss, symmetric=symmetric) for loss in pair(name, temperature=0.2)
    )
    assert_same(lambda x, y: mine(x[:M], y), lambda x, y: theirs(x[:M], y), x=X, y=Y)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mined", [False, True])
def test_cross_batch_memory(name: str, mined: bool) -> None:
    miner = miners.MultiSimilarityMiner(epsilon=0.5) if mined else None
    mine, theirs = (
        losses.CrossBatchMemory(loss, D, memory_size=2 * N + 5, miner=miner)
        for loss in pair(name, temperature=0.2)
    )
    for step in range(5):  # the memory is overrun in the third
        x = X.roll(step, 0) + 0.1 * step
        before = mine.embedding_memory.clone(), mine.queue_idx, mine.has_been_filled

        def fresh(x: Tensor, before: tuple[Tensor, int, bool] = before) -> Tensor:
            mine.embedding_memory, mine.queue_idx, mine.has_been_filled = before
            return mine(x, LABELS)

        assert_same(fresh, lambda x: theirs(x, LABELS), x=x)


@pytest.mark.parametrize("name", NAMES)
def test_their_distributed_wrapper_takes_it(name: str) -> None:
    wrapper = import_module("pytorch_metric_learning.utils.distributed").DistributedLossWrapper
    mine, theirs = pair(name)
    with pytest.warns(UserWarning, match="non-distributed setting"):
        found = wrapper(mine)(X, LABELS)
    torch.testing.assert_close(found, theirs(X, LABELS), rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_and_a_temperature_that_learns(name: str) -> None:
    temperature = torch.nn.Parameter(torch.full((1,), 0.3))
    kind = getattr(ours, name)
    loss = kind(temperature=temperature)
    value = loss(X.bfloat16(), LABELS)
    assert value.dtype == torch.float32
    value.backward()
    exact = kind(temperature=0.3)(normalize(X, dim=1).bfloat16().double(), LABELS)
    torch.testing.assert_close(value.double(), exact, rtol=1e-3, atol=0.0)
    assert temperature.grad is not None
    assert temperature.grad.shape == (1,)
    assert temperature.grad.abs() > 0
    assert repr(loss).startswith(f"{name}(\n  temperature=<tensor>, backend='auto'")


@pytest.mark.parametrize(
    "distance", [distances.LpDistance(), distances.CosineSimilarity(power=2)], ids=["Lp", "power"]
)
def test_other_distances_are_refused(distance: Any) -> None:
    with pytest.raises(ValueError, match=r"^distance: expected CosineSimilarity"):
        ours.NTXentLoss(distance=distance)


def test_a_pair_that_is_positive_and_negative_is_refused() -> None:
    some = torch.arange(3)
    with pytest.raises(ValueError, match=r"^indices_tuple: expected no pair that is both"):
        ours.SupConLoss()(X, LABELS, (some, some + 1, some, some + 1))


class Largest(TorchDispatchMode):
    """Entries of the largest tensor that any operation returned, around those of the losses."""

    entries = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, tuple | list) else [out]:
            if isinstance(x, Tensor):
                self.entries = max(self.entries, x.numel())
        return out


@pytest.mark.parametrize("name", NAMES)
def test_no_tensor_is_as_large_as_the_scores_unless_pairs_are_listed(name: str) -> None:
    rows = torch.randn(1500, 4, generator=G).requires_grad_()
    labels = torch.arange(1500) // 3
    with Largest() as largest:
        getattr(ours, name)()(rows, labels).backward()
    assert 1500 * 4 <= largest.entries < 1500 * 1500 / 10
