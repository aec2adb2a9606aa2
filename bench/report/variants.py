"""Markdown of the table of model variants."""

from __future__ import annotations

from typing import Any

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


def variants_table() -> str:
    """What native trains, against eager PyTorch and the paper's model in the same run."""
    rows = latest(RESULTS / "cpu.jsonl", "variants")
    options: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        options.setdefault(row["settings"]["option"], {})[row["variant"]] = row
    lines = []
    for option, of in options.items():
        native, gram, textbook = of["native"], of["gram, 16 runs"], of["eager, textbook"]
        eager = native["times_eager"]
        lines.append(
            [
                option,
                f"{native['cpu_ms_per_run']['p50']:.1f}",
                f"{eager:.1f}",
                f"{eager / textbook['times_eager']:.1f}",
                f"{gram['times_eager']:.1f}",
                f"{native['of_papers_time']:.2f}",
                f"{native['of_papers_flop']:.2f}",
            ]
        )
    heads = [
        "",
        "native, CPU ms a run",
        "native × tuned eager",
        "native × eager as the equations stand",
        "gram × tuned eager",
        "native's time / paper's model",
        "products / paper's model",
    ]
    told = "Runs of Figure 1's size, float32, data given, medians; of gram 16 side by side."
    return f"{wrap(told)}\n\n{table(heads, lines)}\n\n{source(rows[0])}"


__all__ = ["gram_variants_table", "variants_table"]
