"""Markdown of the tables of sweeps: end to end, at scale, and the predicted times of runs."""

from __future__ import annotations

import json

from .tables import MISSING, RESULTS, latest, source, table, wrap

CPU = RESULTS / "cpu.jsonl"


def sweep_table() -> str:
    """Sweeps end to end, and a query of a large store."""
    rows, (query,) = latest(CPU, "sweep"), latest(CPU, "sweep_query")
    alone = {
        row["settings"]["modality"]: row["runs_per_s"]
        for row in rows
        if row["settings"]["workers"] == 1
    }
    lines = []
    for row in rows:
        modality, workers = row["settings"]["modality"], row["settings"]["workers"]
        lines.append(
            [
                f"{modality}-modal, {workers} worker{'s' * (workers > 1)}",
                f"{row['settings']['runs']:,}",
                f"{row['seconds']:.1f}",
                f"{row['runs_per_s']:.0f}",
                f"{row['runs_per_s'] / alone[modality]:.2f}",
                f"{row['engine_share']:.0%}",
                f"{row['bytes_per_run']:,}",
            ]
        )
    head = [
        "",
        "runs",
        "s",
        "runs/s",
        "× one worker",
        "of the cores' time in training",
        "bytes a run",
    ]
    text = (
        "Sweeps of runs of Figure 1's size (n = 100, d = 2000, m = 50, 200 epochs), reduced data, "
        "evaluated every 20 epochs, wall time from the plan to the last Parquet file, start of "
        f"the workers included. A grouped mean over {query['settings']['rows']:,} rows in "
        f"{query['parts']:,} files takes {query['seconds']:.2f} s."
    )
    return "\n\n".join(
        (wrap(text), table(head, lines), source(rows[0], f"{rows[0]['cores']} CPUs"))
    )


def sweep_scale_table() -> str:
    """Sweeps at scale, beside an earlier commit."""
    now = {row["variant"]: row for row in latest(CPU, "sweep_scale")}
    earlier = {row["variant"]: row for row in latest(CPU, "sweep_scale_before")}
    lines = []
    for case, row in now.items():
        before = earlier[case]["measured"] if case in earlier else {}
        for k, (name, value) in enumerate(row["measured"].items()):
            cells = [f"{before[name]:g}" if name in before else MISSING, f"{value:g}"]
            lines.append([case if k == 0 else "", name, *cells])
    text = (
        "Seconds of the processor without imports, as the machine was shared; runs/s of two "
        "workers that have a core each, by the processor's seconds and without their start. "
        "–: not measured."
    )
    tables = table(["", "", "before", "now"], lines)
    sources = [source(next(iter(rows.values()))) for rows in (earlier, now)]
    return "\n\n".join((wrap(text), tables, f"Before: {sources[0]}", f"Now: {sources[1]}"))


def sweep_resume_table() -> str:
    """Commands on large plans, beside an earlier commit."""
    rows, earlier = latest(CPU, "sweep_resume"), latest(CPU, "sweep_resume_before")
    before = {row["variant"]: row for row in earlier}
    lines = []
    for row in rows:
        for name in ("seconds", "peak, GiB"):
            title = f"{row['variant']} ({row['settings']['runs']:,} runs)"
            cells = [f"{each[name]:.3g}" for each in (before[row["variant"]], row)]
            lines.append([title if name == "seconds" else "", name, *cells])
    text = (
        "Whole commands: processor seconds of the command and its workers, of which the import of "
        "torch takes more than one in each process, and the command's memory. The store that is "
        f"resumed has {rows[-1]['settings']['parts']:,} parts."
    )
    tables = table(["", "", "before", "now"], lines)
    sources = [source(each[0]) for each in (earlier, rows)]
    return "\n\n".join((wrap(text), tables, f"Before: {sources[0]}", f"Now: {sources[1]}"))


def run_cost_table() -> str:
    """Predicted times of runs, beside an earlier commit's."""
    rows = [row for row in latest(CPU, "run_cost") if not row["fit"]]
    earlier = latest(CPU, "run_cost_before")
    ratio = "predicted over measured"
    before = {json.dumps(row["settings"]): f"{row[ratio]:.2f}" for row in earlier}
    lines = []
    for row in rows:
        of = row["settings"]
        cells = [row["variant"], *(f"{of[name]:,}" for name in ("n", "m", "epochs"))]
        cells.append(f"{of['every']}" if of["every"] else "never")
        cells += [f"{row['seconds']:.2g}", before.get(json.dumps(of), MISSING)]
        lines.append([*cells, f"{row[ratio]:.2f}"])
    text = (
        "Time of a run on a core whose neighbours are busy, and what `core_seconds` predicts, from "
        "which Slurm's time limits come (times 2) and the cut into shards. Of these runs only the "
        "smallest of gram was among those to which its constants were fitted."
    )
    head = ["engine", "n", "m", "epochs", "evaluated each", "CPU s", "predicted ×, before", "now"]
    sources = [source(rows[0]) for rows in (earlier, rows)]
    tables = table(head, lines)
    return "\n\n".join((wrap(text), tables, f"Before: {sources[0]}", f"Now: {sources[1]}"))


__all__ = ["run_cost_table", "sweep_resume_table", "sweep_scale_table", "sweep_table"]
