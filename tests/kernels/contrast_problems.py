"""Contrasts for the kernel tests, what the kernels give for them, and how wrong that may be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from mmcl_fast.losses.contrast import Contrast, Gradients, Requested
from mmcl_fast.losses.triton_backend import contrast_backward, contrast_forward
from tests.support.budget import error
from tests.support.dense_contrast import (
    FEATURES,
    cast,
    dense_value_and_grads,
    negatives,
    pair_gradient,
)

FUSED, CHUNKED = 33, 80  # features; the interpreter's tiles hold up to 64
UNIT = {torch.float32: 0.0, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}  # of rounding
Results = dict[str, Tensor]


class Draw:
    """Random parts of a problem, on the CPU, the same everywhere."""

    def __init__(self, seed: int = 0) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def features(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator) / shape[-1] ** 0.5

    def below(self, end: int, n: int) -> Tensor:
        return torch.randint(0, end, (n,), generator=self.generator)


@dataclass(frozen=True)
class Case:
    """One problem; `make` takes random parts and the number of features."""

    id: str
    make: Callable[[Draw, int], Contrast]
    why: str


def _contrast(draw: Draw, n: int, m: int, d: int, **options: object) -> Contrast:
    query, key = draw.features(n, d), draw.features(m, d)
    return Contrast(query, key, torch.tensor(0.2), **options)  # type: ignore[arg-type]


def _own(draw: Draw, n: int, d: int, **options: object) -> Contrast:
    partner = torch.arange(n).roll(n // 2)
    made = Contrast(draw.features(n, d), None, torch.tensor(0.3), **options)  # type: ignore[arg-type]
    return made if "positive_key" in options else replace(made, positive=partner)


CASES = [
    Case(
        "plain",
        lambda x, d: _contrast(x, 70, 90, d),
        "nothing is a multiple of a tile; keys beyond the queries",
    ),
    Case("symmetric", lambda x, d: _contrast(x, 70, 70, d, symmetric=True), "column statistics"),
    Case(
        "stopped_both_ways",
        lambda x, d: _contrast(
            x, 70, 70, d, symmetric=True, stopped=True, labels=(x.below(4, 70), x.below(4, 70))
        ),
        "one pass in each direction, whose labels change places",
    ),
    Case(
        "stopped",
        lambda x, d: _contrast(x, 70, 66, d, stopped=True, positive=x.below(66, 70)),
        "one pass, positives by index",
    ),
    Case("decoupled", lambda x, d: _contrast(x, 70, 70, d, form="decoupled"), "no positive below"),
    Case(
        "sigmoid",
        lambda x, d: _contrast(x, 70, 80, d, form="sigmoid", bias=torch.tensor(-3.0)),
        "a bias that learns",
    ),
    Case(
        "index",
        lambda x, d: _contrast(x, 70, 40, d, positive=x.below(40, 70)),
        "several queries share a positive; fewer keys than queries",
    ),
    Case(
        "labels",
        lambda x, d: _contrast(x, 70, 80, d, labels=(x.below(3, 70), x.below(3, 80))),
        "positives of another label too",
    ),
    Case(
        "positive_key",
        lambda x, d: _contrast(x, 70, 90, d, positive_key=x.features(70, d), exclude_self=True),
        "every key is a negative, but for one's own row",
    ),
    Case(
        "extra",
        lambda x, d: _contrast(
            x, 70, 100, d, extra=25, labels=(x.below(3, 70), x.below(3, 75)), exclude_self=True,
            positive=x.below(75, 70),
        ),
        "the last keys have no labels and are nobody's own row",
    ),
    Case(
        "hard",
        lambda x, d: _contrast(x, 70, 70, d, hard=x.features(70, 3, d)),
        "negatives of one query each",
    ),
    Case(
        "everything",
        lambda x, d: _contrast(
            x, 70, 100, d, form="sigmoid", bias=torch.tensor(-1.0), extra=28, exclude_self=True,
            labels=(x.below(5, 70), x.below(5, 72)), hard=x.features(70, 2, d),
            positive_key=x.features(70, d),
        ),
        "all options that go together are off their defaults",
    ),
    Case("own", lambda x, d: _own(x, 70, d, exclude_self=True), "half of the pairs are visited"),
    Case(
        "own_decoupled",
        lambda x, d: _own(x, 70, d, exclude_self=True, form="decoupled",
                          positive_key=x.features(70, d), hard=x.features(70, 2, d)),
        "parts that are no own rows add to one side only",
    ),
    Case(
        "own_stopped",
        lambda x, d: _own(x, 70, d, stopped=True, positive_key=x.features(70, d),
                          labels=(labels := x.below(2, 70), labels)),
        "the paper's loss",
    ),
]  # fmt: skip
BY_ID = {case.id: case for case in CASES}


def problem(name: str, features: int, dtype: torch.dtype, device: torch.device) -> Contrast:
    """The contrast of a case with its features rounded to `dtype`."""
    made = BY_ID[name].make(Draw(), features)
    return to(replace(made, **{
        name: getattr(made, name).to(dtype)
        for name in ("query", "key", "positive_key", "hard")
        if getattr(made, name) is not None
    }), device)  # fmt: skip


def to(contrast: Contrast, device: torch.device) -> Contrast:
    """The same on another device."""
    every = ((field.name, getattr(contrast, field.name)) for field in fields(contrast))
    moved = {name: x.to(device) for name, x in every if isinstance(x, Tensor)}
    if contrast.labels is not None:
        moved["labels"] = tuple(x.to(device) for x in contrast.labels)
    return replace(contrast, **moved)


def all_requested(contrast: Contrast) -> Requested:
    """Every input that there is, as far as gradients flow to it."""
    return Requested(*(getattr(contrast, name) is not None for name in FEATURES))


def uniform(contrast: Contrast, weight: float) -> Tensor:
    """[N], all the same."""
    return torch.full((len(contrast.query),), weight, device=contrast.query.device)


def at_once(contrast: Contrast, weight: float, requested: Requested | None = None) -> Results:
    """Losses and gradients of the forward pass."""
    done = contrast_forward(contrast, requested or all_requested(contrast), weight)
    assert done.gradients is not None
    return {"losses": done.losses, **named(done.gradients)}


def in_two(contrast: Contrast, upstream: Tensor, requested: Requested | None = None) -> Results:
    """Losses of the forward pass, and the gradients of the backward pass."""
    requested = requested or all_requested(contrast)
    done = contrast_forward(contrast, requested, None)
    assert done.gradients is None
    return {
        "losses": done.losses,
        **named(contrast_backward(contrast, requested, done.statistics, upstream)),
    }


def named(gradients: Gradients) -> Results:
    """Gradients by the name of the input; the per-row ones added up."""
    found = {name: x for name, x in gradients._asdict().items() if x is not None}
    return {name: x.sum() if name in ("temperature", "bias") else x for name, x in found.items()}


def assert_within_budget(
    ours: Results, contrast: Contrast, upstream: Tensor, *, of_scores: float = 0.0
) -> None:
    """Every tensor: error <= 2 * (error of plain float32 + float32's eps * size) + granted.

    Plain is the dense evaluation in float32 of the same rounded inputs. Size is the largest value,
    or the sum of the terms' sizes of a single number. Granted is what the numerics contract says of
    16-bit features, u * |weight| * |feature| for each negative pair; and with `of_scores`, what
    follows from scores wrong by that share of themselves, which counts where they are large.
    """
    exact = dense_value_and_grads(contrast, upstream)
    plain = dense_value_and_grads(contrast, upstream, torch.float32)
    granted, terms = _granted(contrast, upstream, of_scores)
    for name, value in ours.items():
        assert value.dtype == torch.float32, name
        assert value.shape == exact[name].shape, name
        if not value.numel():
            continue
        size = max(exact[name].abs().max().item(), terms.get(name, 0.0))
        budget = 2 * (error(plain[name], exact[name]) + torch.finfo(torch.float32).eps * size)
        excess = (value - exact[name]).abs() - granted.get(name, torch.zeros(1)).to(value.device)
        assert excess.max().item() <= budget, f"{name}: {excess.max().item():.3g} > {budget:.3g}"


def _granted(
    contrast: Contrast, upstream: Tensor, of_scores: float
) -> tuple[Results, dict[str, float]]:
    """(what is granted by the name of the input, sizes of single numbers' terms)."""
    exact = cast(contrast, torch.float64)
    query = exact.query
    key = query if exact.key is None else exact.key
    if not len(query) or not len(key):
        return {}, {}
    pairs = pair_gradient(contrast, upstream).abs()
    scores = (query @ key.T / exact.temperature).abs()
    terms = {
        "temperature": ((pairs * scores).sum() / exact.temperature).item(),
        "bias": pairs.sum().item(),
    }
    rounded = pairs * negatives(contrast, contrast.labels) * UNIT[contrast.query.dtype]
    # e^s changes by |ds|, and so does the sum that it is divided by.
    shift = 2 * of_scores * scores.max()
    weights = (rounded + pairs * shift) / exact.temperature
    of_query, of_key = weights @ key.abs(), weights.T @ query.abs()
    if exact.key is None:
        of_query = of_query + of_key
    return {
        "losses": shift,
        "query": of_query,
        "key": of_key,
        "temperature": (weights * (query.abs() @ key.abs().T)).sum() / exact.temperature,
        "bias": (pairs * shift).sum(),
    }, terms


__all__ = ["CASES", "CHUNKED", "FUSED", "Draw", "all_requested", "assert_within_budget", "problem"]
