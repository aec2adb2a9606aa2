"""Markdown of the table of model variants."""

from __future__ import annotations

from .tables import RESULTS, latest, source, table, wrap


def gram_variants_table() -> str:
    """What only the engine gram trains of model variants, against eager PyTorch."""
    rows = latest(RESULTS / "cpu.jsonl", "gram_variants")
    lines = [
        [
            row["settings"]["option"],
            row["variant"],
            f"{row['cpu_ms_per_run']['p50']:.1f}",
            f"{row['least_ms_per_run']:.1f}",
            f"{row['times_eager']:.2f}",
            f"{row['flop_ratio']:.2f}",
        ]
        for row in rows
    ]
    text = (
        "Runs of Figure 1's size (n = 100, d = 2000, m = 50, 200 epochs, float32), data given; of "
        "gram 16 side by side. Times faster than eager PyTorch autograd of the same model, and the "
        "products of an epoch over those of the paper's model:"
    )
    head = ["", "", "CPU ms a run, median", "least", "× eager", "products"]
    return "\n\n".join((wrap(text), table(head, lines), source(rows[0])))


__all__ = ["gram_variants_table"]
