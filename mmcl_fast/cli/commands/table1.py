"""`mmcl table1`: ColoredMNIST, every arm over seeds, beside the paper's numbers."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from mmcl_fast.config import Device
from mmcl_fast.data.mnist.download import fetch_digits
from mmcl_fast.data.mnist.files import Checksums, Digits, load_digits
from mmcl_fast.environment import environment
from mmcl_fast.errors import BackendUnavailableError
from mmcl_fast.experiments.table1.accounting import zero_one_name
from mmcl_fast.experiments.table1.colour_only import colour_only
from mmcl_fast.experiments.table1.experiment import (
    MAIN_READOUT,
    ZERO_ONE_READOUT,
    Table1,
    run_table1,
)
from mmcl_fast.experiments.table1.protocol import PAPER, SETS, ArmName, Table1Config
from mmcl_fast.experiments.table1.report import (
    SHORT_NAMES,
    colour_only_json,
    percent_cell,
    to_json,
    to_markdown,
)
from mmcl_fast.experiments.table1.resume import PartialResults
from mmcl_fast.experiments.table1.sets import make_sets
from mmcl_fast.files import prepare_directory, write_atomically
from mmcl_fast.plotting import curves, table1
from mmcl_fast.progress import progress

PARTIAL = "table1.partial.json"
COLOUR_ONLY = "table1_colour_only.json"


def table1_command(  # noqa: PLR0913 - one argument per group of flags
    cfg: Table1Config,
    seeds: range,
    arms: Sequence[ArmName],
    *,
    folder: Path,
    out: Path,
    checksums: Checksums,
    download: bool,
    device: Device,
) -> int:
    """Run the experiment; write table1.json, table1.md and table1.png to `out`.

    Args:
        cfg: Settings.
        seeds: Seeds, at least one.
        arms: Arms, at least one, each once.
        folder: Holds the MNIST files.
        out: Directory of the results, created if absent.
        checksums: Whether to require the genuine files.
        download: Download absent files first.
        device: Where to train; auto takes CUDA when there is one.

    Returns: Exit status 0.
    """
    chosen = _device(device)
    prepare_directory(out)
    if download:
        _download(folder)
    digits = load_digits(folder, checksums)
    make_sets(digits, cfg, seeds[0])  # raises on settings that the files cannot meet
    # Devices round differently, so a table is not resumed on another one.
    settings = cfg.to_dict() | {"device": chosen, "md5": digits.md5}
    partial = PartialResults(out / PARTIAL, settings)
    started = time.monotonic()
    table = _run(digits, cfg, seeds, arms, chosen, partial)
    results = to_json(table)
    text, page = json.dumps(results, allow_nan=False), to_markdown(table, results)
    write_atomically(out / "table1.json", lambda path: path.write_text(text, encoding="utf-8"))
    write_atomically(out / "table1.md", lambda path: path.write_text(page, encoding="utf-8"))
    picture = table1.table1(table, results, make_sets(digits, cfg, seeds[0]))
    curves.save(picture, out / "table1.png")
    partial.remove()
    _report(results, time.monotonic() - started)
    sys.stdout.write(f"wrote table1.json, table1.md, table1.png in {out}\n")
    return 0


def colour_only_command(
    cfg: Table1Config,
    seeds: range,
    *,
    folder: Path,
    out: Path,
    checksums: Checksums,
    download: bool,
) -> int:
    """Say what a decision by colour alone gets; write table1_colour_only.json to `out`.

    Arguments and result are those of `table1_command`; no network is made.
    """
    prepare_directory(out)
    if download:
        _download(folder)
    found = colour_only_json(colour_only(load_digits(folder, checksums), cfg, seeds))
    results = {
        "config": cfg.to_dict() | {"seeds": list(seeds)},
        "colour_only": found,
        "environment": environment("cpu"),
    }
    text = json.dumps(results, allow_nan=False)
    write_atomically(out / COLOUR_ONLY, lambda path: path.write_text(text, encoding="utf-8"))
    table = _printed(f"ColoredMNIST by colour alone, accuracy in %, {len(seeds)} seeds")
    _add_colour_only(table, found)
    Console().print(table)
    for arm, paper in PAPER.items():
        sys.stdout.write("paper: {}-modal {train:.2f}, rev {rev:.2f}\n".format(arm, **paper))
    sys.stdout.write(f"wrote {COLOUR_ONLY} in {out}\n")
    return 0


def _device(device: Device) -> str:
    if device == "cuda" and not torch.cuda.is_available():
        raise BackendUnavailableError("device cuda: expected a CUDA device, got none")
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


def _download(folder: Path) -> None:
    reported: set[str] = set()

    def report_once(name: str, size: int) -> None:
        del size
        if name not in reported:
            reported.add(name)
            sys.stderr.write(f"downloading {name}\n")

    fetch_digits(folder, on_bytes=report_once)


def _run(
    digits: Digits,
    cfg: Table1Config,
    seeds: range,
    arms: Sequence[ArmName],
    device: str,
    partial: PartialResults,
) -> Table1:
    jobs = [(arm, seed) for arm in arms for seed in seeds]
    left = [job for job in jobs if job not in partial.jobs]
    if len(left) < len(jobs):
        sys.stderr.write(f"resuming: {len(jobs) - len(left)} of {len(jobs)} jobs are done\n")
    with progress(len(left) * cfg.steps, "steps") as shown:
        return run_table1(
            digits,
            cfg,
            seeds,
            arms,
            device=device,
            store=partial,
            on_step=_counting(shown.advance),
        )


def _counting(advance: Callable[[str, float], None]) -> Callable[[ArmName, int], None]:
    lock, done = threading.Lock(), 0

    def count(arm: ArmName, seed: int) -> None:
        nonlocal done
        with lock:
            done += 1
            advance(f"{arm}, seed {seed}", done)

    return count


def _report(results: dict[str, Any], seconds: float) -> None:
    """Print each arm's main readouts under both accountings beside the paper's numbers."""
    config, environment = results["config"], results["environment"]
    table = _printed(
        f"Table 1: ColoredMNIST, accuracy in %, {len(config['seeds'])} seeds, "
        f"{environment['device']}, {seconds:.0f} s",
        "paper",
    )
    for arm in config["arms"]:
        paper = "{train:.2f}, {rev:.2f}".format(**PAPER[arm]) if arm in PAPER else ""
        for readout in dict.fromkeys((MAIN_READOUT[arm], ZERO_ONE_READOUT[arm])):
            title = f"{SHORT_NAMES[arm]}: {readout.replace('_', ' ')}"
            table.add_row(title, *_cells(results[arm][readout]), paper)
    _add_colour_only(table, results["colour_only"])
    Console().print(table)
    sys.stdout.write(
        "0/1: 0 against 1, on images labelled so; the other columns count ten classes\n"
        "paper: train, rev, in an accounting that it does not state; every readout is in "
        "table1.md; inferred settings: docs/table1.md\n"
    )


def _printed(title: str, *more: str) -> Table:
    table = Table(title=title, box=SIMPLE)
    table.add_column("")
    # Means above their deviations: at 80 columns the names keep their line.
    for heading in (*SETS, "train 0/1", "rev 0/1", *more):
        table.add_column(heading, width=6)
    return table


def _add_colour_only(table: Table, found: dict[str, Any]) -> None:
    law = {kind: {"mean": percent} for kind, percent in found["law"].items()}
    table.add_row("colour alone", *_cells(found["sampled"]))
    table.add_row("colour alone, in law", *_cells(law))


def _cells(sets: dict[str, Any]) -> list[str]:
    names = (*SETS, *(zero_one_name(kind) for kind in ("train", "rev")))
    return [percent_cell(sets[name], 1).replace("± ", "±") for name in names]


__all__ = ["colour_only_command", "table1_command"]
