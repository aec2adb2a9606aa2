"""The native logistic head: instruction sets, threads, the torch solver, and what it refuses."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from mmcl_fast import _native
from mmcl_fast.training import linear_probe, linear_probe_newton
from tests.support.logistic import CASES, Case, make

Head = tuple[np.ndarray, ...]
cases = pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)


def fit(
    x: torch.Tensor, y: torch.Tensor, *, target: str = "auto", threads: int = 1, steps: int = 200
) -> Head:
    batch, n, p = x.shape
    weight, bias = np.full((batch, p), 77.0), np.full(batch, 77.0)
    converged, taken = np.zeros(batch, bool), np.full(batch, -1)
    _native.fit_heads(
        x.numpy(), y.float().numpy(), weight, bias, converged, taken,
        l2=1 / n, tolerance=1e-10, most_steps=steps, threads=threads, target=target,
    )  # fmt: skip
    return weight, bias, converged, taken


def score(x: torch.Tensor, y: torch.Tensor, head: Head, target: str = "auto") -> np.ndarray:
    share = np.full(len(x), 77.0)
    _native.score_heads(
        x.numpy(), y.float().numpy(), head[0], head[1], share, threads=1, target=target
    )
    return share


def assert_same(a: Head, b: Head) -> None:
    for ours, theirs in zip(a, b, strict=True):
        assert ours.tobytes() == theirs.tobytes()


@cases
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_instruction_set_gives_the_same_bits(case: Case, dtype: torch.dtype) -> None:
    if dtype == torch.float32 and case.id == "tiny":
        case = replace(case, scale=1e-30)
    x, y = make(case)
    x = x.to(dtype)
    first, *others = (fit(x, y, target=name) for name in _native.targets())
    assert first[2].all()
    for other in others:
        assert_same(other, first)
    fresh = make(case, seed=2)[0].to(dtype)
    shares = [score(fresh, y, first, target=name) for name in _native.targets()]
    assert all(share.tobytes() == shares[0].tobytes() for share in shares)


@cases
def test_agrees_with_torch(case: Case) -> None:
    # Two programs of one method that round differently: 1e-15 apart where they were measured.
    x, y = make(case)
    weight, bias, converged, _ = fit(x, y)
    theirs = linear_probe_newton.fit_chunks(x, y, 1 / case.n)
    assert converged.all()
    largest = theirs[0].abs().max().item()
    assert np.abs(weight - theirs[0].numpy()).max() <= 1e-9 * largest
    shift = np.abs(x.mean(1).numpy()).max() * largest * case.p
    assert np.abs(bias - theirs[1].numpy()).max() <= 1e-9 * (1 + shift)
    ours = score(x, y, (weight, bias))
    assert ours.tolist() == linear_probe_newton.score_chunks(x, y, theirs[0], theirs[1]).tolist()


@pytest.mark.parametrize("p", [7, 50], ids=["primal", "dual"])
def test_problems_do_not_depend_on_threads_or_neighbours(p: int) -> None:
    x, y = make(Case("", 30, p, "", batch=9, gap=0.3))
    x[4, 2, 1] = math.inf  # leaves its memory to the next problem
    whole = fit(x, y)
    assert np.isnan(whole[0][4]).all()
    for threads in (2, 5, 50):
        assert_same(fit(x, y, threads=threads), whole)
    for k in range(len(x)):
        assert_same(fit(x[k : k + 1], y[k : k + 1]), tuple(a[k : k + 1] for a in whole))


@pytest.mark.parametrize("p", [7, 50], ids=["primal", "dual"])
def test_too_few_steps_are_not_called_converged(p: int) -> None:
    x, y = make(Case("", 30, p, "", gap=0.3))
    full = fit(x, y)
    assert full[3].min() > 3, "premise"
    few = fit(x, y, steps=2)
    assert not few[2].any()
    assert few[3].tolist() == [2, 2, 2]
    assert_same(fit(x, y, steps=int(full[3].max())), full)


def test_steps_in_width_that_is_not_a_vector_leave_no_trace() -> None:
    # The same problem with columns of zeros up to the next vector: nothing else is summed.
    x, y = make(Case("", 21, 5, ""))
    wide = torch.cat((x, x.new_zeros(3, 21, 3)), dim=2)
    ours, theirs = fit(x, y), fit(wide, y)
    np.testing.assert_allclose(ours[0], theirs[0][:, :5], rtol=1e-12)
    assert not theirs[0][:, 5:].any()


BAD = [
    ("features", lambda a: a[:, :, ::2], r"features: expected contiguous f \[2, 8, 3\]"),
    ("features", lambda a: a.astype(np.float16), r"features: expected contiguous d"),
    ("labels", lambda a: a[:, 1:], r"labels: expected contiguous f \[2, 8\]"),
    ("weight", lambda a: a[:, 1:], r"weight: expected contiguous d \[2, 6\]"),
    ("bias", lambda a: a.astype(np.float32), r"bias: expected contiguous d \[2\]"),
    ("converged", lambda a: a[1:], r"converged: expected contiguous"),
    ("steps", lambda a: a.astype(np.int32), r"steps: expected contiguous"),
]


@pytest.mark.parametrize(("name", "spoil", "message"), BAD, ids=lambda x: str(x)[:10])
def test_bad_buffers_are_refused(name: str, spoil, message: str) -> None:
    given = {
        "features": np.zeros((2, 8, 6), np.float32),
        "labels": np.ones((2, 8), np.float32),
        "weight": np.zeros((2, 6)),
        "bias": np.zeros(2),
        "converged": np.zeros(2, bool),
        "steps": np.zeros(2, np.int64),
    }
    given[name] = spoil(given[name])
    with pytest.raises(ValueError, match=message):
        _native.fit_heads(*given.values(), l2=1.0, tolerance=1e-10, most_steps=9, threads=1)


def test_the_shape_alone_decides_who_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(linear_probe, "NATIVE_ELEMENTS", 200)
    monkeypatch.setattr(
        linear_probe,
        "fit_chunks",
        lambda x, y, l2: calls.append(x.shape) or linear_probe_newton.fit_chunks(x, y, l2),
    )
    for n, p in ((20, 10), (20, 11), (21, 10)):
        for batch in (1, 6):
            linear_probe.fit_logistic(*make(Case("", n, p, "", batch=batch)))
    assert [tuple(shape[1:]) for shape in calls] == [(20, 11), (20, 11), (21, 10), (21, 10)]
