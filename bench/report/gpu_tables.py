"""Markdown of the tables of GPU results: `bench/results/gpu.jsonl`, by `bench.gpu`.

What was not measured is a dash, and its reason stands below the table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..gpu.runner import rows_of
from .tables import MISSING, RESULTS, number, table, without_empty_columns, wrap

GPU = RESULTS / "gpu.jsonl"
COMMAND = "python -m bench.gpu --out bench/results/gpu.jsonl"
OURS = "mmcl_fast"
LOSS_PEERS = ("dense", "linear_cross_entropy", "dense, compiled")
HOST = "†"
HOST_NOTE = f"{HOST} The host needs as long to issue a step: its time, and not the GPU's, is shown."
Row = dict[str, Any]


def last_rows(op: str) -> tuple[list[Row], str]:
    """Rows of an operation in the latest run that has any, or none and a sentence why."""
    rows = [row for row in rows_of(GPU) if not row.get("dry_run")]
    of_op = [row for row in rows if row["op"] == op]
    if of_op:
        last = max(row["date"] for row in of_op)
        return [row for row in of_op if row["date"] == last], ""
    steps = [row for row in rows if row["op"] == "step" and row["variant"] == op]
    if not steps:
        return [], wrap(f"Nothing has been measured on a GPU yet; `{COMMAND}` does it.")
    step = max(steps, key=lambda row: row["date"])
    why = f"{step['status']}, {step.get('reason', 'without a row')}"
    return [], wrap(f"Nothing was measured: {why}.") + "\n\n" + source(step)


def beside(rows: Sequence[Row], op: str) -> list[Row]:
    """Rows of another operation in the same run."""
    found = [row for row in rows_of(GPU) if row["op"] == op and row["date"] == rows[0]["date"]]
    return [row for row in found if not row.get("dry_run")]


def source(row: Mapping[str, Any]) -> str:
    """Where a number comes from, in a sentence."""
    state = " (with uncommitted changes)" if row["dirty"] else ""
    versions = ", ".join(f"{p} {row['versions'].get(p)}" for p in ("torch", "triton"))
    return wrap(
        f"{row['device']['gpu']}, {versions}, commit {(row['commit'] or 'unknown')[:10]}{state}, "
        f"{row['date'][:10]}: `{row['command']}`."
    )


def milliseconds(row: Mapping[str, Any]) -> str:
    """Median, marked where the host is what was measured."""
    if "ms" not in row:
        return MISSING
    value = row["ms"]["p50"]
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f}" + (f" {HOST}" if row.get("host_bound") else "")


def ratio(peer: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """How many times faster ours is; below 1 the peer is faster."""
    if "ms" not in peer or "ms" not in ours:
        return MISSING
    return f"{peer['ms']['p50'] / ours['ms']['p50']:.2f}"


def notes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the marks mean, and once for each reason what was not measured."""
    lines = not_measured(rows)
    if red := dict.fromkeys(name for row in rows for name in row.get("red", ())):
        lines.append(f"Red in this run, see bench/README.md: {', '.join(f'`{x}`' for x in red)}.")
    return [wrap(text.replace("|", "/").replace("..", ".")) for text in lines]


def not_measured(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence for each reason and, unless both were left out for it, each modality."""
    left_out: dict[tuple[str, str], dict[str, None]] = {}  # by reason and variant: modalities
    for row in rows:
        if "skipped" in row:
            modality = row["settings"].get("modality", "")
            why = in_words(row["skipped"], row.get("versions", {}))
            left_out.setdefault((why, row["variant"]), {})[modality] = None
    groups: dict[tuple[str, str], list[str]] = {}
    for (why, variant), modalities in left_out.items():
        modality = "" if len(modalities) > 1 else next(iter(modalities))
        groups.setdefault((why, f", {modality}-modal" if modality else ""), []).append(variant)
    return [f"Not measured{of}: {'; '.join(names)}: {why}." for (why, of), names in groups.items()]


def in_words(why: str, versions: Mapping[str, str]) -> str:
    """Why a peer was not measured, as a reader would say it."""
    found = re.fullmatch(r"AttributeError: module '([\w.]+)' has no attribute '(\w+)'", why)
    if not found:
        return why
    package = found[1].partition(".")[0]
    return f"{package} {versions.get(package, 'there')} has no `{found[1]}.{found[2]}`"


def page(
    text: str, head: Sequence[str], lines: Sequence[Sequence[str]], rows: Sequence[Row]
) -> str:
    """A block: what is shown, the table, its notes, and where it comes from."""
    shown = table(head, lines)
    host = [wrap(HOST_NOTE)] if f" {HOST}" in shown else []
    return "\n\n".join((wrap(text), shown, *host, *notes(rows), source(rows[0])))


def sides(rows: Sequence[Row]) -> dict[tuple[Any, ...], dict[str, Row]]:
    """Rows by variant and size, and in it by modality."""
    by_size: dict[tuple[Any, ...], dict[str, Row]] = {}
    for row in rows:
        settings = row["settings"]
        size = settings.get("runs") or settings["n"]
        by_size.setdefault((row["variant"], size), {})[settings["modality"]] = row
    return by_size


def gpu_trajectory() -> str:
    """Whole runs of the paper's size, by the thousand."""
    rows, why = last_rows("trajectory")
    if not rows:
        return why
    gates = beside(rows, "gate_trajectory")
    errors = {(row["variant"], row["settings"]["modality"]): row for row in gates}
    modalities = ("single", "multi")
    lines = []
    for (variant, runs), by_modality in sides(rows).items():
        cells = [variant, f"{runs:,}"]
        for modality in modalities:
            row, peer = by_modality.get(modality, {}), _best_peer(rows, variant, modality)
            host = f" {HOST}" if row.get("host_bound") else ""
            cells.append(number(row, "runs_per_s", ",.0f") + host)
            ours = peer and "runs_per_s" in row
            cells.append(f"{row['runs_per_s'] / peer:.2f}" if ours else MISSING)
            cells.append(number(errors.get((variant, modality), {}), "error", ".0e"))
        lines.append(cells)
    head = ["", "runs"]
    for modality in modalities:
        head += [f"{modality}-modal, runs/s", "× best peer", "loss error"]
    text = (
        "Runs of Figure 1's size (n = 100, m = 50, 200 epochs, float32, reduced data) on one GPU: "
        "`triton` with inner products given, by precision of its products; `train_many` in batches "
        "of up to 1,056, from the configs to the curves, data drawn included. *× best peer*: of "
        "those in float32, data given; for rows of tf32 of all. Below 1 a peer is faster. Loss "
        "error: largest over the epochs against float64, by the first loss."
    )
    return page(text, head, lines, rows)


def _best_peer(rows: Sequence[Row], variant: str, modality: str) -> float | None:
    """Runs a second of the quickest peer of no lower precision than a variant."""
    low = "tf32"
    candidates = [
        row["runs_per_s"]
        for row in rows
        if not row["variant"].startswith(("triton", "train_many"))
        and row["settings"]["modality"] == modality
        and "runs_per_s" in row
        and (variant.endswith(low) or not row["variant"].endswith(low))
    ]
    return max(candidates, default=None)


def gpu_gram() -> str:
    """Runs too large for one program: an epoch replayed and launched."""
    rows, why = last_rows("gram")
    if not rows:
        return why
    cases: dict[tuple[int, int, int], dict[str, Row]] = {}
    for row in rows:
        key = tuple(row["settings"][name] for name in ("n", "m", "runs"))
        cases.setdefault(key, {})[row["variant"]] = row  # type: ignore[arg-type]
    first, *others = dict.fromkeys(row["variant"] for row in rows)
    lines = [
        [f"{n:,}", f"{m:,}", f"{runs}", number(variants.get(first, {}), "ms_per_epoch", ".3f")]
        + [
            cell
            for name in others
            for cell in (
                number(variants.get(name, {}), "ms_per_epoch", ".3f"),
                ratio(variants.get(name, {}), variants.get(first, {})),
            )
        ]
        for (n, m, runs), variants in cases.items()
        if any("ms" in row for row in variants.values())
    ]
    head = ["n", "m", "runs", f"{first}, ms an epoch"]
    for name in others:
        head += [f"{name}, ms an epoch", "× as long"]
    text = (
        "An epoch of single-modal runs side by side in the gram engine, as one CUDA graph and as "
        "launches of the same kernels, whose bits it has; in float32, data given. A size that is "
        "missing was not reached in time."
    )
    return page(text, *without_empty_columns(head, lines), rows)


def gpu_primal() -> str:
    """A training step on the weights at scale."""
    rows, why = last_rows("primal")
    if not rows:
        return why
    products = beside(rows, "primal_product")
    rate = next((row["tflops"] for row in products if "tflops" in row), None)
    by_variant = sides(rows)
    lines = []
    for (variant, n), by_modality in by_variant.items():
        cells = [variant, f"{n:,}"]
        for modality in ("single", "multi"):
            row = by_modality.get(modality, {})
            peers = [
                other[modality]["ms"]["p50"]
                for (name, size), other in by_variant.items()
                if size == n and not name.startswith("primal") and "ms" in other.get(modality, {})
            ]
            fastest = {"ms": {"p50": min(peers)}} if peers else {}
            cells += [milliseconds(row), number(row, "of_product_rate", ".0%")]
            cells += [ratio(fastest, row), number(row, "peak_mib", ",.0f")]
        lines.append(cells)
    head = ["", "n"]
    for modality in ("single", "multi"):
        head += [f"{modality}-modal, ms a step", "of the product's rate", "× fastest peer", "MiB"]
    settings = rows[0]["settings"]
    measured = f" ({rate:,.0f} TFLOP/s)" if rate else ""
    text = (
        f"One full-batch step at d = {settings['d']:,}, m = {settings['m']:,}, data and float32 "
        "weights given; TF32 is off. *Of the product's rate*: the products that the step cannot do "
        f"without, at the rate of a plain bfloat16 product of 8192^3{measured}, over the time "
        "taken. *× fastest peer*: of autograd and torch.compile in either precision; below 1 it is "
        "faster. MiB: memory above data and weights."
    )
    return page(text, head, lines, rows)


def gpu_loss() -> str:
    """The losses against dense autograd, torch's chunked cross-entropy and torch.compile."""
    rows, why = last_rows("loss")
    if not rows:
        return why
    cases: dict[tuple[str, int, int], dict[str, Row]] = {}
    for row in rows:
        key = tuple(row["settings"][name] for name in ("loss", "n", "d"))
        cases.setdefault(key, {})[row["variant"]] = row  # type: ignore[arg-type]
    lines = []
    for (name, n, d), variants in cases.items():
        ours = variants.get(OURS, {})
        others = [variants.get(peer, {}) for peer in LOSS_PEERS]
        lines.append(
            [
                f"{name}, N = {n:,}, D = {d}",
                milliseconds(ours),
                *(ratio(peer, ours) for peer in others),
                number(ours, "peak_mib", ",.0f"),
                *(number(peer, "peak_mib", ",.0f") for peer in others),
            ]
        )
    names = ["dense", "`linear_cross_entropy`", "dense, compiled"]
    head = ["bfloat16, forward + backward", "ms", *(f"× {name}" for name in names)]
    head += ["peak MiB: ours", *names]
    chunked = any(line[3] != MISSING for line in lines)
    third = ", than `torch.nn.functional.linear_cross_entropy`" if chunked else ""
    text = (
        "Times faster than dense autograd (for the symmetric loss the form of open_clip's "
        f"`ClipLoss`){third} and than the dense form through `torch.compile`; below 1 the other is "
        "faster, and a dash is a size that the other was not given. Memory above the inputs."
    )
    return page(text, *without_empty_columns(head, lines), rows)


def gpu_data() -> str:
    """Normals of the stream against torch's, which are no function of their place."""
    rows, why = last_rows("data")
    if not rows:
        return why
    torchs = next((row for row in rows if row["variant"] == "torch normal_"), {})
    lines = [
        [row["variant"], number(row, "gnumbers_per_s", ",.0f"), ratio(torchs, row)] for row in rows
    ]
    text = f"{rows[0]['settings']['numbers']:,} float32 numbers into a given array:"
    return page(text, ["", "G/s", "× torch normal_"], lines, rows)


__all__ = ["GPU", "gpu_data", "gpu_gram", "gpu_loss", "gpu_primal", "gpu_trajectory"]
__all__ += ["last_rows", "source"]
