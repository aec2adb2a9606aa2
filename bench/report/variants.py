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
    told = (
        "Runs of Figure 1's size, float32, data given, medians; of gram 16 side by side. "
        "Orthogonal data have n + m + 1 = 151 coordinates in place of 2000, so eager does a "
        "thirteenth of the products with the data."
    )
    return f"{wrap(told)}\n\n{table(heads, lines)}\n\n{source(rows[0])}"


def variant_sweeps_table() -> str:
    """Sweeps of each option, beside those of the paper's model."""
    rows = latest(RESULTS / "cpu.jsonl", "variant_sweeps")
    lines = [
        [
            row["settings"]["option"],
            f"{row['cpu_ms_per_run']['p50']:.1f}",
            f"{row['runs_per_s']:.0f}",
            f"{row['of_papers_rate']:.2f}",
            f"{row['of_papers_flop']:.2f}",
            f"{row['rate_per_flop']:.2f}",
        ]
        for row in rows
    ]
    runs = rows[0]["settings"]["runs"]
    told = (
        f"Sweeps of {runs} runs of Figure 1's size by one worker, data drawn, evaluated every 20 "
        "epochs, written. CPU time of a run without the worker's start; runs/s of the whole sweep "
        "by the clock, its start included. Rate: by CPU time, over that of the paper's model of "
        "the same modality. Operations: products of the epochs, inner products, embeddings, and "
        "the Newton steps of a head a class."
    )
    ratios = ["rate / paper's", "operations / paper's", "rate per operation / paper's"]
    heads = ["", "CPU ms a run", "runs/s", *ratios]
    return "\n\n".join((wrap(told), table(heads, lines), source(rows[0], "one worker")))


__all__ = ["gram_variants_table", "variant_sweeps_table", "variants_table"]
