"""Shares and biases of keys: what is no number, and how gradients are rounded."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmcl_fast.losses import info_nce

N, M, D = 8, 11, 4


def make(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Query [N, D] and key [M, D] of size 0.1, and a bias of each key."""
    g = torch.Generator().manual_seed(41)
    query, key = (0.1 * torch.randn(rows, D, generator=g).to(dtype) for rows in (N, M))
    return query, key, torch.randn(M, generator=g)


def no_numbers(rows: Tensor, columns: Tensor) -> Tensor:
    return torch.full((len(rows), len(columns)), torch.nan)


def test_shares_of_a_function_that_are_no_numbers_are_refused() -> None:
    query, key, _ = make(torch.float32)
    with pytest.raises(ValueError, match="targets: expected finite shares >= 0, got nan"):
        info_nce(query, key, targets=no_numbers)


def test_shares_that_are_no_numbers_give_no_number_where_they_cannot_be_read() -> None:
    query, key, _ = make(torch.float32)
    targets = torch.full((1, N, M), torch.nan)
    loss = torch.vmap(lambda x: info_nce(query, key, targets=x))(targets)
    assert bool(loss.isnan().all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_temperatures_gradient_beside_large_biases_is_rounded_once(dtype: torch.dtype) -> None:
    # Biases of 30 are no part of it, but are 10^4 times as large as it is.
    query, key, bias = make(torch.float32)
    grads = []
    for wide in (dtype, torch.float64):
        temperature = torch.tensor(0.5, dtype=wide, requires_grad=True)
        features = (x.to(torch.promote_types(wide, torch.float32)) for x in (query, key))
        info_nce(*features, key_bias=30 * bias, temperature=temperature).backward()
        assert temperature.grad is not None
        grads.append(temperature.grad.double())
    rounding = torch.finfo(dtype).eps
    torch.testing.assert_close(grads[0], grads[1], rtol=rounding + 2e-6, atol=0)


def test_one_tensor_in_both_places_has_a_gradient_that_is_rounded_once() -> None:
    x, _, bias = make(torch.bfloat16)
    grads = []
    for features in (x, x.double()):
        leaf = features.clone().requires_grad_()
        info_nce(leaf, leaf, key_bias=bias[:N], temperature=0.5).backward()
        assert leaf.grad is not None
        grads.append(leaf.grad.double())
    torch.testing.assert_close(grads[0], grads[1], rtol=2**-8 + 1e-4, atol=0)


def test_a_bias_that_float32_cannot_hold_is_refused() -> None:
    query, key, bias = make(torch.float32)
    large = bias.double().index_fill(0, torch.tensor([3]), -1e300)
    with pytest.raises(ValueError, match=r"key_bias: expected finite numbers .*, got -1e\+300"):
        info_nce(query, key, key_bias=large)
    assert bool(info_nce(query.double(), key.double(), key_bias=large).isfinite())
