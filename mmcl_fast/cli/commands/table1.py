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
from mmcl_fast.errors import BackendUnavailableError
from mmcl_fast.experiments.table1.experiment import MAIN_READOUT, Table1, make_sets, run_table1
from mmcl_fast.experiments.table1.protocol import PAPER, SETS, ArmName, Table1Config
from mmcl_fast.experiments.table1.report import (
    SHORT_NAMES,
    to_json,
    to_markdown,
)
from mmcl_fast.experiments.table1.resume import PartialResults
from mmcl_fast.files import prepare_directory, write_atomically
from mmcl_fast.plotting import curves, table1
from mmcl_fast.progress import progress

PARTIAL = "table1.partial.json"


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
    write_atomically(out / "table1.json", lambda path: path.write_text(text))
    write_atomically(out / "table1.md", lambda path: path.write_text(page))
    picture = table1.table1(table, results, make_sets(digits, cfg, seeds[0]))
    curves.save(picture, out / "table1.png")
    partial.remove()
    _report(results, time.monotonic() - started)
    sys.stdout.write(f"wrote table1.json, table1.md, table1.png in {out}\n")
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
    """Print each arm's main readout beside the paper's numbers."""
    config, environment = results["config"], results["environment"]
    table = Table(
        title=f"Table 1: ColoredMNIST, accuracy in %, {len(config['seeds'])} seeds, "
        f"{environment['device']}, {seconds:.0f} s",
        box=SIMPLE,
    )
    for heading in ("", *SETS, "paper"):
        table.add_column(heading)
    for arm in config["arms"]:
        sets = results[arm][MAIN_READOUT[arm]]
        cells = [f"{sets[kind]['mean']:.1f}" for kind in SETS]
        if len(config["seeds"]) > 1:
            cells = [f"{c}±{sets[k]['sd']:.1f}" for c, k in zip(cells, SETS, strict=True)]
        paper = "{train:.2f}, {rev:.2f}".format(**PAPER[arm]) if arm in PAPER else ""
        table.add_row(SHORT_NAMES[arm], *cells, paper)
    Console().print(table)
    sys.stdout.write(
        "paper: train, rev; every readout is in table1.md; inferred settings: docs/table1.md\n"
    )


__all__ = ["table1_command"]
