"""Planes of the phase diagrams: their axes, what is fixed, and the settings of each cell.

Between the cells of a plane the growth rate and the initial scale of the noise stay fixed
(`experiments.scaling`), so neighbouring cells differ in the settings of the axes alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any

from mmcl_fast.config import FIELD_NAMES, TrainConfig
from mmcl_fast.errors import ConfigError
from mmcl_fast.experiments.figure1 import MODALITIES
from mmcl_fast.experiments.phase.axis import AXIS_NAMES, DETERMINES, Range
from mmcl_fast.experiments.phase.names import NO_AXES, PlaneName
from mmcl_fast.experiments.probe import Probe
from mmcl_fast.experiments.scaling import Scaled
from mmcl_fast.sweep.plan.modalities import ONLY

WHOLE = ("n", "d", "m")
BASE = Scaled(d=10**7, noise_rate=0.1)
CLEAR = replace(BASE, n_snr2=8.0)
"""A signal that both modalities learn, for planes of what disturbs it."""
ON_TRAINING = Probe()
OF_SCALED = frozenset(f.name for f in fields(Scaled))
PAPERS = frozenset(
    {
        *("n", "d", "m", "snr", "n_snr2", "c_mu", "noise_rate", "noise_start", "nu_share"),
        *("mu_norm", "mu_b_norm", "nu_norm", "eta", "sigma_0", "tau", "sigma_eps", "modality"),
        *("probe_on", "probe_samples", "probe_penalty", "engine", "dtype", "device"),
    }
)
"""Settings and quantities whose every value is of the model that the theory is about."""
REFUSED = ("data", *NO_AXES)


@dataclass(frozen=True)
class Plane:
    """Two axes, the fixed settings, and the head.

    Attributes:
        x: The horizontal axis.
        y: The vertical axis.
        base: What is fixed of the theory's quantities and is no axis.
        probe: The head.
        fixed: Further settings by name; those that `base` determines take their place.

    Raises: ConfigError: two of axes and fixed settings set the same, a name is none of a setting,
        or a corner has settings that no run can have.
    """

    x: Range
    y: Range
    base: Scaled = BASE
    probe: Probe = ON_TRAINING
    fixed: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        for name, _ in self.fixed:
            if name in REFUSED:
                raise ConfigError(
                    f"{name}: expected a setting that a plane may fix, got one of "
                    f"{', '.join(REFUSED)}, which it sets itself"
                )
            if name not in {*FIELD_NAMES, *AXIS_NAMES}:
                raise ConfigError(f"{name}: expected a setting that a plane may fix, got another")
        if self.x.determines == self.y.determines:
            raise ConfigError(f"y: expected an axis that sets another thing than {self.x.name}")
        taken = {self.x.determines: self.x.name, self.y.determines: self.y.name}
        for name, _ in self.fixed:
            target = DETERMINES.get(name, name)
            if target in taken:
                raise ConfigError(f"{name}: expected it once, got {taken[target]}, which sets it")
            taken[target] = name
        for axis in (self.x, self.y):
            if (own := ONLY.get(axis.determines)) and len(self.modalities) > 1:
                raise ConfigError(
                    f"{axis.name}: expected an axis of both modalities, got one of modality "
                    f"{own} alone; --fix modality={own}"
                )
        for modality in self.modalities:
            for x in (self.x.low, self.x.high):
                for y in (self.y.low, self.y.high):
                    self.cell(x, y, modality)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities with a map; of a fixed one, and of objective logistic, one."""
        fixed = dict(self.fixed)
        if "modality" in fixed:
            return (fixed["modality"],)
        return MODALITIES[:1] if fixed.get("objective") == "logistic" else MODALITIES

    @property
    def name(self) -> str:
        """Its own, or its axes'."""
        own = replace(self, probe=ON_TRAINING)
        known = (name for name, plane in PLANES.items() if plane == own)
        return next(known, f"{self.x.name}-{self.y.name}")

    @property
    def is_of_the_paper(self) -> bool:
        """Whether every cell is of the paper's model, of which the theory predicts borders."""
        default = TrainConfig().to_dict()
        changed = {name for name, value in self.fixed if default.get(name) != value}
        return {self.x.name, self.y.name, *changed} <= PAPERS

    def at(self, x: float, y: float) -> Scaled:
        """The theory's quantities at a point of the plane; sizes need not be integers."""
        given = {**dict(self.fixed), self.x.name: x, self.y.name: y}
        point = replace(self.base, temperature=self._temperature(given))
        point = replace(point, **{k: v for k, v in given.items() if k in OF_SCALED})
        if "snr" in given:
            point = replace(point, n_snr2=point.n * given["snr"] ** 2)
        if "mu_norm" in given:
            point = replace(point, n_snr2=point.n * given["mu_norm"] ** 2 / point.d)
        if "mu_b_norm" in given:
            point = replace(point, c_mu=given["mu_b_norm"] / point.mu_norm)
        if "eta" in given:
            point = replace(point, noise_rate=given["eta"] / point.eta * point.noise_rate)
        if "sigma_0" in given:
            point = replace(point, noise_start=given["sigma_0"] * point.d**0.5)
        return point

    @property
    def of_one_modality(self) -> dict[str, Any]:
        """Fixed settings that one of the plane's two modalities alone has."""
        both = len(self.modalities) > 1
        return {name: value for name, value in self.fixed if both and name in ONLY}

    def cell(self, x: float, y: float, modality: str | None = None) -> TrainConfig:
        """Settings of the runs of a cell, with sizes rounded to integers.

        Args:
            x: Place on the horizontal axis.
            y: Place on the vertical axis.
            modality: Of the runs; default: the first of the plane's.
        """
        modality = modality or self.modalities[0]
        axes = {
            axis.name: round(value) if axis.is_whole else value
            for axis, value in ((self.x, x), (self.y, y))
        }
        sizes = {name: value for name, value in axes.items() if name in WHOLE}
        point = replace(self.at(x, y), **sizes)
        given: dict[str, Any] = {**dict(self.fixed), **axes}
        settings = {k: v for k, v in given.items() if k in FIELD_NAMES and k not in OF_SCALED}
        for share, norm in (("spurious_share", "spurious_norm"), ("third_share", "mu_c_norm")):
            if share in given:
                settings[norm] = given[share] * point.mu_norm
        for name in self.of_one_modality:
            if ONLY[name] != modality:
                del settings[name]
        return point.config(**self.probe.settings, **settings | {"modality": modality})

    def _temperature(self, given: Mapping[str, Any]) -> float | None:
        """Where it is not 1 / m."""
        names = ("tau", "similarity", "objective")
        chosen = {name: given[name] for name in names if name in given}
        return TrainConfig(**chosen).tau_value if chosen else None


PLANES: MappingProxyType[PlaneName, Plane] = MappingProxyType(
    {
        "n-snr": Plane(Range("n", 16, 512), Range("snr", 0.03, 0.8)),
        "cmu-nsnr2": Plane(Range("c_mu", 0.25, 8), Range("n_snr2", 0.05, 20)),
        "d": Plane(Range("d", 200, 1e9), Range("n_snr2", 0.05, 20)),
        "m": Plane(Range("m", 2, 512), Range("n_snr2", 0.05, 20)),
        "sigma-eps": Plane(
            Range("sigma_eps", 0.03, 10),
            Range("n_snr2", 0.05, 20),
            fixed=(("modality", "single"),),
        ),
        "pair-noise": Plane(Range("pair_noise", 0, 1), Range("n_snr2", 0.05, 20)),
        "spurious": Plane(
            Range("spurious_correlation", 0, 1), Range("spurious_share", 0.25, 4), CLEAR
        ),
        "classes": Plane(Range("classes", 2, 32), Range("n", 16, 512), CLEAR),
        "third": Plane(
            Range("c_mu", 0.25, 16),
            Range("third_share", 0.25, 16),
            replace(BASE, n_snr2=1.0),
            fixed=(("modality", "multi"),),
        ),
    }
)


__all__ = ["PLANES", "Plane"]
