"""The encoder kernels against the float64 reference, value and gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from mmcl_fast import reference
from mmcl_fast.kernels import encoder
from mmcl_fast.kernels.encoder import SignalGradient, encoder_bwd, encoder_fwd, encoder_signal_fwd
from mmcl_fast.reference.encoder import patch_features
from mmcl_fast.triton_impl.encoder import encode
from tests.support.budget import assert_within_budget, value_and_grads

UNIT = {torch.float32: 0.0, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}  # of rounding
EPS = torch.finfo(torch.float32).eps


@dataclass(frozen=True)
class Case:
    id: str
    n: int
    m: int
    d: int
    why: str


CASES = [
    Case("one_block", 32, 32, 32, "no masking"),
    Case("ragged", 45, 35, 71, "every mask edge"),
    Case("long", 7, 5, 200, "several steps of the sum over d"),
    Case("many", 130, 3, 9, "few weights: samples are split, and the last range is short"),
    Case("single", 1, 1, 1, "degenerate grid"),
]
DTYPES = [
    torch.float32,
    torch.float16,
    # Triton's interpreter multiplies the bits of bfloat16 (triton-lang/triton issue 11584).
    pytest.param(torch.bfloat16, marks=pytest.mark.gpu),
]


def inputs(case: Case, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(case.n)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device, dtype)

    w = draw(case.m, case.d) / case.d**0.5
    return {"x": draw(case.n, case.d), "w": w, "mu": draw(case.d)}


def skip_bfloat16(dtype: torch.dtype, device: torch.device) -> None:
    if dtype == torch.bfloat16 and device.type == "cpu":
        pytest.skip("the interpreter has no bfloat16 products")


@pytest.mark.parametrize("q", [1, 2, 3, 5])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_value(case: Case, dtype: torch.dtype, q: int, device: torch.device) -> None:
    skip_bfloat16(dtype, device)
    t = inputs(case, dtype, device)
    found = {
        "noise": encoder_fwd(t["x"], t["w"], q=q),
        "signal": encoder_signal_fwd(t["w"], t["mu"], q=q),
    }

    def meaning(kind: torch.dtype) -> dict[str, Tensor]:
        x, w, mu = (v.to(kind) for v in t.values())
        signal = patch_features(w, torch.stack([mu, -mu]), q)
        return {"noise": patch_features(w, x, q), "signal": signal}

    assert_within_budget(found, plain=meaning(torch.float32), exact=meaning(torch.float64))


@pytest.mark.parametrize("q", [1, 2, 3, 5])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_weight_gradient(case: Case, dtype: torch.dtype, q: int, device: torch.device) -> None:
    skip_bfloat16(dtype, device)
    t = inputs(case, dtype, device)
    h = encoder_fwd(t["x"], t["w"], q=q)
    generator = torch.Generator().manual_seed(1)
    g = torch.randn(case.n, case.m, generator=generator).to(device)
    features = encoder_signal_fwd(t["w"], t["mu"], q=q)
    back = torch.randn(2, case.m, generator=generator).to(device)
    signal = SignalGradient(t["mu"], features, back)
    assert_gradient(t["x"], h, g, signal, q)
    assert_gradient(t["x"], h, g.to(dtype), None, q)


def slope(h: Tensor, q: int) -> Tensor:
    return q * h.double() ** ((q - 1) / q) * (h > 0)


def assert_gradient(x: Tensor, h: Tensor, g: Tensor, signal: SignalGradient | None, q: int) -> None:
    """dL/dW of the activations as they are stored, within what the contract says."""
    c, rows = g.double() * slope(h, q), x.double()
    exact, size = c.T @ rows, c.abs().T @ rows.abs()
    if signal is not None:
        each = signal.gradient.double() * slope(signal.features, q)
        exact += torch.outer(each[0] - each[1], signal.mu.double())
        size += torch.outer(each.abs().sum(0), signal.mu.double().abs())
    found = encoder_bwd(x, h, g, signal, q=q)
    assert found.dtype == torch.float32
    # Each term is rounded once as part of C; sums and act' are float32's (2^-20 for q > 2).
    unit = UNIT[x.dtype] + EPS * (8 + len(x)) + (2.0**-19 if q > 2 else 0.0)
    assert ((found.double() - exact).abs() <= unit * size + 1e-30).all()


@pytest.mark.parametrize("q", [1, 2, 3])
def test_autograd_is_that_of_the_reference(q: int, device: torch.device) -> None:
    t = inputs(CASES[1], torch.float32, device)
    labels = torch.where(torch.arange(len(t["x"]), device=device) % 3 == 0, 1.0, -1.0)
    upstream = torch.randn(2, len(t["x"]), len(t["w"]), generator=torch.Generator().manual_seed(2))
    upstream = upstream.to(device)

    def ours(w: Tensor) -> Tensor:
        noise, signal = encode(t["x"], w, t["mu"], q=q)
        of_label = torch.where(labels[:, None] > 0, signal[0], signal[1])
        return torch.stack([of_label, noise])

    def meaning(w: Tensor) -> Tensor:
        signal, noise = (v.to(w.dtype) for v in (torch.outer(labels, t["mu"]), t["x"]))
        both = reference.features(w, signal, noise, q)
        return torch.stack(both.split(len(w), dim=1))

    found = value_and_grads(ours, {"w": t["w"]}, upstream)
    plain = value_and_grads(meaning, {"w": t["w"]}, upstream)
    exact = value_and_grads(meaning, {"w": t["w"].double()}, upstream)
    assert_within_budget(found, plain=plain, exact=exact)


def test_master_weights_stay_float32(device: torch.device) -> None:
    t = inputs(CASES[1], torch.float16, device)
    master = t["w"].float().requires_grad_()
    noise, signal = encode(t["x"], master, t["mu"])
    assert (noise.dtype, signal.dtype) == (torch.float16, torch.float32)
    (noise.float().sum() + signal.sum()).backward()
    assert master.grad is not None
    assert master.grad.dtype == torch.float32
    h = encoder_fwd(t["x"], t["w"], q=1)
    ones = SignalGradient(t["mu"], signal.detach(), torch.ones_like(signal))
    assert torch.equal(master.grad, encoder_bwd(t["x"], h, torch.ones_like(h), ones, q=1))


@pytest.mark.parametrize("q", [1, 2, 3])
def test_dead_neurons_and_exact_zeros_have_no_gradient(q: int, device: torch.device) -> None:
    t = inputs(CASES[1], torch.float32, device)
    x, w = t["x"].abs(), -t["w"].abs()
    w[::2] = 0.0  # exactly at the kink
    h = encoder_fwd(x, w, q=q)
    assert not h.any()
    zeros = torch.zeros(2, len(w), device=device)
    signal = SignalGradient(t["mu"], zeros, torch.ones_like(zeros))
    assert not encoder_bwd(x, h, torch.ones_like(h), signal, q=q).any()


def test_strides_and_nan_around(device: torch.device) -> None:
    case = CASES[1]
    t = inputs(case, torch.float32, device)
    wide = {}
    for name in ("x", "w"):
        rows, columns = t[name].shape
        holder = torch.full((rows + 1, columns + 3), torch.nan, device=device)
        holder[:rows, :columns] = t[name]
        wide[name] = holder[:rows, :columns]
    h = encoder_fwd(wide["x"], wide["w"], q=1)
    assert torch.equal(h, encoder_fwd(t["x"], t["w"], q=1))
    found = encoder_bwd(wide["x"], h, torch.ones_like(h), q=1)
    assert torch.equal(found, encoder_bwd(t["x"], h, torch.ones_like(h), q=1))


def test_same_bits_again(device: torch.device) -> None:
    t = inputs(CASES[3], torch.float32, device)
    h = encoder_fwd(t["x"], t["w"], q=2)
    first = encoder_bwd(t["x"], h, h, q=2)
    assert all(torch.equal(first, encoder_bwd(t["x"], h, h, q=2)) for _ in range(3))


def test_no_samples_no_gradient(device: torch.device) -> None:
    x, w = torch.zeros(0, 5, device=device), torch.zeros(3, 5, device=device)
    h = encoder_fwd(x, w, q=1)
    assert h.shape == (0, 3)
    assert torch.equal(encoder_bwd(x, h, h, q=1), torch.zeros(3, 5, device=device))


BAD: list[tuple[Any, type[Exception], str]] = [
    (
        lambda x, w: encoder_fwd(x, w[:, 1:], q=1),
        ValueError,
        r"w: expected \[35, 71\].*got \[35, 70\]",
    ),
    (lambda x, w: encoder_fwd(x, w.half(), q=1), TypeError, "w: expected torch.float32"),
    (lambda x, w: encoder_fwd(x.double(), w.double(), q=1), TypeError, "x: expected bfloat16"),
    (lambda x, w: encoder_fwd(x, w, q=0), ValueError, "q: expected at least 1, got 0"),
    (lambda x, w: encoder_fwd(x, w, q=1, precision="bf16"), ValueError, "precision: expected one"),
    (lambda x, w: encoder_fwd(x.T.contiguous().T, w, q=1), ValueError, "x: expected stride 1"),
    (
        lambda x, w: encoder_bwd(x, x @ w.T, (x @ w.T)[1:], q=1),
        ValueError,
        r"g: expected \[45, 35\]",
    ),
    (lambda x, w: encode(x, w.requires_grad_(), x[0].requires_grad_()), ValueError, "noise, mu"),
    (lambda x, w: encode(x, w.half(), x[0]), TypeError, "weights: expected torch.float32"),
]


@pytest.mark.parametrize(("call", "kind", "message"), BAD, ids=lambda x: str(x)[:20])
def test_bad_input_is_refused(
    call: Any, kind: type[Exception], message: str, device: torch.device
) -> None:
    t = inputs(CASES[1], torch.float32, device)
    with pytest.raises(kind, match=message):
        call(t["x"], t["w"])


def test_sizes_beyond_32_bits_are_refused(device: torch.device) -> None:
    few = torch.zeros(1, device=device).expand(encoder.MAX_SIZE + 1, 1)
    with pytest.raises(ValueError, match="x: expected at most"):
        encoder_fwd(few, torch.zeros(1, 1, device=device), q=1)
