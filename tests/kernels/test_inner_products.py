"""Inner products of runs against float64, in the interpreter and on a GPU."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from mmcl_fast.kernels import inner_products
from mmcl_fast.kernels._tiles import ARCHS, tile_for
from mmcl_fast.kernels.inner_products import row_products_fwd

from . import aot

EPS = torch.finfo(torch.float32).eps
SIZES = [
    pytest.param(3, 64, 64, 64, id="whole_tiles"),
    pytest.param(2, 70, 9, 135, id="ragged"),
    pytest.param(1, 1, 130, 1, id="one_term"),
]


def drawn(*shape: int, device: torch.device, seed: int = 0, pad: int = 0) -> Tensor:
    """Normals; rows are `pad` numbers longer than the tensor."""
    generator = torch.Generator().manual_seed(seed)
    wide = torch.randn(*shape[:-1], shape[-1] + pad, generator=generator)
    return wide.to(device)[..., : shape[-1]]


def assert_products(out: Tensor, a: Tensor, b: Tensor, start: Tensor | None = None) -> None:
    """Within the error of a float32 sum of as many terms."""
    wide, size = a.double() @ b.double().mT, a.double().abs() @ b.double().abs().mT
    if start is not None:
        wide, size = wide + start.double(), size + start.double().abs()
    assert (out - wide).abs().le(EPS * (1 + a.shape[2] ** 0.5) * size + 1e-30).all()


@pytest.mark.parametrize(("runs", "i", "j", "d"), SIZES)
def test_products(runs: int, i: int, j: int, d: int, device: torch.device) -> None:
    a, b = drawn(runs, i, d, device=device, pad=3), drawn(runs, j, d, device=device, seed=1)
    start = drawn(runs, i, j, device=device, seed=2, pad=1)
    memory = torch.full((runs, 2, i + 1, j + 2), torch.nan, device=device)
    out = memory[:, 1, :i, 1 : j + 1]
    assert row_products_fwd(a, b, out=out) is out
    assert_products(out, a, b)
    assert memory.isnan().sum() == memory.numel() - out.numel(), "only its view is written"
    row_products_fwd(a, b, out=out, start=start)
    assert_products(out, a, b, start)
    across = torch.empty(runs, j, i, device=device)
    row_products_fwd(a, b, out=across.mT)
    assert_products(across.mT, a, b)


def test_long_sums_keep_their_digits(device: torch.device) -> None:
    """Terms of one sign and size, where rounding adds up; sums of single chains are exact."""
    a = torch.full((1, 2, 2**18 + 5), 125.0, device=device)
    out = row_products_fwd(a, a, out=torch.empty(1, 2, 2, device=device))
    exact = a.double() @ a.double().mT
    assert ((out - exact) / exact).abs().max() <= 16 * EPS


def test_indices_gather_and_leave_zeros(device: torch.device) -> None:
    a, b = drawn(2, 5, 40, device=device), drawn(2, 7, 40, device=device, seed=1)
    rows = torch.tensor([[4, -1, 0], [1, 1, -1]], dtype=torch.int32, device=device)
    columns = torch.tensor([[6, -1], [-1, 2]], dtype=torch.int32, device=device)
    out = torch.full((2, 3, 2), torch.nan, device=device)
    row_products_fwd(a, b, out=out, rows=rows, columns=columns)
    plain = row_products_fwd(a, b, out=torch.empty(2, 5, 7, device=device))
    for r in range(2):
        for i, row in enumerate(rows[r].tolist()):
            for j, column in enumerate(columns[r].tolist()):
                there = min(row, column) >= 0
                assert out[r, i, j] == (plain[r, row, column] if there else 0.0)


def test_a_run_does_not_depend_on_the_others(device: torch.device) -> None:
    a, b = drawn(5, 33, 70, device=device), drawn(5, 20, 70, device=device, seed=1)
    whole = row_products_fwd(a, b, out=torch.empty(5, 33, 20, device=device))
    for r in (0, 3, 4):
        alone = torch.empty(1, 33, 20, device=device)
        assert torch.equal(row_products_fwd(a[r : r + 1], b[r : r + 1], out=alone)[0], whole[r])


def test_nan_of_one_row_stays_there(device: torch.device) -> None:
    a, b = drawn(1, 4, 8, device=device), drawn(1, 3, 8, device=device, seed=1)
    a[0, 2, 5] = torch.nan
    out = row_products_fwd(a, b, out=torch.empty(1, 4, 3, device=device))
    assert out.isnan().any(2).tolist() == [[False, False, True, False]]


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (2, 3, 0)], ids=str)
def test_empty(shape: tuple[int, int, int], device: torch.device) -> None:
    runs, i, j = shape
    a, b = drawn(runs, i, 5, device=device), drawn(runs, j, 5, device=device)
    assert row_products_fwd(a, b, out=torch.empty(shape, device=device)).shape == shape


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"a": torch.zeros(2, 3, 5).double()}, TypeError, "a: expected torch.float32"),
        ({"b": torch.zeros(2, 4, 6)}, ValueError, "b: expected stride 1 along the last axis of [2"),
        ({"a": torch.zeros(2, 5, 3).mT}, ValueError, "a: expected stride 1 along the last axis"),
        ({"rows": torch.zeros(2, 2).int()}, ValueError, "rows: expected contiguous [2, 3]"),
        ({"columns": torch.zeros(2, 4)}, TypeError, "columns: expected torch.int32"),
        ({"start": torch.zeros(2, 3, 1)}, ValueError, "start: expected stride 1"),
    ],
    ids=["dtype", "dims", "layout", "indices", "index_dtype", "start"],
)
def test_rejects(
    changed: dict[str, Any], error: type[Exception], message: str, device: torch.device
) -> None:
    good = {"a": torch.zeros(2, 3, 5), "b": torch.zeros(2, 4, 5), "out": torch.full((2, 3, 4), 7.0)}
    given = {name: x.to(device) for name, x in (good | changed).items()}
    with pytest.raises(error, match=re.escape(message)):
        row_products_fwd(**given)
    assert (given["out"] == 7).all()


def case(arch: str, *, given: bool) -> aot.Case:
    tile = tile_for("row_products", arch, 4, "any")
    pointers = {f"{name}_ptr": "*fp32" for name in ("a", "b", "out")}
    if given:
        pointers |= {"rows_ptr": "*i32", "columns_ptr": "*i32", "start_ptr": "*fp32"}
    return aot.Case(
        inner_products._row_products_kernel,
        arch,
        pointers,
        {"HAS_ROWS": given, "HAS_COLUMNS": given, "HAS_START": given}
        | {"BLOCK_I": tile.block_n, "BLOCK_J": tile.block_m, "BLOCK_K": tile.block_k},
        tile.num_warps,
        {"num_stages": tile.num_stages, **inner_products.LAUNCH_OPTIONS},
        frozenset({"D"}),
    )


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("arch", ARCHS)
def test_fits_the_chip(arch: str, given: bool) -> None:
    compiled = case(arch, given=given)
    found = aot.resources(compiled)
    assert found.spilled == 0
    assert found.shared <= aot.SHARED_LIMIT[arch]
    assert "tf32" not in aot.compiled(compiled).asm["ptx"]
    assert not aot.narrow_offsets(aot.compiled(compiled).asm["ttir"])
