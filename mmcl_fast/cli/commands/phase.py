"""`mmcl phase`: OOD accuracy over a plane of settings, with the theory's boundaries."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from mmcl_fast.config import TrainConfig
from mmcl_fast.errors import ConfigError
from mmcl_fast.experiments.phase.axis import AXIS_NAMES, Range
from mmcl_fast.experiments.phase.diagram import Phase, run_phase
from mmcl_fast.experiments.phase.names import PlaneName
from mmcl_fast.experiments.phase.overlay import Floats
from mmcl_fast.experiments.phase.planes import PLANES, Plane
from mmcl_fast.experiments.probe import Probe
from mmcl_fast.files import prepare_directory, write_atomically
from mmcl_fast.plotting import curves, phase
from mmcl_fast.plotting.style import NAMES
from mmcl_fast.progress import Progress, progress
from mmcl_fast.sweep.execute.runner import Start, SweepResult
from mmcl_fast.sweep.execute.worker_pool import Done, Event
from mmcl_fast.sweep.plan.axes import parse_axis
from mmcl_fast.sweep.plan.modalities import ONLY

MIN_POINTS, MAX_POINTS = 3, 512  # an axis of two values would be plotted linearly
INCOMPLETE = 1


def phase_command(
    plane: Plane,
    *,
    seeds: range,
    points: int,
    epochs: int,
    workers: int | None,
    out: Path,
) -> int:
    """Compute a plane and plot it; write phase.png, phase.pdf, phase.json and store to `out`.

    Re-running the same command resumes.

    Args:
        plane: Its axes.
        seeds: Seeds of each cell, at least one.
        points: Values of each axis.
        epochs: Epochs of training, at least one.
        workers: Processes; default: one per core.
        out: Directory of the results, created if absent.

    Returns: Exit status: 0, or 1 if rows failed or are missing.
    """
    if not seeds:
        raise ConfigError(f"seeds: expected an integer >= 1, got {len(seeds)}")
    if not MIN_POINTS <= points <= MAX_POINTS:
        raise ConfigError(
            f"points: expected an integer in {MIN_POINTS} .. {MAX_POINTS}, got {points}"
        )
    if epochs < 1:
        raise ConfigError(f"epochs: expected an integer >= 1, got {epochs}")
    for seed in (seeds[0], seeds[-1]):
        TrainConfig(seed=seed, epochs=epochs)
    axes = plane.x.values(points), plane.y.values(points)
    prepare_directory(out)
    total = len(plane.modalities) * len(axes[0]) * len(axes[1]) * len(seeds)
    with progress(total, "runs") as shown:
        result, swept = run_phase(
            plane,
            out / "store",
            points=points,
            seeds=seeds,
            epochs=epochs,
            workers=workers,
            told=_ProgressOfEvents(shown),
        )
    text = json.dumps(result.to_json(), allow_nan=False)
    write_atomically(out / "phase.json", lambda path: path.write_text(text, encoding="utf-8"))
    picture = phase.phase(result)
    for suffix in ("png", "pdf"):
        curves.save(picture, out / f"phase.{suffix}")
    _report(result, swept)
    sys.stdout.write(f"wrote phase.png, phase.pdf, phase.json, store in {out}\n")
    return INCOMPLETE if swept.put_away or swept.counts.get("failed") else 0


def chosen_plane(
    plane: PlaneName,
    x: str | None,
    y: str | None,
    probe: Mapping[str, Any],
    fixed: Sequence[str] = (),
) -> Plane:
    """A ready plane, with other axes `NAME=LOW,HIGH` and settings `NAME=VALUE` where given.

    Args:
        plane: Its name.
        x: Another horizontal axis.
        y: Another vertical axis.
        probe: Fields of a `Probe`.
        fixed: Settings of every cell, in place of the plane's own.

    Raises: ConfigError: an axis, the head or what is fixed is of settings that no run can have.
    """
    known = PLANES[plane]
    return Plane(
        _axis("x", x, known.x),
        _axis("y", y, known.y),
        known.base,
        Probe(**probe),
        _merged(known.fixed, fixed),
    )


def _merged(
    known: tuple[tuple[str, Any], ...], given: Sequence[str]
) -> tuple[tuple[str, Any], ...]:
    """Fixed settings of a plane with those given as NAME=VALUE in their place."""
    found = dict(known)
    seen: set[str] = set()
    for text in given:
        if "=" not in text:
            raise ConfigError(f"fix: expected NAME=VALUE, got {text!r}")
        name, values = parse_axis(text, also=AXIS_NAMES)
        if name in seen:
            raise ConfigError(f"fix: expected {name} once, got it twice")
        if len(values) != 1 or (name == "modality" and values == ["both"]):
            raise ConfigError(f"fix: expected one value, NAME=VALUE, got {text!r}")
        seen.add(name)
        found[name] = values[0]
    return tuple(found.items())


def _axis(flag: str, text: str | None, default: Range) -> Range:
    if text is None:
        return default
    name, _, given = text.partition("=")
    try:
        low, high = (float(part) for part in given.split(","))
    except ValueError:
        raise ConfigError(
            f"{flag}: expected NAME=LOW,HIGH, such as m=2,512, got {text!r}"
        ) from None
    return Range(name.strip(), low, high)


class _ProgressOfEvents:
    """Callback of `run_sweep` that updates a progress display."""

    def __init__(self, shown: Progress) -> None:
        self._shown, self._done = shown, 0

    def __call__(self, event: Start | Event) -> None:
        if isinstance(event, Start):
            self._done = event.present
        elif isinstance(event, Done):
            self._done += sum(event.counts.values())
        self._shown.advance("phase", self._done)


def _report(result: Phase, swept: SweepResult) -> None:
    table = Table(
        title=f"Plane {result.name}: {swept.runs} runs, {len(result.seeds)} seeds a cell, "
        f"{swept.computed} computed now in {swept.seconds:.1f} s"
    )
    for heading in ("", *(NAMES[modality] for modality in result.maps)):
        table.add_column(heading)
    maps = result.maps.values()
    table.add_row("least accuracy", *(f"{np.nanmin(m.mean):.3f}" for m in maps))
    table.add_row("largest accuracy", *(f"{np.nanmax(m.mean):.3f}" for m in maps))
    if result.plane.is_of_the_paper:
        table.add_row("half-way, over T1's boundary: median", *(_median(m.offsets) for m in maps))
        table.add_row("its range over the plane", *(_range(m.offsets) for m in maps))
    Console(markup=False).print(table)
    for name, value in result.plane.of_one_modality.items():
        sys.stdout.write(f"{name} {value} in {ONLY[name]}-modal runs alone\n")
    if result.left_out:
        sys.stderr.write(f"mmcl: {result.left_out} diverged or failed runs are left out\n")


def _median(offsets: Floats) -> str:
    return f"{np.median(offsets):.2f} ({len(offsets)} points)" if len(offsets) else "-"


def _range(offsets: Floats) -> str:
    return f"{offsets.min():.2f} .. {offsets.max():.2f}" if len(offsets) else "-"


__all__ = ["chosen_plane", "phase_command"]
