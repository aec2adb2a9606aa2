"""The batched logistic head against scikit-learn, its optimality conditions, and itself alone."""

from __future__ import annotations

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from typing import ClassVar

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from mmcl_fast.errors import DataError
from mmcl_fast.training import linear_probe, linear_probe_newton
from tests.support.logistic import CASES, Case, make

cases = pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)


@pytest.fixture(params=["native", "torch"], autouse=True)
def solver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(linear_probe, "NATIVE_ELEMENTS", 10**9 if request.param == "native" else 0)
    return request.param


def assert_same_bits(
    got: linear_probe.LogisticHead, want: linear_probe.LogisticHead, rows=slice(None)
) -> None:
    for field in fields(want):
        assert torch.equal(getattr(got, field.name), getattr(want, field.name)[rows]), field.name


@pytest.mark.parametrize("case", [c for c in CASES if c.sklearn_can], ids=lambda c: c.id)
def test_agrees_with_scikit_learn(case):
    x, y = make(case)
    head = linear_probe.fit_logistic(x, y)
    fresh, _ = make(case, seed=2)
    for k in range(case.batch):
        # C = 1 is the default; newton-cholesky is its only solver that reaches 1e-12 here.
        judge = LogisticRegression(C=1.0, tol=1e-12, max_iter=10_000, solver="newton-cholesky")
        judge.fit(x[k].numpy(), y[k].numpy())
        weight = torch.from_numpy(judge.coef_[0])
        assert (head.weight[k] - weight).abs().max() <= 1e-6 * weight.abs().max()
        assert abs(head.bias[k].item() - judge.intercept_[0]) <= 1e-6
        for points in (x[k], fresh[k]):
            ours = torch.where(points @ head.weight[k] + head.bias[k] > 0, 1.0, -1.0)
            assert ours.tolist() == judge.predict(points.numpy()).tolist()


@cases
def test_is_the_optimum(case):
    # Autograd of the objective as written, on the centred problem, against the stated tolerance.
    x, y = make(case)
    head = linear_probe.fit_logistic(x, y)
    assert head.converged.all()
    assert head.iterations.max() <= 60
    mean = x.mean(1, keepdim=True)
    weight = head.weight.clone().requires_grad_()
    bias = (head.bias + (head.weight[:, None, :] @ mean.mT)[:, 0, 0]).requires_grad_()
    score = ((x - mean) @ weight[:, :, None])[:, :, 0] + bias[:, None]
    residual = torch.sigmoid(-y * score).detach()
    loss = torch.nn.functional.softplus(-y * score).mean(1)
    (loss + weight.square().sum(1) / (2 * case.n)).sum().backward()
    largest = (x - mean).abs().amax((1, 2))
    scale = largest * residual.mean(1)
    # Twice the tolerance: the score is rounded differently here, which matters at offset 1e3.
    assert (weight.grad.abs().amax(1) <= 2 * linear_probe.GRADIENT_TOLERANCE * scale).all()
    assert (bias.grad.abs() <= 2 * linear_probe.GRADIENT_TOLERANCE * residual.mean(1)).all()


@pytest.mark.parametrize("p", [5, 60], ids=["primal", "dual"])
def test_penalty_is_in_force(p):
    x, y = make(Case("", 30, p, ""))
    strong, weak = (linear_probe.fit_logistic(x, y, l2=l2) for l2 in (10.0, 1e-3))
    assert (strong.weight.norm(dim=1) < 0.1 * weak.weight.norm(dim=1)).all()
    assert_same_bits(linear_probe.fit_logistic(x, y, l2=1 / 30), linear_probe.fit_logistic(x, y))
    for l2, head in ((10.0, strong), (1e-3, weak)):
        residual = y * torch.sigmoid(
            -y * ((x @ head.weight[:, :, None])[:, :, 0] + head.bias[:, None])
        )
        implied = (x.mT @ residual[:, :, None])[:, :, 0] / (30 * l2)
        torch.testing.assert_close(head.weight, implied, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("p", [5, 60], ids=["primal", "dual"])
def test_an_offset_moves_only_the_intercept(p):
    # Whole numbers and 32 rows: the sums and the mean are exact, so the weights agree to the bit.
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(-9, 10, (4, 32, p), generator=generator).to(torch.float64)
    y = torch.where(torch.arange(32) < 12, 1.0, -1.0)
    near, far = linear_probe.fit_logistic(x, y), linear_probe.fit_logistic(x + 2.0**30, y)
    assert torch.equal(near.weight, far.weight)
    moved = near.bias - 2.0**30 * near.weight.sum(1)
    torch.testing.assert_close(far.bias, moved, rtol=1e-12, atol=1e-5)


@pytest.mark.parametrize("l2", [None, 1e-4, 1e-8])
def test_steps_that_overshoot_are_damped(l2):
    # Few positives among samples of very unequal size: plain Newton diverges on 1 problem in 8.
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 40, 3, generator=generator, dtype=torch.float64)
    x /= torch.rand(200, 40, 1, generator=generator, dtype=torch.float64).square()
    head = linear_probe.fit_logistic(x, torch.where(torch.arange(40) < 3, 1.0, -1.0), l2=l2)
    assert head.converged.all()
    assert head.iterations.max() <= 60


def test_the_form_with_fewer_unknowns_is_solved_in_torch(monkeypatch):
    x, y = make(Case("", 8, 9, ""))
    with monkeypatch.context() as patch:
        patch.setattr(linear_probe_newton, "_Primal", None)
        linear_probe_newton.fit_chunks(x, y, 0.1)
    monkeypatch.setattr(linear_probe_newton, "_Dual", None)
    linear_probe_newton.fit_chunks(x[:, :, :8], y, 0.1)


def test_primal_and_dual_forms_agree():
    # 25 columns of zeros turn a primal problem into a dual one with the same answer.
    x, y = make(Case("", 30, 20, ""))
    primal = linear_probe.fit_logistic(x, y)
    dual = linear_probe.fit_logistic(torch.cat((x, x.new_zeros(3, 30, 25)), dim=2), y)
    torch.testing.assert_close(dual.weight[:, :20], primal.weight, rtol=1e-8, atol=1e-10)
    assert dual.weight[:, 20:].abs().max() == 0.0
    torch.testing.assert_close(dual.bias, primal.bias, rtol=1e-8, atol=1e-10)


SHAPES = [(100, 50), (7, 3), (40, 1), (33, 80), (33, 81), (101, 51), (2, 200), (250, 230)]
SHAPES += [(210, 300)]


@pytest.mark.parametrize(("n", "p"), SHAPES)
@pytest.mark.parametrize("threads", [1, 3])
def test_alone_or_in_a_batch_is_the_same_to_the_bit(n, p, threads):
    x, y = make(Case("", n, p, "", batch=64 if n < 200 else 6, gap=0.3))
    x[1] *= 1e-3  # problems that finish early, so that the rest is repacked
    x[2] *= 50.0
    whole = linear_probe.fit_logistic(x, y)
    share = linear_probe.accuracy(whole, x, y)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for k in (0, 1, 2, len(x) - 1):
            alone = linear_probe.fit_logistic(x[k : k + 1], y[k : k + 1])
            assert_same_bits(alone, whole, slice(k, k + 1))
            assert (
                linear_probe.accuracy(alone, x[k : k + 1], y[k : k + 1]).item() == share[k].item()
            )
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("chunk_bytes", [1, 100_000, 2**30])
@pytest.mark.parametrize("p", [9, 90], ids=["primal", "dual"])
def test_chunks_change_no_bit(monkeypatch, solver, chunk_bytes, p):
    if solver == "native":
        pytest.skip("has none")
    x, y = make(Case("", 40, p, "", batch=50))
    whole = linear_probe.fit_logistic(x, y)
    share = linear_probe.accuracy(whole, x, y)
    monkeypatch.setattr(linear_probe_newton, "CHUNK_BYTES", chunk_bytes)
    assert_same_bits(linear_probe.fit_logistic(x, y), whole)
    assert torch.equal(linear_probe.accuracy(whole, x, y), share)


def test_thread_count_is_left_as_it_was():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        linear_probe.fit_logistic(*make(CASES[0]))
        assert torch.get_num_threads() == 3
        with ThreadPoolExecutor(1) as fresh:
            assert fresh.submit(torch.get_num_threads).result() == 3
    finally:
        torch.set_num_threads(before)


class Watched(torch.Tensor):
    """Keeps the names of the threads that read it."""

    threads: ClassVar[set[str]] = set()

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        cls.threads.add(threading.current_thread().name)
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **kwargs or {})


def test_only_the_calling_thread_reads_what_is_given(monkeypatch):
    # Another thread has another CUDA stream, and would not wait for who computes the features.
    monkeypatch.setattr(Watched, "threads", set())
    given = [x.as_subclass(Watched) for x in make(Case("", 40, 5, "", batch=3))]
    head = linear_probe_newton.fit_chunks(*given, 0.1)
    linear_probe_newton.score_chunks(*given, *(x.as_subclass(Watched) for x in head[:2]))
    assert Watched.threads == {threading.current_thread().name}


def test_layout_and_gradient_history_change_nothing():
    x, y = make(CASES[0])
    want = linear_probe.fit_logistic(x, y)
    strided = x.mT.contiguous().mT.requires_grad_()
    assert not strided.is_contiguous()
    got = linear_probe.fit_logistic(strided, y.to(torch.int8))
    assert_same_bits(got, want)
    assert not got.weight.requires_grad
    narrow = x.float()
    assert_same_bits(
        linear_probe.fit_logistic(narrow, y), linear_probe.fit_logistic(narrow.double(), y)
    )


@pytest.mark.parametrize("p", [5, 60], ids=["primal", "dual"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_problem_that_is_not_finite_disturbs_no_other(p, value):
    x, y = make(Case("", 30, p, "", batch=6))
    want = linear_probe.fit_logistic(x, y)
    broken = x.clone()
    broken[2, 7, 3] = value
    head = linear_probe.fit_logistic(broken, y)
    others = [0, 1, 3, 4, 5]
    assert head.weight[2].isnan().all()
    assert head.bias[2].isnan()
    assert not head.converged[2]
    assert_same_bits(
        replace(head, **{f.name: getattr(head, f.name)[others] for f in fields(head)}), want, others
    )
    share = linear_probe.ood_accuracy(broken, y, x, y)
    assert share.isnan().tolist() == [False, False, True, False, False, False]
    assert linear_probe.accuracy(want, broken, y).isnan().tolist() == share.isnan().tolist()


@pytest.mark.parametrize("p", [5, 60], ids=["primal", "dual"])
def test_overflow_is_not_called_converged(p):
    x, y = make(Case("", 30, p, "", relu=False))
    x[1] *= 1e200  # finite, but its squares are not
    head = linear_probe.fit_logistic(x, y)
    assert head.converged.tolist() == [True, False, True]
    assert head.weight.isfinite().all()
    assert linear_probe.ood_accuracy(x, y, x, y).isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("p", [4, 40], ids=["primal", "dual"])
@pytest.mark.parametrize("value", [0.0, 0.1, -1e3])
def test_equal_rows_give_the_constant_score(p, value):
    y = torch.tensor([1.0] * 5 + [-1.0] * 15)
    x = torch.full((1, 20, p), value)
    head = linear_probe.fit_logistic(x, y)
    assert head.converged.all()
    score = (x.double() @ head.weight[:, :, None])[0, :, 0] + head.bias
    torch.testing.assert_close(score, torch.full_like(score, math.log(5 / 15)), rtol=1e-12, atol=0)
    assert linear_probe.accuracy(head, x, y).item() == 0.75


def test_a_score_of_zero_is_negative_as_in_scikit_learn():
    x, y = torch.zeros(1, 4, 2), torch.tensor([1.0, -1.0, 1.0, -1.0])
    head = linear_probe.fit_logistic(x, y)
    assert head.bias.item() == 0.0
    assert linear_probe.accuracy(head, x, torch.ones(4)).item() == 0.0
    judge = LogisticRegression().fit([[1.0], [-1.0]], [1.0, -1.0])
    judge.intercept_[:] = 0.0
    assert judge.predict([[0.0]]).tolist() == [-1.0]


def test_accuracy_counts():
    head = linear_probe.LogisticHead(
        weight=torch.tensor([[1.0, 0.0], [0.0, -2.0]], dtype=torch.float64),
        bias=torch.tensor([0.5, 1.0], dtype=torch.float64),
        converged=torch.tensor([True, True]),
        iterations=torch.tensor([1, 1]),
    )
    x = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [0.0, 0.0], [-0.4, 3.0]]).expand(2, 4, 2)
    shares = linear_probe.accuracy(head, x, torch.tensor([1, 1, 1, -1]))
    # Scores 1.5 -0.5 0.5 0.1 and -1 -1 1 -5.
    assert shares.tolist() == [0.5, 0.5]
    assert shares.dtype == torch.float64
    each = torch.tensor([[1, -1, 1, 1], [-1, -1, 1, 1]])
    assert linear_probe.accuracy(head, x, each).tolist() == [1.0, 0.75]


def test_ood_accuracy_is_fit_then_count():
    case = Case("", 60, 8, "", batch=5, gap=0.3)
    x, y = make(case)
    fresh, fresh_y = make(case, seed=2)
    want = linear_probe.accuracy(linear_probe.fit_logistic(x, y), fresh, fresh_y)
    for checked in (False, True):
        assert torch.equal(linear_probe.ood_accuracy(x, y, fresh, fresh_y, checked=checked), want)
    assert 0.0 < want.min() < want.max() < 1.0


def test_no_problems():
    head = linear_probe.fit_logistic(torch.zeros(0, 4, 3), torch.tensor([1, 1, -1, -1]))
    assert [tuple(getattr(head, f.name).shape) for f in fields(head)] == [(0, 3), (0,), (0,), (0,)]
    assert linear_probe.accuracy(head, torch.zeros(0, 2, 3), torch.ones(2)).shape == (0,)


GOOD = (torch.zeros(2, 4, 3), torch.tensor([1.0, 1.0, -1.0, -1.0]))
REFUSED = [
    (
        "one_label",
        (GOOD[0], torch.tensor([[1, -1, 1, 1], [-1] * 4])),
        DataError,
        "got only -1 in prob",
    ),
    ("label_0", (GOOD[0], torch.tensor([1, 0, 1, -1])), DataError, "expected .1 or -1, got 0"),
    ("label_nan", (GOOD[0], GOOD[1] * math.nan), DataError, "labels: .* got nan"),
    ("integer_features", (GOOD[0].long(), GOOD[1]), TypeError, "features: .* torch.int64"),
    ("two_axes", (GOOD[0][0], GOOD[1]), ValueError, r"features: .* got \(4, 3\)"),
    ("no_columns", (GOOD[0][:, :, :0], GOOD[1]), ValueError, r"features: .* got \(2, 4, 0\)"),
    ("label_count", (GOOD[0], GOOD[1][:3]), ValueError, r"labels: .* got \(3,\)"),
]


@pytest.mark.parametrize(
    ("arguments", "error", "message"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED]
)
def test_refusals_name_the_argument(arguments, error, message):
    with pytest.raises(error, match=message):
        linear_probe.fit_logistic(*arguments)


@pytest.mark.parametrize("l2", [0.0, -1.0, math.inf, math.nan])
def test_penalty_must_be_positive(l2):
    with pytest.raises(ValueError, match=rf"^l2: .* got {l2!r}"):
        linear_probe.fit_logistic(*GOOD, l2=l2)


def test_head_of_another_shape_is_refused():
    head = linear_probe.fit_logistic(*GOOD)
    with pytest.raises(
        ValueError, match=r"features: expected B, p = \(2, 3\) as in head, got \(1, 3\)"
    ):
        linear_probe.accuracy(head, GOOD[0][:1], GOOD[1])
