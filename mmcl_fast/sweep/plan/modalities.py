"""Settings that one modality alone has, in plans of both modalities.

Runs of the other modality keep their default. A plan says so by its axes: such a setting varies
jointly with the modality, as if it had been zipped with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mmcl_fast.config import Modality, TrainConfig
from mmcl_fast.errors import ConfigError
from mmcl_fast.sweep.plan.axes import BOTH, Axis, Value

ONLY: dict[str, Modality] = {
    "augment": "single",
    "view_scale": "single",
    "view_mask": "single",
    "spurious_b_norm": "multi",
    "mu_c_norm": "multi",
    "d_c": "multi",
    "sigma_xi_c": "multi",
    "spurious_c_norm": "multi",
}
"""Settings that the other modality refuses, and the modality that has them."""
# Of the attribute; where modality A has none, they are of those of B and C.
_CORRELATIONS = ("spurious_correlation", "spurious_correlation_test")
_MULTI: Modality = "multi"


def joined(base: TrainConfig, axes: Sequence[Axis]) -> tuple[Axis, ...]:
    """The axes, with fixed settings of one modality joined to an axis of both.

    Args:
        base: Settings that no axis sets.
        axes: Axes; a setting of one value is fixed, whether it is an axis or of the base.

    Returns: `axes` where nothing is joined. Settings of several values stay by themselves: they
        are equal runs in the other modality, which refuses them.
    """
    both = [axis for axis in axes if covers_both(axis)]
    if not both:
        return tuple(axes)
    given = {name: _fixed(name, base, axes) for name in (*ONLY, *_CORRELATIONS, "spurious_norm")}
    only = ONLY
    if given["spurious_norm"] == 0 and (given["spurious_b_norm"] or given["spurious_c_norm"]):
        only = {**ONLY, **dict.fromkeys(_CORRELATIONS, _MULTI)}
    default = TrainConfig()
    moved = {
        name: given[name] for name in only if given[name] not in (getattr(default, name), _VARIES)
    }
    if not moved:
        return tuple(axes)
    rows = (
        (modality, *(x if only[k] == modality else getattr(default, k) for k, x in moved.items()))
        for (modality,) in both[0].rows
    )
    joint = Axis(("modality", *moved), tuple(rows))
    kept = (axis for axis in axes if axis.names[0] not in moved)
    return tuple(joint if axis is both[0] else axis for axis in kept)


def separated(axis: Axis) -> dict[str, list[Value]] | None:
    """The entries of a grid that `joined` makes an axis of, or None of any other axis."""
    modalities, *columns = zip(*axis.rows, strict=True)
    names = axis.names[1:]
    known = {*ONLY, *_CORRELATIONS}
    if axis.names[0] != "modality" or not names or not known.issuperset(names):
        return None
    found: dict[str, list[Value]] = {"modality": list(modalities)}
    for name, values in zip(names, columns, strict=True):
        own = ONLY.get(name, "multi")
        found[name] = [v for m, v in zip(modalities, values, strict=True) if m == own]
    return found if joined(TrainConfig(), _axes(found)) == (axis,) else None


def covers_both(axis: Axis) -> bool:
    """Whether an axis is of both modalities and nothing else."""
    return axis.names == ("modality",) and {row[0] for row in axis.rows} == {*BOTH}


def modality_of(names: Iterable[str], grid: Mapping[str, Sequence[Value]]) -> Modality | None:
    """The modality that a base with settings `names` needs in a grid of both; None: any.

    Raises: ConfigError: one setting is of modality single alone, and another of modality multi.
    """
    if {*grid.get("modality", ())} not in ({*BOTH}, {"both"}):
        return None
    own = {ONLY[name]: name for name in names if name in ONLY}
    if len(own) > 1:
        raise ConfigError(
            f"{own['single']}: expected an axis of one value beside {own['multi']} and both "
            f"modalities, such as --grid {own['single']}=..., got a setting of all runs"
        )
    return next(iter(own), None)


def advice(name: str, axes: Sequence[Axis]) -> str:
    """What to type instead of an axis of a setting that one of both modalities refuses."""
    if name not in ONLY or not any(covers_both(axis) for axis in axes):
        return ""
    own = ONLY[name]
    (other,) = {*BOTH} - {own}
    default = getattr(TrainConfig(), name)
    default = "none" if default is None else default  # as it is typed
    return (
        f"; {name} is of modality {own} alone, and takes one value beside both modalities, or "
        f"varies with them: --zip modality={other},{own},... --zip {name}={default},..."
    )


def notes(axes: Sequence[Axis]) -> list[str]:
    """What `joined` did, a clause a setting."""
    return [
        f"{name} {', '.join(f'{row[k]} in {row[0]}-modal runs' for row in axis.rows)}"
        for axis in axes
        if separated(axis)
        for k, name in enumerate(axis.names[1:], start=1)
    ]


_VARIES = object()


def _fixed(name: str, base: TrainConfig, axes: Sequence[Axis]) -> Any:
    """The one value of a setting, or `_VARIES`."""
    for axis in axes:
        if name in axis.names:
            return axis.rows[0][0] if len(axis.names) == len(axis.rows) == 1 else _VARIES
    return getattr(base, name)


def _axes(grid: Mapping[str, Sequence[Value]]) -> tuple[Axis, ...]:
    return tuple(Axis((name,), tuple((v,) for v in values)) for name, values in grid.items())


__all__ = ["ONLY", "advice", "covers_both", "joined", "modality_of", "notes", "separated"]
