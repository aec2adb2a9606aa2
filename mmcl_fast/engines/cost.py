"""Predicted cost of a run in each engine: operations, by which `auto` chooses, time, and memory."""

from __future__ import annotations

import torch

from mmcl_fast.config import TrainConfig
from mmcl_fast.data.signal_noise.rows import GPU_PIECE_ELEMENTS, PIECE_ELEMENTS, piece_rows
from mmcl_fast.data.signal_noise.synthetic import TORCH_DTYPES, data_bytes
from mmcl_fast.data.stream.memory import available_bytes
from mmcl_fast.engines.gram_cuda_graph import CURVE_EPOCHS, why_not_replayed
from mmcl_fast.engines.paper_loss.full_scores import CHUNK_SCORES
from mmcl_fast.engines.triton import held_elements
from mmcl_fast.engines.variants import native as native_variants
from mmcl_fast.engines.variants.choice import max_runs
from mmcl_fast.engines.variants.sizes import (
    is_variant_in_span,
    leaves_span,
    span_sizes,
    variant_elements,
)
from mmcl_fast.errors import DataError
from mmcl_fast.losses.torch_backend.score_blocks import chunk_rows

GIB = 2**30
SPAN_ENGINES = ("triton", "native", "gram")
GPU_SCORES, GPU_ROWS = 2**28, 1024  # of `paper_loss.label_halves_triton`, which imports Triton
# Overhead of the memory pool of a CUDA graph: 32 MiB of cuBLAS workspace for a capture, and torch
# allocates segments of up to 20 MiB.
POOL_BYTES = 1 << 26


def flop(cfg: TrainConfig, engine: str) -> float:
    """Floating-point operations of a run in an engine.

    Counted: products of the data with weights (primal) or with each other (gram), products with the
    coefficients, and products of the OOD data in evaluations. The loss and the linear probe cost
    all engines the same.
    """
    at_start, of_epoch = _products(cfg, engine)
    operations = at_start + cfg.epochs * of_epoch
    evaluations, ood = _evaluations(cfg), cfg.n_test + cfg.probe_samples_value
    if engine in SPAN_ENGINES:
        return operations + 2 * ood * span_sizes(cfg)[0] * (
            cfg.columns * (evaluations > 0) + evaluations * cfg.m
        )
    return operations + 2 * evaluations * cfg.m * cfg.columns * (ood + cfg.n)


def _products(cfg: TrainConfig, engine: str) -> tuple[float, float]:
    """Operations in products with the data: before the epochs, and of an epoch."""
    n, m = cfg.n, cfg.m
    modalities = [(width, 1.0 if cfg.is_multi else 2.0) for width in cfg.widths.values()]
    view_draws = cfg.epochs if cfg.augment == "per_epoch" else 1
    at_start = of_epoch = 0.0
    for d, views in modalities:
        if engine in SPAN_ENGINES:
            columns, preactivations = span_sizes(cfg)
            redrawn = n * (views - 1) * (view_draws - 1)
            at_start += 2 * d * (columns - 1 + m) * (redrawn + preactivations)
            # Minibatches compute theirs before the loss of all samples needs them again.
            passes = 2 if cfg.optimizer == "sgd" else 1
            of_epoch += 2 * m * preactivations * columns * passes
        else:
            of_epoch += 2 * m * d * (views + 1) * n
    return at_start, of_epoch


def _evaluations(cfg: TrainConfig) -> int:
    """Evaluations of a run: each `evaluate_every` epochs, and after the last epoch."""
    return -(-cfg.epochs // cfg.evaluate_every) + 1 if cfg.evaluate_every else 0


# Seconds of one core for each amount of `work`, in its order. Those of native and gram are fitted
# by `python -m bench.cpu.run_cost_fit` to rows of bench/results, measured while all cores were
# busy, as they are in a sweep; those of primal and reference, to 12 and 7 settings.
SECONDS = {
    "native": (
        1.0e-4, 1.4e-9, 1.1e-8, 1.4e-11, 5.2e-7, 0.0, 8.7e-12, 8.5e-10, 1.2e-9, 2.7e-10, 0.0,
        4.3e-11, 1.1e-5, 3.3e-11, 1.3e-8, 3.6e-11,
    ),
    "gram": (
        1.3e-4, 3.0e-9, 9.9e-9, 1.0e-11, 5.3e-6, 7.8e-5, 1.5e-11, 7.4e-9, 1.7e-9, 2.9e-9, 0.0,
        3.0e-11, 1.4e-5, 5.2e-11, 6.9e-9, 8.2e-12,
    ),
    "primal": (
        1.7e-4, 3.5e-9, 6.6e-9, 1.5e-11, 2.2e-5, 0.0, 1.9e-11, 1.8e-9, 0.0, 4.2e-10, 1.2e-11,
        0.0, 1.5e-3, 1.3e-11, 0.0, 1.0e-11,
    ),
    "reference": (
        1.1e-4, 1.4e-7, 4.7e-8, 1.5e-11, 5.2e-4, 0.0, 1.3e-11, 2.2e-9, 0.0, 5.3e-10, 3.1e-11,
        0.0, 2.4e-3, 4.1e-11, 0.0, 1.0e-11,
    ),
}  # fmt: skip
# Of a minibatch, in those of an epoch: it also picks its samples' products. 9 settings with
# n = 100 and 400, m = 50 and 512, batch_size = 4 to 200 took 1.2 to 1.5 times the estimate.
MINIBATCH_LAUNCHES = 12
CACHED_ACTIVATIONS = 1 << 16  # of a modality; a core's cache holds no more of what an epoch reads


def core_seconds(cfg: TrainConfig, engine: str) -> float:
    """Estimated seconds of one core of a run in a batch: data, epochs, evaluations.

    Of processors with AVX-512 all of whose cores are busy. 12 sizes of native and gram (m = 16 to
    4096, n = 20 to 1000, evaluated never, each epoch or each 20th) take 0.7 to 1.5 times as long
    (tests/engines/test_cost.py). Of triton, which has no core, those of gram: it orders runs by
    their work.
    """
    rates = SECONDS.get(engine, SECONDS["gram"])
    return sum(rate * amount for rate, amount in zip(rates, work(cfg, engine), strict=True))


def work(cfg: TrainConfig, engine: str) -> tuple[float, ...]:
    """Amounts of work of a run, each of which takes about the same time a unit.

    Returns: runs; numbers drawn, of explicit and of reduced data; operations before the epochs;
        epochs, and their share in a batch of gram; their operations with the data, activations,
        those that no cache holds, scores, operations of the loss, operations with activations that
        no cache holds; evaluations, their operations, embeddings of the heads, operations of these.
    """
    n, m, epochs = cfg.n, cfg.m, float(cfg.epochs)
    sides, evaluations = len(cfg.modalities), float(_evaluations(cfg))
    directions = sides * (sides - 1) if cfg.is_multi else 1
    is_reduced, in_span = cfg.data == "reduced", engine in SPAN_ENGINES
    rows, ood = (1 if cfg.is_multi else 2) * n + m, cfg.n_test + cfg.probe_samples_value
    drawn = float(cfg.columns * ood + sum(cfg.widths.values()) * rows)
    at_start, of_epoch = _products(cfg, engine)
    if in_span and evaluations:
        at_start += 2.0 * ood * (span_sizes(cfg)[0] + m) * cfg.columns
    of_test = 2.0 * ood * (span_sizes(cfg)[0] if in_span else cfg.columns) * m
    pairs = n * n * (cfg.objective == "contrastive")
    # Signals of variants are rows of the scores' products; keys that learn need one more.
    of_pair = (m + cfg.axes * cfg.is_variant) * (1.5 if cfg.trains_keys else 1.0)
    minibatches = -(-n // cfg.batch_size) if cfg.batch_size else 0
    launches = 1 + MINIBATCH_LAUNCHES * minibatches
    passes = 2 if engine == "gram" and minibatches else 1  # and the loss of all samples
    uncached = epochs * sides * max(0, n * m - CACHED_ACTIVATIONS)
    heads = evaluations * (cfg.classes or 1)
    return (
        1.0,
        0.0 if is_reduced else drawn,
        drawn if is_reduced else 0.0,
        at_start,
        epochs,
        epochs * launches / max_runs(cfg) if engine == "gram" else 0.0,
        epochs * of_epoch,
        epochs * sides * n * m * passes,
        uncached,
        epochs * directions * pairs,
        epochs * directions * pairs * of_pair,
        uncached * n,
        evaluations,
        evaluations * (of_test + m * (n + ood)),
        heads * n * min(n, m),
        heads * n * m * min(n, m),
    )


def memory_bytes(cfg: TrainConfig, engine: str) -> int:
    """Memory of one run in bytes: data, state and workspace of the engine, stored coefficients."""
    elements = _ELEMENTS[engine](cfg)
    columns = span_sizes(cfg)[0]
    elements += (cfg.n_test + cfg.probe_samples_value) * (columns + 3 * cfg.m)
    if cfg.coefficients_every:
        stored = cfg.epochs // cfg.coefficients_every + 1
        elements += stored * len(cfg.modalities) * cfg.m * columns
    itemsize = TORCH_DTYPES[cfg.dtype].itemsize
    # Drawing M negatives sorts an n x n table: words, 64-bit keys and their order, two masks.
    drawing = 0 if cfg.negatives_per_sample is None else cfg.n**2 * (4 + 8 + 8 + 2 + itemsize)
    pool = POOL_BYTES if engine == "gram" and _is_replayed(cfg) else 0
    return data_bytes(cfg) + elements * itemsize + drawing + pool


def _is_replayed(cfg: TrainConfig) -> bool:
    return not is_variant_in_span(cfg) and why_not_replayed(cfg, cfg.device) is None


def _native(cfg: TrainConfig) -> int:
    if cfg.is_variant:
        return native_variants.held_elements(cfg)
    n, modalities = cfg.n, 1 + cfg.is_multi
    columns = (2 - cfg.is_multi) * n + 1
    # Inner products and pre-activations (and a copy in kernel order), activations, coefficients and
    # their change, scores between the labels and their transpose.
    stored = modalities * (2 * columns * (n + 1 + cfg.m) + 5 * n * cfg.m)
    return stored + modalities * n * n // 2


def _gram(cfg: TrainConfig) -> int:
    if is_variant_in_span(cfg):
        return variant_elements(cfg)
    n, modalities = cfg.n, 1 + cfg.is_multi
    columns = (2 - cfg.is_multi) * (n + 2)
    # Inner products (twice during concatenation), pre-activations and activations.
    stored = modalities * (2 * columns * (n + 1) + 4 * columns * cfg.m)
    stored += n * n + 3 * min(n * n, CHUNK_SCORES) + _step_elements(cfg)
    # A graph allocates the workspace of an epoch again and keeps it.
    return stored + _step_elements(cfg) + 3 * CURVE_EPOCHS if _is_replayed(cfg) else stored


def _step_elements(cfg: TrainConfig) -> int:
    """Peak number of temporary elements in an epoch of the gram engine."""
    return 4 * (cfg.n + 2) * cfg.m + 16 * cfg.n


def _primal(cfg: TrainConfig) -> int:
    coordinates = cfg.columns + cfg.columns_b * cfg.is_multi
    stored = 4 * cfg.m * coordinates + (10 + 3 * cfg.is_multi) * cfg.n * cfg.m
    # A product packs one factor. Where rows are drawn, a view needs two pieces (patches, epsilon),
    # and freed pieces are returned late.
    is_drawn = cfg.data == "streamed" or cfg.augment == "per_epoch"
    on_gpu = is_drawn and cfg.device == "cuda" and cfg.dtype == "float32"
    elements = GPU_PIECE_ELEMENTS if on_gpu else PIECE_ELEMENTS
    sizes = [piece_rows(cfg.n, d, elements) * d for d in (cfg.columns, cfg.columns_b)]
    stored += int((3 if is_drawn else 0.5) * max(sizes))
    if cfg.negatives_per_sample is not None:
        # Scores, weights, bias and mask of a chunk, and of the shorter last chunk.
        return stored + 6 * min(cfg.n**2, CHUNK_SCORES)
    if cfg.device == "cuda":
        # Scores of a chunk of one label's rows, their weights in both directions, weighted keys.
        return (
            stored + 3 * max(min((cfg.n // 2) ** 2, GPU_SCORES), GPU_ROWS * cfg.n) + cfg.n * cfg.m
        )
    return stored + 2 * chunk_rows(cfg.n, cfg.n) * cfg.n  # scores and their exponentials


def _reference(cfg: TrainConfig) -> int:
    # Autograd stores several n x n tables per direction, and the signal patches are n x d arrays.
    pairs = 3 if "c" in cfg.modalities else 1
    of_loss = pairs * (20 * cfg.n * cfg.m + 12 * cfg.n**2)
    return 4 * (cfg.m + cfg.n) * sum(cfg.widths.values()) + of_loss


_ELEMENTS = {
    "triton": held_elements,
    "native": _native,
    "gram": _gram,
    "primal": _primal,
    "reference": _reference,
}


def check_memory(cfg: TrainConfig, engine: str) -> None:
    """Refuse a run that does not fit into the memory of its device, with settings that need less.

    Raises: DataError: the prediction exceeds the free memory.
    """
    if cfg.device != "cuda":
        _require(cfg, engine, memory_bytes(cfg, engine), available_bytes(), "free now")
        return
    _require(cfg, engine, data_bytes(cfg), available_bytes(), "free now, where data are drawn")
    _require(cfg, engine, memory_bytes(cfg, engine), free_gpu_bytes(), "free on the GPU now")


def _require(cfg: TrainConfig, engine: str, needed: int, available: int | None, where: str) -> None:
    if available is None or needed <= available:
        return
    hints = ["a smaller n or d"]
    if cfg.data == "explicit" and data_bytes(cfg) > available / 2:
        hints += _of_other_data(cfg, available)
    if engine != "primal" and not cfg.is_variant and memory_bytes(cfg, "primal") <= available:
        hints.append("engine = primal")
    raise DataError(
        f"memory: expected a run of at most {available / GIB:.2f} GiB ({where}), got "
        f"{needed / GIB:.2f} GiB with engine {engine} at n = {cfg.n}, d = {cfg.d}, m = {cfg.m}; "
        f"take {' or '.join(hints)}"
    )


def _of_other_data(cfg: TrainConfig, available: int) -> list[str]:
    """Kinds of data in place of explicit ones that need less memory, where a run may have them."""
    hints = []
    if not leaves_span(cfg) and not cfg.view_mask:  # else coordinates of R^d are needed
        hints.append("data = reduced")
    if not cfg.is_variant and memory_bytes(cfg.replace(data="streamed"), "primal") <= available:
        hints.append("data = streamed with engine = primal")
    return hints


def free_gpu_bytes() -> int:
    """Free memory of the GPU, with the unused part of torch's cache."""
    unused = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    return int(torch.cuda.mem_get_info()[0]) + unused


__all__ = ["check_memory", "core_seconds", "flop", "free_gpu_bytes", "memory_bytes", "work"]
