"""Renders every table of numbers in the documents from results files: python -m bench.report.

A table stands between `<!-- NAME -->` and `<!-- /NAME -->`, each alone on its line; nothing between
them is written by hand. With --check nothing is written and the exit status says whether the
documents are current.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..cpu.choices import CHOICES
from .findings import (
    claims_table,
    coverage_table,
    figure1_table,
    phase_table,
    readings_table,
    theory_table,
)
from .gpu_prepared import gpu_long, gpu_sweep, gpu_typical
from .gpu_tables import gpu_data, gpu_gram, gpu_loss, gpu_primal, gpu_trajectory
from .headline import headline_table
from .sweeps import run_cost_table, sweep_resume_table, sweep_scale_table, sweep_table
from .table1 import (
    table1_accountings,
    table1_claims,
    table1_colours,
    table1_grid_tables,
    table1_table,
)
from .tables import MISSING, RESULTS, latest, number, source, table, wrap
from .variants import gram_variants_table, variant_sweeps_table, variants_table

ROOT = Path(__file__).resolve().parents[2]
CPU = RESULTS / "cpu.jsonl"
DOCUMENTS = (
    "README.md",
    "bench/README.md",
    "docs/benchmarks.md",
    "docs/claims.md",
    "docs/paper.md",
    "docs/phase.md",
    "docs/table1.md",
)
STARTUP = {
    "mmcl --help": "`mmcl --help`",
    "import torch": "`import torch`, for comparison",
    "mmcl_fast added to torch": "`import mmcl_fast` in addition",
    "mmcl figure1 --seeds 10": "`mmcl figure1 --seeds 10`",
}


def last_run(*ops: str) -> list[dict[str, Any]]:
    """Rows of the latest run of these operations, in their order."""
    return latest(CPU, *ops)


def train_table() -> str:
    """Training at the paper's size against JAX and eager PyTorch."""
    rows = last_run("train")
    variants: dict[str, dict[str, Any]] = {}
    for row in rows:
        variants.setdefault(row["variant"], {})[row["settings"]["modality"]] = row
    ratios = {"times_jax": "× JAX", "times_eager": "× eager", "times_textbook": "× textbook"}
    lines = []
    for variant, sides in variants.items():
        cells = [variant]
        for modality in ("single", "multi"):
            row = sides[modality]
            cells.append(f"{row['cpu_ms_per_run']['p50']:.1f}")
            cells += [number(row, key, ".2f") for key in ratios]
        lines.append([*cells, f"{sides['single']['max_abs_loss_error']:.1e}"])
    single, multi = ([f"{m}-modal, ms a run", *ratios.values()] for m in ("single", "multi"))
    text = (
        "One run of Figure 1's size (n = 100, d = 2000, m = 50, 200 epochs, float32), inner "
        "products included, data given. Times faster than a JAX jit + scan, than eager PyTorch "
        "without waste and than the paper's equations in eager PyTorch:"
    )
    error = "largest loss error (single)"
    return "\n\n".join((wrap(text), table(["", *single, *multi, error], lines), source(rows[0])))


def data_table() -> str:
    """Normals against other generators, Gram matrices, and two threads against one."""
    rows = last_run("normals", "scaling", "gram")
    normals, scaling, gram = (
        [row for row in rows if row["op"] == op] for op in ("normals", "scaling", "gram")
    )
    variants: dict[str, dict[int, Any]] = {}
    for row in normals:
        name = "MKL, best method" if row["variant"].startswith("MKL") else row["variant"]
        variants.setdefault(name, {})[row["settings"]["values"]] = row
    columns = {
        "giga_per_s": ("G/s", ".2f"),
        "times_numpy": ("× numpy", ".2f"),
        "times_torch": ("× torch", ".2f"),
        "times_mkl": ("× MKL", ".2f"),
        "of_memset": ("of memset", ".0%"),
    }
    head, lines = [""], [[name] for name in variants]
    for size in dict.fromkeys(row["settings"]["values"] for row in normals):
        names = [name for name, _ in columns.values()]
        head += [f"{size / 2**20:g}M: {names[0]}", *names[1:]]
        for cells, sides in zip(lines, variants.values(), strict=True):
            cells += [number(sides[size], key, form) for key, (_, form) in columns.items()]
    n, d = (gram[0]["settings"][k] for k in ("n", "d"))
    products = (
        (
            row["variant"],
            f"{row['cpu_ms']['p50']:.3g}",
            f"{row['of_best_bare']:.3g}",
            f"{row['times_streaming']:,.4g}",
        )
        for row in gram
    )
    threads = ", ".join(
        f"{row['variant']} {row['gain']:.2f} times as fast (the CPU time of both would allow "
        f"{row['gain_bound']:.2f})"
        for row in scaling
    )
    peers = [row["variant"] for row in normals if row["variant"].startswith("MKL")]
    best = f"; the best of MKL: {', '.join(dict.fromkeys(peers))}" if peers else ""
    parts = (
        wrap(f"Float32 normals into a given buffer, CPU time{best}:"),
        table(head, lines),
        wrap(f"Gram matrix of {n} rows of noise, d = {d:,}; the last two make their data:"),
        table(["", "CPU ms", "of the best bare product", "× streaming_gram"], products),
        wrap(f"Two threads against one, wall time: {threads}."),
        source(rows[0]),
    )
    return "\n\n".join(parts)


def loss_table() -> str:
    """The losses against dense autograd, torch's chunked cross-entropy and torch.compile."""
    rows = last_run("loss")
    cases: dict[tuple[str, int, int], list[dict[str, Any]]] = {}
    for row in rows:
        settings = row["settings"]
        cases.setdefault((settings["loss"], settings["n"], settings["d"]), []).append(row)
    peers = ("dense", "linear_cross_entropy", "dense, compiled")
    lines, untimed = [], []
    for (name, n, d), (ours, *others) in cases.items():
        if "cpu_ms" not in ours:
            untimed.append(f"{name}, N = {n:,}, D = {d} (peak {ours['peak_mib']:,.0f} MiB)")
            continue
        peaks = {row["variant"]: f"{row['peak_mib']:,.0f}" for row in others}
        lines.append(
            [
                f"{name}, N = {n:,}, D = {d}",
                f"{ours['cpu_ms']['p50']:.1f}",
                *(number(ours, f"times {peer}", ".2f") for peer in peers),
                number(ours, "of_product_rate", ".0%"),
                f"{ours['peak_mib']:,.0f}",
                *(peaks.get(peer, MISSING) for peer in peers),
                f"{ours['saved_mib']:,.1f}",
            ]
        )
    head = ["float32, forward + backward", "ms", "× dense", "× `linear_cross_entropy`"]
    head += ["× dense, compiled", "of the product's rate", "peak MiB: ours", "dense"]
    head += ["`linear_cross_entropy`", "compiled", "autograd keeps, MiB"]
    text = (
        "Times faster than dense autograd (for the symmetric loss the form of open_clip's "
        "`ClipLoss`), than `torch.nn.functional.linear_cross_entropy` and than the dense form "
        "through `torch.compile`; memory above the inputs. *Of the product's rate*: the matrix "
        "products of [Performance](performance.md), scores held or not, at this machine's best "
        "rate, over the time taken."
    )
    memory = [wrap(f"Memory alone was measured of: {'; '.join(untimed)}.")] if untimed else []
    dashes = wrap("A dash: that library has no such loss, or was not given this size.")
    parts = (wrap(text), table(head, lines), dashes, *memory, source(rows[0]))
    return "\n\n".join(parts)


def small_loss_table() -> str:
    """Small batches: a step and an evaluation, against the dense form."""
    rows = last_run("small_loss")
    cells: dict[tuple[str, int, int], dict[str, str]] = {}
    for row in rows:
        if row["variant"] != "mmcl_fast":
            continue
        settings = row["settings"]
        key = settings["loss"], settings["d"], settings["n"]
        text = f"{row['cpu_us']['p50']:.0f} µs, {row['times dense']:.2f}"
        cells.setdefault(key, {})[settings["kind"]] = text
    sizes = sorted({n for _, _, n in cells})
    lines = [
        [f"{loss}, D = {d}, {kind}", *(cells[loss, d, n][kind] for n in sizes)]
        for loss, d in dict.fromkeys(key[:2] for key in cells)
        for kind in ("step", "evaluation")
    ]
    text = (
        "CPU time of one call and how many times faster that is than the dense form (below 1: "
        "slower), in batches of N. *Step*: forward and backward; the temperature learns where the "
        "loss of this row has one. *Evaluation*: under `no_grad`."
    )
    head = ["float32, one thread", *(f"N = {n}" for n in sizes)]
    return "\n\n".join((wrap(text), table(head, lines), source(rows[0])))


def primal_table() -> str:
    """A training step on the weights at scale, against eager PyTorch and torch.compile."""
    rows = last_run("primal")
    variants: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        variants.setdefault(row["variant"], {})[row["settings"]["modality"]] = row
    peers = {f"times {name}": f"× {name}" for name in variants if not name.startswith("primal")}
    lines = []
    for variant, sides in variants.items():
        cells = [variant]
        for modality in ("single", "multi"):
            row = sides[modality]
            cells += [f"{row['cpu_ms']['p50']:.0f}", f"{row['of_product_rate']:.0%}"]
            cells += [*(f"{row[key]:.2f}" for key in peers), f"{row['peak_mib']:.0f}"]
        lines.append(cells)
    head = [""]
    for modality in ("single", "multi"):
        head += [f"{modality}-modal, ms a step", "of the product's rate", *peers.values(), "MiB"]
    n, d, m = (rows[0]["settings"][k] for k in "ndm")
    best = max(rate for row in rows for rate in row["product_gflop_s"].values())
    rounded = max(row["max_abs_loss_error"] for row in variants["primal, bf16"].values())
    text = (
        f"One full-batch step at n = {n:,}, d = {d:,}, m = {m}, float32, data given. *Of the "
        "product's rate*: the products that the step cannot do without "
        "([Performance](performance.md)) at "
        f"the best measured rate of a plain product ({best:.0f} GFLOP/s), over the time taken. "
        "MiB: memory that a step adds to its data and initial weights. With bf16 products, quicker "
        "than those of float32, the rate passes 100%; the losses of three steps are then off by "
        f"{rounded:.0e}."
    )
    return "\n\n".join((wrap(text), table(head, lines), source(rows[0])))


def startup_table() -> str:
    """What a user waits for."""
    rows = last_run("startup")
    wall_ms = {row["variant"]: row["wall_ms"] for row in rows}
    lines = []
    for name, title in STARTUP.items():
        digits = 1 if wall_ms[name]["p50"] > 1e4 else 2
        cells = (f"{wall_ms[name][q] / 1e3:.{digits}f}" for q in ("p50", "p20", "p80"))
        lines.append([title, *cells])
    head = ["wall time, s", "median", "20 %", "80 %"]
    return "\n\n".join((table(head, lines), source(rows[0], f"{rows[0]['cores']} CPUs")))


def choices_table() -> str:
    """Alternatives that the code did not take."""
    rows = last_run("choices")
    where = {choice.name: choice.where for choice in CHOICES}  # today, not when it was measured
    lines = [
        [
            row["settings"]["choice"],
            row["variant"],
            f"{row['cpu_ms']['p50']:.3g}",
            f"{row['times_ours']:.2f}",
            f"`{where[row['settings']['choice']]}`",
        ]
        for row in rows
    ]
    head = ["choice", "variant, the code's first", "CPU ms", "× the code's", "where"]
    return "\n\n".join((table(head, lines), source(rows[0])))


TABLES: dict[str, Callable[[], str]] = {
    "headline": headline_table,
    "figure1": figure1_table,
    "claims": claims_table,
    "table1": table1_table,
    "table1_accountings": table1_accountings,
    "table1_claims": table1_claims,
    "table1_colours": table1_colours,
    "table1_grid": table1_grid_tables,
    "theory": theory_table,
    "coverage": coverage_table,
    "readings": readings_table,
    "phase": phase_table,
    "train": train_table,
    "loss": loss_table,
    "small_loss": small_loss_table,
    "primal": primal_table,
    "gpu_trajectory": gpu_trajectory,
    "gpu_gram": gpu_gram,
    "gpu_primal": gpu_primal,
    "gpu_loss": gpu_loss,
    "gpu_typical": gpu_typical,
    "gpu_long": gpu_long,
    "gpu_sweep": gpu_sweep,
    "gpu_data": gpu_data,
    "sweep": sweep_table,
    "sweep_scale": sweep_scale_table,
    "sweep_resume": sweep_resume_table,
    "run_cost": run_cost_table,
    "data": data_table,
    "startup": startup_table,
    "choices": choices_table,
    "gram_variants": gram_variants_table,
    "variant_sweeps": variant_sweeps_table,
    "variants": variants_table,
}


def render(text: str) -> str:
    """A document with its tables made anew."""

    def made(match: re.Match[str]) -> str:
        name = match[1]
        return f"<!-- {name} -->\n{TABLES[name]()}\n<!-- /{name} -->"

    return re.sub(r"<!-- (\w+) -->\n.*?<!-- /\1 -->", made, text, flags=re.DOTALL)


def main() -> int:
    """Command line; with --check, 1 if a document is out of date."""
    parser = argparse.ArgumentParser(
        prog="bench.report", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    stale = []
    for name in DOCUMENTS:
        path = ROOT / name
        old = path.read_text(encoding="utf-8")
        if (new := render(old)) != old:
            stale.append(name)
            if not check:
                path.write_text(new, encoding="utf-8")
    print(("out of date: " if check else "rewritten: ") + (", ".join(stale) or "none"))
    return 1 if check and stale else 0


__all__ = ["render"]

if __name__ == "__main__":
    sys.exit(main())
