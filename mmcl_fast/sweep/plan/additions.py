"""A stored plan with further values of its axes, or further seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mmcl_fast.config import FIELD_NAMES
from mmcl_fast.errors import ConfigError
from mmcl_fast.sweep.plan.axes import BOTH, Value
from mmcl_fast.sweep.plan.modalities import separated
from mmcl_fast.sweep.plan.plan import Plan, make_plan

SEEDS = "seeds"


def with_additions(stored: Plan, additions: Mapping[str, Sequence[Value]]) -> Plan:
    """The plan that the store's would be with further values; `run_sweep` extends by it.

    Values that are there already are no additions, so a repeated call is the same plan.

    Args:
        stored: The plan of a store.
        additions: Further values by setting. A setting that is no axis yet becomes one, of its
            present value and these. `seeds` is the number of seeds in all.

    Raises: ConfigError: the plan was written without its recipe (version 0.1.0), or a name is
        zipped, derived without being an axis, or `seeds` are fewer than there are.
    """
    recipe = stored.recipe
    if recipe is None:
        raise ConfigError(
            "add: expected a store whose plan has its base settings, got one of version 0.1.0; "
            "give the whole grid with --extend"
        )
    seeds = recipe.seeds
    grid: dict[str, list[Value]] = {}
    zipped: dict[str, list[Value]] = {}
    for axis in stored.axes:
        if (entries := separated(axis)) is not None:
            grid |= entries
            continue
        into = grid if len(axis.names) == 1 else zipped
        into |= {name: [row[k] for row in axis.rows] for k, name in enumerate(axis.names)}
    for name, values in additions.items():
        if name == SEEDS:
            seeds = _seeds(values, seeds)
            continue
        if name in zipped:
            raise ConfigError(
                f"add: expected an axis by itself, got {name}, which varies jointly with others; "
                "give the whole grid with --extend"
            )
        if name not in grid:
            if name not in FIELD_NAMES:
                raise ConfigError(f"add: expected a setting or an axis of the plan, got {name}")
            grid[name] = [getattr(recipe.base, name)]
        new = BOTH if name == "modality" and list(values) == ["both"] else values
        grid[name] += [value for value in new if value not in grid[name]]
    return make_plan(
        recipe.base,
        grid=grid,
        zipped=zipped,
        seeds=seeds,
        first_seed=recipe.first_seed,
        metrics=dict(stored.metrics),
    )


def _seeds(values: Sequence[Value], present: int) -> int:
    value = values[0] if len(values) == 1 else None
    if isinstance(value, bool) or not isinstance(value, int) or value < present:
        raise ConfigError(
            f"add: expected seeds = their number in all, at least the {present} of the plan, got "
            f"{', '.join(map(str, values))}"
        )
    return value


__all__ = ["with_additions"]
