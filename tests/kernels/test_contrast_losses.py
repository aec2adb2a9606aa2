"""The public losses on the Triton backend: the same numbers as on the torch backend's contract."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from mmcl_fast import losses, reference
from mmcl_fast.errors import BackendUnavailableError
from mmcl_fast.kernels._tiles import TILES, fused_features
from mmcl_fast.kernels.contrast_common import Pairs
from mmcl_fast.kernels.contrast_statistics import MANY_PROGRAMS, TARGET_PROGRAMS, column_ranges
from mmcl_fast.losses import backends
from mmcl_fast.losses.backends import Problem, choose
from tests.support.budget import assert_within_budget, value_and_grads

from .contrast_problems import Draw

LABELS = torch.arange(24) % 5
FAMILY: dict[str, tuple[dict[str, Any], int]] = {  # options, how many features tensors
    "info_nce": ({"symmetric": True, "label_smoothing": 0.1}, 2),
    "nt_xent": ({}, 2),
    "dcl": ({"reduction": "none"}, 2),
    "sup_con": ({"labels": LABELS}, 1),
    "siglip": ({"bias": -2.0, "reduction": "none"}, 2),
}
NAMES = {"info_nce": ("query", "key"), "sup_con": ("query",), "siglip": ("query", "key")}


@pytest.mark.parametrize("name", FAMILY)
def test_public_losses(name: str, device: torch.device) -> None:
    options, count = FAMILY[name]
    options = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in options.items()}
    draw = Draw(11)
    names = NAMES.get(name, ("first", "second"))[:count]
    tensors = {x: 2 * draw.features(24, 20).to(device) for x in names}
    tensors["temperature"] = torch.tensor(0.3, device=device)

    def run(function: Callable[..., Tensor], given: dict[str, Tensor]) -> dict[str, Tensor]:
        upstream = None
        if options.get("reduction") == "none":
            upstream = torch.randn(48, generator=torch.Generator().manual_seed(2))
            upstream = upstream[: 48 if name == "dcl" else 24].to(device)
        return value_and_grads(partial(function, **options), given, upstream)

    exact = run(getattr(reference, name), {k: x.double() for k, x in tensors.items()})
    plain = run(getattr(reference, name), tensors)
    ours = run(partial(getattr(losses, name), backend="triton"), tensors)
    size = exact["temperature"].abs().item() + exact["value"].abs().sum().item() / 0.3
    assert_within_budget(ours, plain=plain, exact=exact, terms={"temperature": size})


@pytest.mark.parametrize("features", [20, 80])  # fused, chunked
@pytest.mark.parametrize("pairs", ["list", "targets", "both_directions"])
def test_several_positives(pairs: str, features: int, device: torch.device) -> None:
    draw, generator = Draw(17), torch.Generator().manual_seed(4)
    tensors = {x: draw.features(24, features).to(device) for x in ("query", "key")}
    shares = torch.rand(24, 24, generator=generator)
    few = (shares < 0.2).to(device)
    options: dict[str, Any] = {"positive_mask": few, "symmetric": True}
    if pairs == "list":
        listed = torch.randint(-1, 24, (24, 3), generator=generator).to(device)
        options = {"positive": listed, "exclude_self": True}
    elif pairs == "targets":
        tensors["hard_negatives"] = draw.features(48, features).view(24, 2, features).to(device)
        given = shares.to(device)
        options = {"targets": lambda rows, columns: given[rows][:, columns]}
    tensors["temperature"] = torch.tensor(0.3, device=device)

    def run(function: Callable[..., Tensor], given: dict[str, Tensor]) -> dict[str, Tensor]:
        return value_and_grads(partial(function, **options), given)

    exact = run(reference.info_nce, {k: x.double() for k, x in tensors.items()})
    plain = run(reference.info_nce, tensors)
    ours = run(partial(losses.info_nce, backend="triton"), tensors)
    size = exact["temperature"].abs().item() + exact["value"].abs().item() / 0.3
    assert_within_budget(ours, plain=plain, exact=exact, terms={"temperature": size})


@pytest.mark.parametrize("features", [20, 80])  # fused, chunked
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_counts_of_hard_negatives(reduction: str, features: int, device: torch.device) -> None:
    draw = Draw(13)
    tensors = {x: draw.features(24, features).to(device) for x in ("query", "key")}
    tensors["hard_negatives"] = draw.features(72, features).view(24, 3, features).to(device)
    tensors["temperature"] = torch.tensor(0.3, device=device)
    counts = torch.arange(24, device=device) % 4
    padding = torch.arange(3, device=device) >= counts[:, None]
    tensors["hard_negatives"][padding] = torch.nan
    options = {"hard_negative_counts": counts, "label_smoothing": 0.1, "reduction": reduction}
    upstream = draw.features(24, 1)[:, 0].to(device) if reduction == "none" else None

    def run(function: Callable[..., Tensor], given: dict[str, Tensor]) -> dict[str, Tensor]:
        return value_and_grads(partial(function, **options), given, upstream)

    exact = run(reference.info_nce, {k: x.double() for k, x in tensors.items()})
    plain = run(reference.info_nce, tensors)
    ours = run(partial(losses.info_nce, backend="triton"), tensors)
    size = exact["temperature"].abs().item() + exact["value"].abs().sum().item() / 0.3
    assert_within_budget(ours, plain=plain, exact=exact, terms={"temperature": size})
    assert not ours["hard_negatives"][padding].any()


def test_autocast_changes_nothing(device: torch.device) -> None:
    draw = Draw(12)
    given = {x: draw.features(24, 80).to(device) for x in ("query", "key")}
    loss = partial(losses.info_nce, symmetric=True, backend="triton")
    outside = value_and_grads(loss, given)
    with torch.autocast(device.type, torch.bfloat16):
        inside = value_and_grads(loss, given)
    assert all(torch.equal(inside[name], outside[name]) for name in outside)


def ask(**changed: Any) -> Problem:
    given = {"rows": 8, "columns": 8, "features": 16, "dtype": torch.float32}
    return Problem(**(given | {"device": torch.device("cpu")} | changed))


REFUSED = [
    (ask(dtype=torch.float64), "expected dtype float16, bfloat16, float32, got float64"),
    (ask(dtype=torch.bfloat16), "expected dtype float16, float32 in Triton's interpreter"),
    (ask(columns=2**31), r"expected at most \d+ rows, got 2147483648"),
    (ask(device=torch.device("meta")), r"expected tensors on CUDA .* got device meta"),
]


@pytest.mark.interpreter
@pytest.mark.parametrize(("problem", "message"), REFUSED, ids=[words for _, words in REFUSED])
def test_refuses_with_the_reason(problem: Problem, message: str) -> None:
    with pytest.raises(BackendUnavailableError, match=f"^triton: {message}"):
        choose("triton", problem)


def test_the_end_of_a_range_fits_32_bits() -> None:
    # A range of columns ends where the next one would begin, past the last column.
    most = backends._TRITON_MAX_ROWS
    tiles = {t.block_m for (name, *_), t in TILES.items() if name in ("contrast_statistics",
             "contrast_one_pass", "contrast_gradient")}  # fmt: skip
    for block_m, wanted in product(tiles, (TARGET_PROGRAMS, MANY_PROGRAMS)):
        for row_blocks in range(1, wanted + 1):
            split, parts = column_ranges(row_blocks, most, block_m, wanted)
            assert split * parts < 2**31


@pytest.mark.interpreter
def test_runs_on_the_cpu_in_the_interpreter() -> None:
    assert choose("triton", ask()).name == "triton"
    assert choose("auto", ask(dtype=torch.float64)).name == "torch"


def test_refuses_the_cpu_elsewhere() -> None:
    with pytest.raises(BackendUnavailableError, match="started with TRITON_INTERPRET=1"):
        choose("triton", ask())
    assert choose("auto", ask()).name == "torch"


def test_refuses_where_triton_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmcl_fast.losses.backends._TRITON_INSTALLED", False)
    with pytest.raises(BackendUnavailableError, match="expected Triton to be installed"):
        choose("triton", ask(device=torch.device("cuda")))


def test_refuses_an_old_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmcl_fast.losses.backends._compute_capability", lambda device: (7, 5))
    with pytest.raises(BackendUnavailableError, match=r"compute capability 8\.0 or later"):
        choose("triton", ask(device=torch.device("cuda")))


def test_crossing_point_is_a_table() -> None:
    assert fused_features("sm_90", 2) == fused_features("sm_80", 2) == 256
    assert fused_features("sm_103", 4) == 64


def test_a_chunk_keeps_its_place() -> None:
    index, labels = torch.arange(10), (torch.arange(10), torch.arange(12))
    pairs = Pairs(torch.tensor(1.0), positive=index, labels=labels, extra=2)
    part = pairs.part(4, 7).part(1, 3)
    assert part.first == 5
    assert isinstance(part.positive, Tensor)
    assert part.positive.tolist() == [5, 6]
    assert part.labels is not None
    assert part.labels[0].tolist() == [5, 6]
    assert len(part.labels[1]) == 12
    assert part.arguments(14)["regular"] == 12
