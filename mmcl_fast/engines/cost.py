"""What a run costs in each engine: operations, by which `auto` chooses, and memory, predicted."""

from __future__ import annotations

import torch

from mmcl_fast.config import TrainConfig
from mmcl_fast.data.signal_noise.rows import GPU_PIECE_NUMBERS, PIECE_NUMBERS, piece_rows
from mmcl_fast.data.signal_noise.synthetic import TORCH_DTYPES, data_bytes
from mmcl_fast.data.stream.memory import available_bytes
from mmcl_fast.engines.gram_cuda_graph import HELD_EPOCHS, why_not_replayed
from mmcl_fast.engines.paper_loss.full_scores import CHUNK_SCORES
from mmcl_fast.engines.triton import held_numbers
from mmcl_fast.errors import DataError
from mmcl_fast.losses.torch_backend.score_blocks import chunk_rows

GIB = 2**30
SPAN_ENGINES = ("triton", "native", "gram")
GPU_SCORES, GPU_ROWS = 2**28, 1024  # of `paper_loss.label_halves_triton`, which imports Triton
# Of a CUDA graph's memory pool: 32 MiB that cuBLAS takes for a capture, and torch takes memory by
# segments of up to 20 MiB.
POOL_BYTES = 1 << 26


def flop(cfg: TrainConfig, engine: str) -> float:
    """Floating-point operations of a whole run: the cost by which `auto` chooses.

    Products of the data with weights (primal) or among themselves (gram), the products with the
    coefficients, and the test rows wherever accuracy is evaluated; the loss costs both the same.
    """
    n, m, epochs = cfg.n, cfg.m, cfg.epochs
    sides = ((cfg.columns, 1.0), (cfg.columns_b, 1.0)) if cfg.is_multi else ((cfg.columns, 2.0),)
    looks = epochs // cfg.evaluate_every + 1 if cfg.evaluate_every else 0
    fresh = epochs if cfg.augment == "per_epoch" else 1
    total = 0.0
    for d, views in sides:
        if engine in SPAN_ENGINES:
            total += 2 * d * (n + m) * (n * (views - 1) * fresh + n + 1)
            total += 2 * epochs * m * (views * n + 1) * (n + 1)
        else:
            total += 2 * epochs * m * d * (views + 1) * n
    if engine in SPAN_ENGINES:
        return total + 2 * cfg.n_test * (n + 1) * (cfg.columns * (looks > 0) + looks * m)
    return total + 2 * looks * m * cfg.columns * (cfg.n_test + n)


def memory_bytes(cfg: TrainConfig, engine: str) -> int:
    """Memory of one run: its data, what the engine holds and works in, stored coefficients."""
    numbers = _NUMBERS[engine](cfg)
    numbers += cfg.n_test * (cfg.n + 1 + 3 * cfg.m)
    if cfg.coefficients_every:
        stored = cfg.epochs // cfg.coefficients_every + 1
        numbers += stored * (1 + cfg.is_multi) * cfg.m * (cfg.n + 1)
    itemsize = TORCH_DTYPES[cfg.dtype].itemsize
    # Drawing M negatives sorts an n x n table: words, 64-bit keys and their order, two masks.
    drawing = 0 if cfg.negatives_per_sample is None else cfg.n**2 * (4 + 8 + 8 + 2 + itemsize)
    pool = POOL_BYTES if engine == "gram" and _is_replayed(cfg) else 0
    return data_bytes(cfg) + numbers * itemsize + drawing + pool


def _is_replayed(cfg: TrainConfig) -> bool:
    return why_not_replayed(cfg, cfg.device) is None


def _native(cfg: TrainConfig) -> int:
    n, sides = cfg.n, 1 + cfg.is_multi
    columns = (2 - cfg.is_multi) * n + 1
    # Inner products and pre-activations (and once more in the order the kernels want), activations,
    # coefficients and their change, scores between the labels and their transpose.
    held = sides * (2 * columns * (n + 1 + cfg.m) + 5 * n * cfg.m)
    return held + sides * n * n // 2


def _gram(cfg: TrainConfig) -> int:
    n, sides = cfg.n, 1 + cfg.is_multi
    columns = (2 - cfg.is_multi) * (n + 2)
    # Inner products (and once more while they are put together), pre-activations and activations.
    held = sides * (2 * columns * (n + 1) + 4 * columns * cfg.m)
    held += n * n + 3 * min(n * n, CHUNK_SCORES) + _step_numbers(cfg)
    # A graph allocates once more what the first epoch did, and keeps it.
    return held + _step_numbers(cfg) + 3 * HELD_EPOCHS if _is_replayed(cfg) else held


def _step_numbers(cfg: TrainConfig) -> int:
    """What an epoch of the gram engine allocates and gives back, at its most."""
    return 4 * (cfg.n + 2) * cfg.m + 16 * cfg.n


def _primal(cfg: TrainConfig) -> int:
    coordinates = cfg.columns + cfg.columns_b * cfg.is_multi
    held = 4 * cfg.m * coordinates + (10 + 3 * cfg.is_multi) * cfg.n * cfg.m
    # A product packs one factor; where rows are drawn, a view is a piece of its sample and one of
    # what is added to it, and freed pieces are given back late.
    drawn = cfg.data == "streamed" or cfg.augment == "per_epoch"
    on_gpu = drawn and cfg.device == "cuda" and cfg.dtype == "float32"
    numbers = GPU_PIECE_NUMBERS if on_gpu else PIECE_NUMBERS
    sizes = [piece_rows(cfg.n, d, numbers) * d for d in (cfg.columns, cfg.columns_b)]
    held += int((3 if drawn else 0.5) * max(sizes))
    if cfg.negatives_per_sample is not None:
        # Scores, weights, bias and mask of a chunk, and of the shorter last one.
        return held + 6 * min(cfg.n**2, CHUNK_SCORES)
    if cfg.device == "cuda":
        # Scores of a chunk of one label's rows, both sides' weights of them, and a mixture.
        return held + 3 * max(min((cfg.n // 2) ** 2, GPU_SCORES), GPU_ROWS * cfg.n) + cfg.n * cfg.m
    return held + 2 * chunk_rows(cfg.n, cfg.n) * cfg.n  # scores and their powers


def _reference(cfg: TrainConfig) -> int:
    coordinates = cfg.columns + cfg.columns_b * cfg.is_multi
    # Autograd keeps several n x n tables per direction, and the signal patches are n x d arrays.
    return 4 * (cfg.m + cfg.n) * coordinates + 20 * cfg.n * cfg.m + 12 * cfg.n**2


_NUMBERS = {
    "triton": held_numbers,
    "native": _native,
    "gram": _gram,
    "primal": _primal,
    "reference": _reference,
}


def check_memory(cfg: TrainConfig, engine: str) -> None:
    """Refuse a run that would not fit into its device's memory, naming what would need less.

    Raises: DataError: the predicted need is more than what is free now.
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
        hints.append("data = reduced")
        if memory_bytes(cfg.replace(data="streamed"), "primal") <= available:
            hints.append("data = streamed with engine = primal")
    if engine != "primal" and memory_bytes(cfg, "primal") <= available:
        hints.append("engine = primal")
    raise DataError(
        f"memory: expected a run of at most {available / GIB:.2f} GiB ({where}), got "
        f"{needed / GIB:.2f} GiB with engine {engine} at n = {cfg.n}, d = {cfg.d}, m = {cfg.m}; "
        f"take {' or '.join(hints)}"
    )


def free_gpu_bytes() -> int:
    """What the GPU has free, and what torch holds there without need."""
    unused = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    return int(torch.cuda.mem_get_info()[0]) + unused


__all__ = ["check_memory", "flop", "free_gpu_bytes", "memory_bytes"]
