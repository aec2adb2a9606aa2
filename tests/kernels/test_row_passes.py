"""Passes over rows of features against float64, in the interpreter and on a GPU."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor

from mmcl_fast.kernels import row_passes
from mmcl_fast.kernels._tiles import ARCHS, tile_for
from mmcl_fast.kernels.row_passes import (
    rectify_bwd,
    rectify_fwd,
    row_dots_fwd,
    row_gradients_fwd,
)

from . import aot

EPS = torch.finfo(torch.float32).eps
SIZES = [
    pytest.param(64, 96, id="whole_tiles"),
    pytest.param(70, 135, id="ragged"),
    pytest.param(1, 1, id="one"),
]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def drawn(*shape: int, device: torch.device, dtype: torch.dtype = torch.float32, seed: int = 0,
          pad: int = 0) -> Tensor:  # fmt: skip
    """Normals; rows are `pad` numbers longer than the tensor."""
    generator = torch.Generator().manual_seed(seed)
    wide = torch.randn(*shape[:-1], shape[-1] + pad, generator=generator).to(dtype)
    return wide.to(device)[..., : shape[-1]]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("n", "d"), SIZES)
def test_dots(n: int, d: int, dtype: torch.dtype, device: torch.device) -> None:
    a, b = (drawn(n, d, device=device, dtype=dtype, seed=k, pad=3 * k) for k in (0, 1))
    found = row_dots_fwd(a, b)
    assert found.dtype == torch.float32
    terms = a.double() * b.double()
    assert (found - terms.sum(1)).abs().le(EPS * d**0.5 * terms.abs().sum(1) + 1e-30).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("n", "d"), SIZES)
def test_gradients(n: int, d: int, dtype: torch.dtype, device: torch.device) -> None:
    mixture, out = drawn(n + 5, d, device=device), torch.full((n, d), torch.nan, device=device)
    positive = drawn(n, d, device=device, dtype=dtype, seed=1, pad=2)
    scale, miss = drawn(n, device=device, seed=2), drawn(n, device=device, seed=3)
    row_gradients_fwd(mixture, positive, scale, miss, out=out)
    parts = scale.double()[:, None] * mixture[:n].double(), miss.double()[:, None] * positive
    assert (out - (parts[0] - parts[1])).abs().le(EPS * (parts[0].abs() + parts[1].abs())).all()
    row_gradients_fwd(mixture, positive, scale, miss, out=mixture[:n])
    assert torch.equal(mixture[:n], out)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("n", "d"), SIZES)
def test_rectify(n: int, d: int, dtype: torch.dtype, device: torch.device) -> None:
    z = drawn(n, d, device=device, dtype=dtype, pad=1)
    out = torch.full((n + 4, d), 7.0, dtype=dtype, device=device)
    assert torch.equal(rectify_fwd(z, out, None, 2), z.float().amax())
    assert torch.equal(out[2 : n + 2], z.clamp(min=0))
    assert (out[:2] == 7).all()
    assert (out[n + 2 :] == 7).all()
    places = torch.randperm(n + 3, generator=torch.Generator().manual_seed(1)).to(device)
    rectify_fwd(z, out, places, 3)
    assert torch.equal(out[places[3:]], z.clamp(min=0))


def test_largest_of_negatives_and_nan(device: torch.device) -> None:
    z = -1 - drawn(70, 50, device=device).abs()
    out = torch.empty_like(z)
    assert torch.equal(rectify_fwd(z, out, None), z.amax())
    assert not out.any()
    z[69, 49] = torch.nan
    rectify_fwd(z, out, None)
    assert out[69, 49].isnan()
    assert out.isnan().sum() == 1


@pytest.mark.parametrize("q", [1, 2, 3])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("n", "d"), SIZES)
def test_and_back(n: int, d: int, dtype: torch.dtype, q: int, device: torch.device) -> None:
    h = drawn(n, d, device=device, dtype=dtype).clamp(min=0)
    g = drawn(n, d, device=device, seed=1)
    exact = g.double() * (q * h.double() ** (q - 1) * (h > 0))
    u = torch.finfo(dtype).eps / 2 if dtype != torch.float32 else 0.0
    smallest = 2.0**-25 if dtype == torch.float16 else 0.0
    order = torch.randperm(n, generator=torch.Generator().manual_seed(2)).to(device)
    columns = (torch.randperm(n + 3, generator=torch.Generator().manual_seed(3))[:n]).to(device)
    for by_neuron in (False, True):
        along = torch.full((d, n + 3), torch.nan, device=device)
        along = along if by_neuron else along.T.contiguous().T
        c = rectify_bwd(g, h, along, (order, columns), q=q)
        assert c.dtype == dtype
        wanted = exact[order]
        assert (c - wanted).abs().le((u + 4 * EPS) * wanted.abs() + smallest).all()
        assert (along[:, columns].T - wanted).abs().le(4 * EPS * wanted.abs()).all()
        assert along.isnan().sum() == 3 * d  # nothing else is written
    along = torch.empty(d, n, device=device)
    assert torch.equal(rectify_bwd(g, h, along, (None, None), q=q)[order], c)
    assert (along.T - exact).abs().le(4 * EPS * exact.abs()).all()


def test_columns_are_refused(device: torch.device) -> None:
    x, ones = drawn(6, 6, device=device), torch.ones(6, device=device)
    calls = (
        lambda: row_dots_fwd(x, x.T),
        lambda: row_gradients_fwd(x.T, x, ones, ones, out=x),
        lambda: rectify_fwd(x, x.T, None),
        lambda: rectify_bwd(x.T, x, x, (None, None), q=1),
    )
    for call in calls:
        with pytest.raises(ValueError, match=r"rows: expected stride 1 along features, got"):
            call()


def test_no_rows(device: torch.device) -> None:
    none = torch.empty(0, 5, device=device)
    assert row_dots_fwd(none, none).shape == (0,)
    row_gradients_fwd(none, none, none[:, 0], none[:, 0], out=none)
    assert rectify_bwd(none, none, none.T, (None, None), q=1).shape == (0, 5)


def _case(arch: str, name: str, pointers: dict[str, str], **constants: int) -> aot.Case:
    tile = tile_for(name, arch, 4, "any")
    strides = {f"stride_{x}" for x in ("an", "bn", "mn", "pn", "n", "zn", "gn", "hn")}
    return aot.Case(
        getattr(row_passes, f"_{name}_kernel"),
        arch,
        {f"{x}_ptr": kind for x, kind in pointers.items()},
        {"BLOCK_N": tile.block_n, "BLOCK_D": tile.block_m} | constants,
        tile.num_warps,
        row_passes.LAUNCH_OPTIONS,
        aligned=frozenset({"D", *strides}),
    )


CASES = [
    case
    for arch in ARCHS
    for case in (
        _case(arch, "row_dots", {"a": "*bf16", "b": "*bf16", "out": "*fp32"}),
        _case(
            arch,
            "row_gradients",
            dict.fromkeys(("weighted_keys", "scale", "one_minus_p", "out"), "*fp32")
            | {"positive": "*bf16"},
        ),
        _case(
            arch,
            "rectify",
            {"z": "*bf16", "index": "*i64", "out": "*bf16", "largest": "*fp32"},
        ),
        _case(
            arch,
            "unrectify",
            {"g": "*fp32", "h": "*bf16", "index": "*i64", "out": "*bf16", "along": "*fp32"},
            Q=1,
            stride_ad=1,
        ),
    )
]


@pytest.mark.parametrize("case", aot.by_lane(CASES), ids=lambda case: case.id)
def test_streams_whole_vectors(case: aot.Case) -> None:
    needs = aot.resources(case)
    assert needs.spilled == 0
    found = aot.compiled(case).asm
    assert aot.narrow_offsets(found["ttir"]) == []
    assert re.search(r"ld\.global\S*\.v[248]\.b(32|64)", found["ptx"])
    assert "atom" not in found["ptx"]
