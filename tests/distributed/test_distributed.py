"""Losses over several processes, against the reference in one process on the whole batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad

from mmcl_fast.distributed import (
    DistributedDCLLoss,
    DistributedInfoNCELoss,
    DistributedNTXentLoss,
    DistributedSigLIPLoss,
    DistributedSupConLoss,
)
from mmcl_fast.reference.contrastive import info_nce
from mmcl_fast.reference.family import siglip
from tests.distributed.cases import (
    CASES,
    EVEN,
    MODES,
    NCCL,
    OPEN_CLIP,
    PAIR,
    UNEVEN,
    WATCHED,
    WORLD,
    Case,
    Towers,
    as_open_clip,
    oracle,
    pictures,
    tensors_of,
)
from tests.support.budget import assert_within_budget, compute_dtype, error, value_and_grads
from tests.support.peers import require

pytestmark = pytest.mark.process

Found = list[dict[str, Any]]
FEATURES = ("query", "key", "extra_negatives", "hard_negatives")
both_modes = pytest.mark.parametrize("mode", MODES)


def ranks_of(found: Found, case: Case, name: str) -> list[Any]:
    return [found[rank][f"{case.id}/{name}"] for rank in case.group]


def whole(case: Case, results: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Every rank's results as one process would have them, with the gradient's scale undone."""
    factor = len(case.rows) if case.gradient == "ddp" else 1
    made = {"value": results[0]["value"]}
    for name in results[0]:
        if name in FEATURES:
            parts = [r[name] / (factor * u) for r, u in zip(results, case.upstream, strict=False)]
            if name == "hard_negatives":
                parts = [pad(x, (0, 0, 0, max(case.hard) - x.shape[1])) for x in parts]
            made[name] = torch.cat(parts)
        elif name != "value":
            made[name] = results[0][name] * (len(case.rows) / factor) / case.upstream[0]
    return made


def assert_those_of_one_process(case: Case, results: list[dict[str, Tensor]]) -> None:
    tensors = tensors_of(case)
    exact = value_and_grads(oracle(case), {k: x.double() for k, x in tensors.items()})
    wide = compute_dtype(case.dtype)
    plain = value_and_grads(oracle(case), {k: x.to(wide) for k, x in tensors.items()})
    ours = whole(case, results)
    exact = {name: exact[name] for name in ours}
    if case.dtype != torch.float64:
        assert_within_budget(ours, plain={name: plain[name] for name in ours}, exact=exact)
        return
    for name, value in ours.items():
        scale = exact[name].abs().max().item() if exact[name].numel() else 0.0
        assert value.shape == exact[name].shape, name
        assert error(value, exact[name]) <= 1e-13 * scale, name


@both_modes
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_value_and_gradients_are_those_of_one_process(found: Found, case: Case, mode: str) -> None:
    assert_those_of_one_process(case, ranks_of(found, case, mode))


@pytest.mark.gpu
@both_modes
@pytest.mark.parametrize("case", NCCL, ids=lambda c: c.id)
def test_two_gpus(found_on_gpus: Found, case: Case, mode: str) -> None:
    results, again = (ranks_of(found_on_gpus, case, name) for name in (mode, f"{mode}/again"))
    assert_those_of_one_process(case, results)
    for one, other in zip(results, again, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


@both_modes
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_every_rank_has_the_same_value_and_numbers(found: Found, case: Case, mode: str) -> None:
    results = ranks_of(found, case, mode)
    for rank, result in enumerate(results):
        assert torch.equal(result["value"], results[0]["value"])
        for name in result.keys() & {"temperature", "bias"}:
            of_first = results[0][name] / case.upstream[0] * case.upstream[rank]
            torch.testing.assert_close(result[name], of_first, rtol=1e-15, atol=0)


@both_modes
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_same_bits_again(found: Found, case: Case, mode: str) -> None:
    first, again = (ranks_of(found, case, name) for name in (mode, f"{mode}/again"))
    for one, other in zip(first, again, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


@both_modes
def test_ddp_gradients_are_those_of_one_process(found: Found, mode: str) -> None:
    rows = (4, 6, 3)
    model = Towers()
    images, texts, scale = model(*pictures(rows))
    info_nce(images, texts, temperature=1 / scale, symmetric=True).backward()
    for rank in range(WORLD):
        for name, p in model.named_parameters():
            torch.testing.assert_close(
                found[rank][f"ddp/{mode}"][name], p.grad, rtol=1e-12, atol=1e-14
            )


def test_fsdp_gradients_are_those_of_one_process(found: Found) -> None:
    model = Towers()
    images, texts, scale = model(*pictures((4, 6, 3)))
    info_nce(images, texts, temperature=1 / scale, symmetric=True).backward()
    for rank in range(WORLD):
        for name, p in model.named_parameters():
            expected = p.grad[None] if name == "log_scale" else p.grad
            torch.testing.assert_close(found[rank]["fsdp"][name], expected, rtol=1e-12, atol=1e-14)


@both_modes
def test_open_clips_modules_under_ddp(found: Found, mode: str) -> None:
    model = Towers()
    images, texts, scale = model(*pictures((4, 6, 3)))
    clip = info_nce(images, texts, temperature=1 / scale, symmetric=True)
    (clip + siglip(images, texts, temperature=1 / scale, bias=-1.0)).backward()
    for rank in range(WORLD):
        for name, p in model.named_parameters():
            torch.testing.assert_close(
                found[rank][f"open_clip/{mode}"][name], p.grad, rtol=1e-12, atol=1e-14
            )


def assert_as_open_clip(
    results: list[dict[str, Tensor]], rows: tuple[int, ...], options: tuple[bool, bool]
) -> None:
    """Results of all ranks are those of the dense formula."""
    model = Towers()
    values = as_open_clip(*model(*pictures(rows)), rows, options)
    torch.stack(values).mean().backward()
    for result, value in zip(results, values, strict=True):
        torch.testing.assert_close(result["value"], value.detach(), rtol=1e-12, atol=1e-14)
        for name, p in model.named_parameters():
            torch.testing.assert_close(result[name], p.grad, rtol=1e-12, atol=1e-14)


@both_modes
@pytest.mark.parametrize("options", OPEN_CLIP)
def test_options_of_open_clip(found: Found, options: tuple[bool, bool], mode: str) -> None:
    for ranks, rows in (((0, 1, 2), EVEN), ((0, 1, 2), UNEVEN), (PAIR, (5, 2))):
        results = [found[rank][f"clip_options/{options}/{rows}/{mode}"] for rank in ranks]
        assert_as_open_clip(results, rows, options)


@pytest.mark.parametrize("options", OPEN_CLIP)
def test_the_dense_formula_is_open_clips(found: Found, options: tuple[bool, bool]) -> None:
    require("open_clip")
    assert_as_open_clip([x[f"clip_options/{options}/theirs"] for x in found], EVEN, options)


@both_modes
def test_without_gradients_the_value_is_the_same(found: Found, mode: str) -> None:
    for rank in range(WORLD):
        assert torch.equal(
            found[rank][f"no_grad/{mode}"], found[rank][f"{CASES[1].id}/{mode}"]["value"]
        )


@both_modes
@pytest.mark.parametrize("case", WATCHED, ids=lambda c: c.id)
def test_no_tensor_is_larger_than_it_must_be(found: Found, case: Case, mode: str) -> None:
    views = 2 if case.loss == "ntxent" else 1
    n, d = case.rows[0] * views, case.d
    # Class sums are made of a tile's queries and keys together.
    tile = 2 * n if case.loss == "supcon" else n
    whole_n = sum(case.rows) * views
    largest = max(entries for entries, _ in ranks_of(found, case, mode))
    assert largest > 0
    # Gathered, a rank's scores are those of its rows against two ranks' at a time.
    expected = max(tile * d, n * n) if mode == "ring" else max(whole_n * d, n * (whole_n - n))
    assert largest <= expected < whole_n * max(whole_n, d)


# Products of 2 * (local rows) * (whole batch) * D flop for the loss and all gradients.
UNITS = {"clip": 4, "siglip": 3, "ntxent": 3, "supcon": 3}


@both_modes
@pytest.mark.parametrize("case", WATCHED, ids=lambda c: c.id)
def test_no_product_is_computed_in_vain(found: Found, case: Case, mode: str) -> None:
    views = 2 if case.loss == "ntxent" else 1
    unit = 2 * case.rows[0] * sum(case.rows) * views**2 * case.d
    for _, flop in ranks_of(found, case, mode):
        assert flop == UNITS[case.loss] * unit


@both_modes
def test_the_compiled_loss_is_the_same(found: Found, mode: str) -> None:
    for rank in range(WORLD):
        ours = found[rank][f"compiled/{mode}"]
        for name, x in ours.items():
            assert torch.equal(x, found[rank][f"{CASES[1].id}/{mode}"][name])


REFUSALS = {
    "features": "ValueError: features: expected the same on every rank, got 6, 5, 6",
    "dtype": "ValueError: dtype: expected the same on every rank, got float32, float16, float32",
    "mode": "ValueError: mode: expected the same on every rank",
    "loss": "ValueError: loss: expected the same on every rank",
    "requires_grad": "ValueError: requires_grad: expected the same on every rank",
    "labels": "ValueError: labels: expected the same on every rank, got integers, floating numbers",
    "extra_negatives": "ValueError: extra_negatives: expected the same on every rank, got a tensor",
    "hard_negatives": "ValueError: hard_negatives: expected the same on every rank, got None, a te",
    "symmetric": "ValueError: extra_negatives: expected None with symmetric=True",
    "local_loss": "ValueError: local_loss: expected the same on every rank, got False, True, False",
    "gather_with_grad": "ValueError: gather_with_grad: expected the same on every rank",
    "label_smoothing": "ValueError: label_smoothing: expected the same on every rank, got 0.0, 0.1",
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_differs_is_refused_on_every_rank(found: Found, name: str) -> None:
    for rank in range(WORLD):
        assert found[rank][f"refusal/{name}"].startswith(REFUSALS[name])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rows", "ValueError: key: expected the 4 rows of query, got 3"),
        ("empty", "ValueError: query: expected at least 1 row on every rank, got 0"),
        ("scale", "TypeError: scale: expected a number or a tensor, got str"),
    ],
)
def test_what_one_rank_refuses_stops_all(found: Found, name: str, text: str) -> None:
    for rank in range(WORLD):
        general = "ValueError: arguments: expected valid ones on every rank, refused on rank [1]"
        assert found[rank][f"refusal/{name}"] == (text if rank == 1 else general)


def test_a_group_without_this_process_is_refused(found: Found) -> None:
    for rank in range(WORLD):
        assert "group: expected a process group that" in found[rank]["refusal/outside"]


def test_second_derivatives_are_refused(found: Found) -> None:
    for rank in range(WORLD):
        assert "expected one differentiation, got a second" in found[rank]["refusal/twice"]


def test_no_process_group_is_refused() -> None:
    x = torch.ones(4, 3)
    with pytest.raises(RuntimeError, match=r"group: expected .*init_process_group"):
        DistributedInfoNCELoss()(x, x)


@pytest.mark.parametrize(
    "kind",
    [
        DistributedDCLLoss,
        DistributedInfoNCELoss,
        DistributedNTXentLoss,
        DistributedSigLIPLoss,
        DistributedSupConLoss,
    ],
)
@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"mode": "star"}, "mode: expected 'gather' | 'ring', got 'star'"),
        ({"gradient": "mean"}, "gradient: expected 'ddp' | 'sum', got 'mean'"),
        ({"temperature": 0.0}, "temperature: expected a number > 0"),
    ],
)
def test_options_are_checked_at_once(kind: Any, options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError) as refusal:  # noqa: PT011 - compared below
        kind(**options)
    assert text in str(refusal.value)
