"""What users of torch expect of a loss: compile, opcheck, torch.func, autocast, one operation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from mmcl_fast.losses import custom_op, dcl, info_nce, nt_xent, siglip, sup_con
from mmcl_fast.reference import info_nce as reference

N, D = 10, 6
LABELS = torch.arange(N) % 3


def features(rows: int = N, seed: int = 0) -> Tensor:
    return torch.randn(rows, D, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
LOSSES: dict[str, Loss] = {
    "one_way": lambda x, y, t: info_nce(x, y, temperature=t),
    "symmetric": lambda x, y, t: info_nce(x, y, temperature=t, symmetric=True),
    "symmetric_none": lambda x, y, t: info_nce(
        x, y, temperature=t, symmetric=True, reduction="none"
    ).sum(),
    "twice": lambda x, y, t: info_nce(x, x, temperature=t) + 0 * y.sum(),
    "other_label": lambda x, y, t: info_nce(
        x, y, temperature=t, labels=LABELS, negatives="other_label"
    ),
    "stopped": lambda x, y, t: info_nce(
        x, x, positive_key=y, temperature=t, labels=LABELS, negatives="other_label",
        stop_gradient="key",
    ),
    "smoothed": lambda x, y, t: info_nce(x, y, temperature=t, label_smoothing=0.1),
    "extra": lambda x, y, t: info_nce(x, y, temperature=t, extra_negatives=y[:3]),
    "nt_xent": lambda x, y, t: nt_xent(x, y, temperature=t),
    "dcl": lambda x, y, t: dcl(x, y, temperature=t),
    "sup_con": lambda x, y, t: sup_con(torch.cat([x, y]), LABELS.repeat(2), temperature=t),
    "siglip": lambda x, y, t: siglip(x, y, temperature=t, bias=t - 1),
}  # fmt: skip


def gradients(loss: Loss) -> tuple[Tensor, ...]:
    inputs = [
        x.requires_grad_() for x in (features(), features(seed=1), torch.tensor(0.5).double())
    ]
    value = loss(*inputs)
    return value.detach(), *torch.autograd.grad(
        value, inputs, allow_unused=True, materialize_grads=True
    )


# Dynamo instantiates autograd functions to trace them, and warns of it itself.
quiet_dynamo = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")


@quiet_dynamo
@pytest.mark.parametrize(
    ("name", "dynamic"),
    [*((name, False) for name in LOSSES), ("symmetric", True), ("nt_xent", True)],
)
def test_compile_without_graph_breaks(name: str, dynamic: bool) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(LOSSES[name], fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for mine, eager in zip(gradients(compiled), gradients(LOSSES[name]), strict=True):
        torch.testing.assert_close(mine, eager, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", LOSSES)
def test_torch_func_grad(name: str) -> None:
    loss = LOSSES[name]
    found = torch.func.grad(loss, argnums=(0, 1, 2))(
        features(), features(seed=1), torch.tensor(0.5).double()
    )
    for mine, eager in zip(found, gradients(loss)[1:], strict=True):
        torch.testing.assert_close(mine, eager, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", LOSSES)
def test_vmap_of_grad(name: str) -> None:
    # An ensemble: every member has features and a temperature of its own.
    x = torch.stack([features(seed=s) for s in range(3)])
    y = torch.stack([features(seed=s) for s in range(3, 6)])
    t = torch.tensor([0.4, 0.5, 0.6]).double()
    value = torch.func.grad_and_value(LOSSES[name], argnums=(0, 1, 2))
    together = torch.vmap(value)(x, y, t)
    alone = [value(*inputs) for inputs in zip(x, y, t, strict=True)]
    for k, (grads, loss) in enumerate(alone):
        torch.testing.assert_close(together[1][k], loss)
        for mine, expected in zip(together[0], grads, strict=True):
            torch.testing.assert_close(mine[k], expected)


def test_vmap_of_counts() -> None:
    x, y, t = features(), features(seed=1), torch.tensor(0.5).double()
    hard = torch.stack([x.roll(1, 0), torch.full_like(x, torch.nan)], dim=1)
    counts = torch.stack([torch.arange(N) % 2, torch.zeros(N, dtype=torch.int64)])

    def loss(numbers: Tensor) -> Tensor:
        return info_nce(x, y, temperature=t, hard_negatives=hard, hard_negative_counts=numbers)

    torch.testing.assert_close(torch.vmap(loss)(counts), torch.stack([loss(c) for c in counts]))


@pytest.mark.parametrize("name", LOSSES)
def test_grad_of_vmap(name: str) -> None:
    # Inside vmap no tensor says that it requires a gradient.
    x = torch.stack([features(seed=s) for s in range(3)], dim=1).requires_grad_()
    y, t = features(seed=3), torch.tensor(0.5).double()
    together = torch.vmap(LOSSES[name], in_dims=(1, None, None))(x, y, t).sum()
    alone = torch.stack([LOSSES[name](one, y, t) for one in x.unbind(1)]).sum()
    (mine,), (expected,) = (torch.autograd.grad(loss, x) for loss in (together, alone))
    assert expected.any()
    torch.testing.assert_close(mine, expected)


def arguments(**change: Any) -> tuple[Any, ...]:
    given: dict[str, Any] = dict.fromkeys(custom_op.Arguments._fields)
    given |= {
        "query": features(), "key": features(seed=1), "temperature": torch.tensor(0.5).double(),
        "form": "softmax", "symmetric": False, "stopped": False, "exclude_self": False, "extra": 0,
        "supervised": False, "smoothing": 0.0, "reduction": "mean", "backend": "torch",
        "requested": "110010",
    }  # fmt: skip
    return tuple((given | change).values())


SAMPLES = {
    "mean": arguments(),
    "none": arguments(reduction="none"),
    "forward": arguments(requested="000000"),
    "symmetric": arguments(symmetric=True),
    "symmetric_none": arguments(symmetric=True, reduction="none"),
    "stopped": arguments(symmetric=True, stopped=True, labels=LABELS, key_labels=LABELS),
    "own": arguments(
        key=None, positive=torch.arange(N).roll(5), exclude_self=True, requested="100010"
    ),
    "hard": arguments(
        hard=features(2 * N).view(N, 2, D),
        positive_key=features(seed=2),
        requested="111110",
    ),
    "hard_counts": arguments(
        hard=features(2 * N).view(N, 2, D), hard_counts=torch.arange(N) % 3, requested="110110"
    ),
    "sigmoid": arguments(form="sigmoid", bias=torch.tensor(-1.0).double(), requested="110011"),
}


@pytest.mark.parametrize("sample", SAMPLES)
def test_opcheck_forward(sample: str) -> None:
    torch.library.opcheck(custom_op.contrast_forward, SAMPLES[sample])


@pytest.mark.parametrize("sample", ["none", "symmetric_none"])
def test_opcheck_backward(sample: str) -> None:
    statistics = custom_op.contrast_forward(*SAMPLES[sample])[-1]
    upstream = torch.randn(N, dtype=torch.float64)
    torch.library.opcheck(custom_op.contrast_backward, (upstream, statistics, *SAMPLES[sample]))


def test_opcheck_along() -> None:
    sample = SAMPLES["hard"]
    upstream = torch.randn(N, dtype=torch.float64)
    tangents = (torch.randn(N, D, dtype=torch.float64), *(None,) * 5)
    torch.library.opcheck(custom_op.contrast_along, (upstream, *tangents, *sample))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_changes_nothing(dtype: torch.dtype) -> None:
    # The rule: features are taken in the dtype they have; scores are float32.
    x, y = features().float(), features(seed=1).float()
    for loss in LOSSES.values():
        with torch.autocast("cpu", dtype=dtype):
            inside = loss(x, y, torch.tensor(0.5))
        assert torch.equal(inside, loss(x, y, torch.tensor(0.5)))


@quiet_dynamo
def test_a_compiled_training_step_of_two_towers() -> None:
    torch._dynamo.reset()
    towers = [torch.nn.Linear(D, 4, dtype=torch.float64) for _ in range(2)]
    temperature = torch.nn.Parameter(torch.tensor(0.5, dtype=torch.float64))

    def step(x: Tensor, y: Tensor, loss: Any) -> Tensor:
        u, v = (
            torch.nn.functional.normalize(tower(z), dim=1)
            for tower, z in zip(towers, (x, y), strict=True)
        )
        result: Tensor = loss(u, v, temperature=temperature, symmetric=True)
        return result

    parameters = [*towers[0].parameters(), *towers[1].parameters(), temperature]
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    ours = torch.autograd.grad(compiled(features(), features(seed=1), info_nce), parameters)
    exact = torch.autograd.grad(step(features(), features(seed=1), reference), parameters)
    for mine, expected in zip(ours, exact, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-11, atol=1e-13)
