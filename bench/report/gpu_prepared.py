"""Markdown of the tables of what `bench.gpu` times and no default is, and of sweeps on a GPU."""

from __future__ import annotations

from collections.abc import Sequence

from .gpu_tables import OURS, Row, beside, last_rows, milliseconds, page, ratio
from .tables import MISSING, number, without_empty_columns

SMALL, PIPELINED = f"{OURS}, small batch", f"{OURS}, pipelined"
TYPICAL = (OURS, SMALL, "dense", "dense, compiled")
REPLAYS = (f"{SMALL}, captured", "dense, captured")


def gpu_typical() -> str:
    """Losses of typical batches: time of a step, and of the host to issue it."""
    rows, why = last_rows("typical")
    if not rows:
        return why
    lines = []
    for (n, d), variants in _by_size(rows).items():
        found = [variants.get(name, {}) for name in TYPICAL]
        replays = [milliseconds(variants.get(name, {})) for name in REPLAYS]
        cells = [(milliseconds(row), number(row, "enqueue_ms", ".3f")) for row in found]
        lines.append([f"{n:,}", f"{d:,}", *(x for cell in cells for x in cell), *replays])
    head = ["N", "D"]
    for name in TYPICAL:
        head += [f"{name}, ms", "enqueued in"]
    text = (
        "The symmetric loss in bfloat16, forward and backward: by default, the small-batch form, "
        "dense autograd, and that through `torch.compile`; *enqueued in*: the host's time to issue "
        "a step. Replayed: the same captured in a CUDA graph, which needs no host."
    )
    head += [f"{name}, ms" for name in REPLAYS]
    return page(text, *without_empty_columns(head, lines), rows)


def gpu_long() -> str:
    """Losses of long features beyond what is kept, by both forms."""
    rows, why = last_rows("long")
    if not rows:
        return why
    lines = []
    for (n, d), variants in _by_size(rows).items():
        ours, other = (variants.get(name, {}) for name in (OURS, PIPELINED))
        peaks = [number(row, "peak_mib", ",.0f") for row in (ours, other)]
        lines.append([f"{n:,}", f"{d:,}", milliseconds(ours), milliseconds(other),
                      ratio(ours, other), *peaks])  # fmt: skip
    head = ["N", "D", "by default, ms", "pipelined, ms", "× as fast", "peak MiB", "pipelined"]
    text = "The symmetric loss in bfloat16, forward and backward, by both forms."
    return page(text, *without_empty_columns(head, lines), rows)


def gpu_sweep() -> str:
    """Sweeps from the command line to the last Parquet file."""
    rows, why = last_rows("sweep")
    if not rows:
        return why
    kernel = [
        row["runs_per_s"] for row in beside(rows, "trajectory")
        if row["variant"] == "triton, ieee" and row["settings"].get("modality") == "single"
        and "runs_per_s" in row
    ]  # fmt: skip
    lines = []
    for row in rows:
        share = MISSING
        if kernel and "runs_per_s" in row:
            share = f"{row['runs_per_s'] / kernel[0]:.0%}"
        settings = row["settings"]
        seconds, rate = number(row, "seconds", ".1f"), number(row, "runs_per_s", ",.0f")
        runs, workers = f"{settings['runs']:,}", f"{settings['workers']}"
        lines.append([row["variant"], runs, workers, seconds, rate, share])
    head = ["", "runs", "workers", "s", "runs/s", "of the kernel's rate"]
    text = (
        "`mmcl sweep --device cuda` at Figure 1's size, single-modal, reduced data, accuracy every "
        "20 epochs, wall time of the whole command; *beyond its start*: the difference of both "
        "sizes."
    )
    return page(text, *without_empty_columns(head, lines), rows)


def _by_size(rows: Sequence[Row]) -> dict[tuple[int, int], dict[str, Row]]:
    """Rows by N and D, and by variant."""
    sizes: dict[tuple[int, int], dict[str, Row]] = {}
    for row in rows:
        size = row["settings"]["n"], row["settings"]["d"]
        sizes.setdefault(size, {})[row["variant"]] = row
    return dict(sorted(sizes.items(), key=lambda item: item[0][::-1]))


__all__ = ["gpu_long", "gpu_sweep", "gpu_typical"]
