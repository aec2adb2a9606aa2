"""Phase diagrams: OOD accuracy of single- and multi-modal training over a plane."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmcl_fast.environment import environment
from mmcl_fast.experiments.crossing import first_crossing
from mmcl_fast.experiments.figure1 import MODALITIES
from mmcl_fast.experiments.phase.names import PlaneName
from mmcl_fast.experiments.phase.planes import PLANES, Floats, Plane, conditions, overlay, window
from mmcl_fast.experiments.scaling import Scaled
from mmcl_fast.sweep.execute.policy import Policy
from mmcl_fast.sweep.execute.runner import Start, SweepResult, run_sweep
from mmcl_fast.sweep.execute.worker_pool import Event
from mmcl_fast.sweep.plan.plan import Plan, make_plan
from mmcl_fast.sweep.store.reader import load
from mmcl_fast.sweep.store.seed_statistics import SETTINGS, Cells, over_seeds
from mmcl_fast.theory import Check

HALF_WAY = 0.75  # between chance and 1
SWEPT = ("n", "d", "m", "mu_norm", "mu_b_norm", "nu_norm", "sigma_0", "tau", "eta")
VALUE = "final_ood_accuracy"
SAME = 1e-9  # relative, of derived columns, which are recomputed from settings


@dataclass(frozen=True)
class Map:
    """Accuracy over a plane for one modality.

    Attributes:
        mean: Over seeds, [ys, xs]; NaN where no run finished.
        sd: Sample standard deviation, [ys, xs].
        measured: For each x, the y at which the mean first passes half-way to 1; NaN if nowhere.
        predicted: For each x, the y at which T1 of signal and of noise are equal.
    """

    mean: Floats
    sd: Floats
    measured: Floats
    predicted: Floats

    @property
    def offsets(self) -> Floats:
        """Measured / predicted where both are within the plane."""
        ratio = self.measured / self.predicted
        return ratio[np.isfinite(ratio)]


@dataclass(frozen=True)
class Phase:
    """Results of a phase diagram.

    Attributes:
        name: Of the plane.
        plane: Its axes and fixed settings.
        xs: Values of the horizontal axis.
        ys: Values of the vertical axis.
        seeds: Seeds of each cell.
        epochs: Epochs of training.
        maps: By modality.
        left_out: Runs that diverged or failed.
    """

    name: str
    plane: Plane
    xs: list[float]
    ys: list[float]
    seeds: range
    epochs: int
    maps: dict[str, Map]
    left_out: int

    def to_json(self) -> dict[str, Any]:
        """Plain values; None where one is not finite."""
        return {
            "plane": self.name,
            "x": {"name": self.plane.x.name, "values": self.xs},
            "y": {"name": self.plane.y.name, "values": self.ys},
            "fixed": asdict(self.plane.base),
            "probe": self.plane.probe.settings,
            "seeds": list(self.seeds),
            "epochs": self.epochs,
            "left_out": self.left_out,
            **{
                m: {
                    "mean": _plain(one.mean),
                    "sd": _plain(one.sd),
                    "boundary_measured": _plain(one.measured),
                    "boundary_t1": _plain(one.predicted),
                    "assumption_4_1_fails": self._fails(conditions, m),
                    "lemma_window_fails": self._fails(window, m),
                }
                for m, one in self.maps.items()
            },
            "environment": environment(),
        }

    def _fails(
        self, checks: Callable[[Scaled, str], list[Check]], modality: str
    ) -> list[list[list[str]]]:
        """Conditions that do not hold in each cell."""
        return [
            [
                [c.condition for c in checks(self.plane.at(x, y), modality) if not c.holds]
                for x in self.xs
            ]
            for y in self.ys
        ]


def phase_plan(plane: Plane, points: int, seeds: range, epochs: int) -> Plan:
    """Every run of a plane: cells times both modalities times seeds, reduced data.

    Args:
        plane: Which.
        points: Values of each axis.
        seeds: Seeds of each cell.
        epochs: Epochs of training; accuracy is evaluated at their end.
    """
    cells = [plane.cell(x, y) for y in plane.y.values(points) for x in plane.x.values(points)]
    base = cells[0].replace(epochs=epochs, evaluate_every=max(1, epochs), n_test=500)
    zipped = {name: [getattr(cfg, name) for cfg in cells] for name in SWEPT}
    return make_plan(
        base,
        grid={"modality": ["both"]},
        zipped=zipped,
        seeds=len(seeds),
        first_seed=seeds[0],
    )


def run_phase(
    plane: PlaneName | Plane,
    store: Path,
    *,
    points: int,
    seeds: range,
    epochs: int,
    workers: int | None = None,
    told: Callable[[Start | Event], None] | None = None,
) -> tuple[Phase, SweepResult]:
    """Compute the runs of a plane that a store lacks, and read the diagram from the store.

    Args:
        plane: Of the theory, by its name, or any other.
        store: Directory of the store; ConfigError if it holds another plan.
        points: Values of each axis, >= 2.
        seeds: Seeds of each cell.
        epochs: Epochs of training.
        workers: Processes; default: one per core.
        told: See `sweep.run_sweep`.
    """
    name = plane.name if isinstance(plane, Plane) else plane
    plane = plane if isinstance(plane, Plane) else PLANES[plane]
    plan = phase_plan(plane, points, seeds, epochs)
    result = run_sweep(plan, store, policy=Policy(workers=workers), told=told)
    xs, ys = plane.x.values(points), plane.y.values(points)
    keys = ("modality", plane.x.name, plane.y.name)
    columns = dict.fromkeys([*SETTINGS, *keys, "status", VALUE])
    cells = over_seeds(load(store, list(columns)), keys, VALUE)
    maps = {m: _map(plane, cells, xs, ys, m) for m in MODALITIES}
    left = int(cells.left_out.sum())
    return Phase(name, plane, xs, ys, seeds, epochs, maps, left), result


def _map(plane: Plane, cells: Cells, xs: list[float], ys: list[float], modality: str) -> Map:
    mean = np.full((len(ys), len(xs)), np.nan)
    sd = mean.copy()
    for k in cells.where(modality=modality):
        cell = (
            _index_of(ys, cells.keys[plane.y.name][k]),
            _index_of(xs, cells.keys[plane.x.name][k]),
        )
        mean[cell], sd[cell] = cells.mean[k], cells.sd[k]
    ratios, *_ = overlay(plane, xs, ys, modality)
    return Map(mean, sd, boundary(ys, mean, HALF_WAY), boundary(ys, ratios, 0.0))


def boundary(ys: Sequence[float], values: Floats, level: float) -> Floats:
    """For each column the y at which the values first rise through a level, [xs].

    y is interpolated in logarithms; NaN where the level is not passed from below.
    """
    return np.exp([first_crossing(np.log(ys).tolist(), column, level) for column in values.T])


def _index_of(values: list[float], value: float) -> int:
    index = int(np.argmin(np.abs(np.log(values) - math.log(value))))
    assert math.isclose(values[index], value, rel_tol=SAME), (values[index], value)
    return index


def _plain(values: Floats) -> Any:
    if values.ndim == 2:
        return [_plain(row) for row in values]
    return [float(v) if math.isfinite(v) else None for v in values]


__all__ = ["HALF_WAY", "Map", "Phase", "boundary", "phase_plan", "run_phase"]
