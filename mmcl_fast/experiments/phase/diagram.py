"""Phase diagrams: OOD accuracy of single- and multi-modal training over a plane."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmcl_fast.config import FIELD_NAMES, TrainConfig
from mmcl_fast.environment import environment
from mmcl_fast.experiments.crossing import first_crossing
from mmcl_fast.experiments.phase.names import PlaneName
from mmcl_fast.experiments.phase.overlay import Floats, conditions, overlay, window
from mmcl_fast.experiments.phase.planes import PLANES, Plane
from mmcl_fast.experiments.scaling import Scaled
from mmcl_fast.sweep.execute.policy import Policy
from mmcl_fast.sweep.execute.runner import Start, SweepResult, run_sweep
from mmcl_fast.sweep.execute.worker_pool import Event
from mmcl_fast.sweep.plan.plan import Plan, make_plan
from mmcl_fast.sweep.store.reader import load
from mmcl_fast.theory import Check

SWEPT = ("n", "d", "m", "mu_norm", "mu_b_norm", "nu_norm", "sigma_0", "tau", "eta")
VALUE = "final_ood_accuracy"


@dataclass(frozen=True)
class Map:
    """Accuracy over a plane for one modality.

    Attributes:
        mean: Over seeds, [ys, xs]; NaN where no run finished.
        sd: Sample standard deviation, [ys, xs].
        measured: For each x, the y at which the mean first passes half-way to 1; NaN if nowhere.
        predicted: For each x, the y at which T1 of signal and of noise are equal; NaN on planes of
            another model than the paper's.
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
        """Plain values; None where one is not finite, or the theory predicts nothing."""
        return {
            "plane": self.name,
            "x": {"name": self.plane.x.name, "values": self.xs},
            "y": {"name": self.plane.y.name, "values": self.ys},
            "fixed": asdict(self.plane.base)
            | {"temperature": self.plane.temperature}
            | dict(self.plane.fixed),
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
    ) -> list[list[list[str]]] | None:
        """Conditions that do not hold in each cell; None of another model than the paper's."""
        if not self.plane.is_of_the_paper:
            return None
        return [
            [
                [c.condition for c in checks(self.plane.at(x, y), modality) if not c.holds]
                for x in self.xs
            ]
            for y in self.ys
        ]


def phase_plan(plane: Plane, points: int, seeds: range, epochs: int) -> Plan:
    """Every run of a plane: its modalities times cells times seeds, reduced data.

    Args:
        plane: Which.
        points: Values of each axis.
        seeds: Seeds of each cell.
        epochs: Epochs of training; accuracy is evaluated at their end.
    """
    cells = [plane.cell(x, y) for y in plane.y.values(points) for x in plane.x.values(points)]
    base = cells[0].replace(epochs=epochs, evaluate_every=max(1, epochs), n_test=500)
    given = {name: [getattr(cfg, name) for cfg in cells] for name in FIELD_NAMES}
    varied = {name for name, values in given.items() if len(set(values)) > 1}
    zipped = {name: given[name] for name in FIELD_NAMES if name in SWEPT or name in varied}
    return make_plan(
        base,
        grid={"modality": list(plane.modalities)} | plane.of_one_modality,
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
    shape = (len(plane.modalities), len(ys), len(xs), len(seeds))
    accuracy, left_out = _accuracies(store, shape)
    maps = {
        modality: _map(plane, xs, ys, modality, runs)
        for modality, runs in zip(plane.modalities, accuracy, strict=True)
    }
    return Phase(name, plane, xs, ys, seeds, epochs, maps, left_out), result


def _accuracies(store: Path, shape: tuple[int, ...]) -> tuple[Floats, int]:
    """Of the runs of a plane, [modalities, ys, xs, seeds], NaN where one is left out; how many."""
    table = load(store, ["run_id", "status", VALUE])
    finished = np.array(table["status"].to_pylist()) == "finished"
    found = np.full(math.prod(shape), np.nan)
    run_ids = table["run_id"].to_numpy()
    found[run_ids[finished]] = table[VALUE].to_numpy()[finished]
    return found.reshape(shape), int((~finished).sum())


def _map(plane: Plane, xs: list[float], ys: list[float], modality: str, runs: Floats) -> Map:
    """The map of a modality, of the accuracies of its runs, [ys, xs, seeds]."""
    count = np.isfinite(runs).sum(2)
    total = np.nansum(runs, axis=2)
    mean = np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)
    squares = np.nansum((runs - mean[:, :, None]) ** 2, axis=2)
    sd = np.where(count > 0, np.sqrt(squares / np.maximum(count - 1, 1)), np.nan)
    levels = np.array([[half_way(plane.cell(x, y)) for x in xs] for y in ys])
    measured = boundary(ys, mean - levels, 0.0, linear=plane.y.is_linear)
    if not plane.is_of_the_paper:
        falling = boundary(ys, levels - mean, 0.0, linear=plane.y.is_linear)
        return Map(mean, sd, np.where(np.isnan(measured), falling, measured), np.nan * measured)
    ratios, *_ = overlay(plane, xs, ys, modality)
    return Map(mean, sd, measured, boundary(ys, ratios, 0.0, linear=plane.y.is_linear))


def half_way(cfg: TrainConfig) -> float:
    """The accuracy half-way between chance and 1."""
    return (1 + chance(cfg)) / 2


def chance(cfg: TrainConfig) -> float:
    """The accuracy of guessing."""
    return 1 / (cfg.classes or 2)


def boundary(ys: Sequence[float], values: Floats, level: float, *, linear: bool = False) -> Floats:
    """For each column the y at which the values first rise through a level, [xs].

    y is interpolated in logarithms, or linearly; NaN where the level is not passed from below.
    """
    places = list(ys) if linear else np.log(ys).tolist()
    found = np.array([first_crossing(places, column, level) for column in values.T])
    return found if linear else np.exp(found)


def _plain(values: Floats) -> Any:
    if values.ndim == 2:
        return [_plain(row) for row in values]
    return [float(v) if math.isfinite(v) else None for v in values]


__all__ = ["Map", "Phase", "boundary", "half_way", "phase_plan", "run_phase"]
