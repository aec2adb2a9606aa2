"""The settings of a plan by columns: what resolving each combination by itself gives."""

import itertools
import json
import tracemalloc
from typing import Any

import numpy as np
import pytest

from mmcl_fast import TrainConfig
from mmcl_fast.config import FIELD_NAMES, LATER_FIELDS
from mmcl_fast.config_checks import COMBINED, check_combinations
from mmcl_fast.derived import derived
from mmcl_fast.engines import ENGINES, memory_bytes, resolve_engine
from mmcl_fast.errors import ConfigError
from mmcl_fast.sweep import make_plan
from mmcl_fast.sweep.plan.axes import make_axes
from mmcl_fast.sweep.plan.columns import Column, combined, distinct_rows
from mmcl_fast.sweep.plan.numerics import numerics_of
from mmcl_fast.sweep.plan.point_table import Points, numbered, stacked_points
from mmcl_fast.sweep.plan.points import (
    DEFAULTS,
    SIZES,
    check_points,
    combination,
    resolve_point,
    resolve_points,
)
from mmcl_fast.sweep.plan.shards import SHAPE, run_seconds
from mmcl_fast.sweep.store.schema import DERIVED_READS

BASE = TrainConfig(n=12, d=60, m=4, epochs=6, n_test=10, data="reduced")
GRIDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "no axis": ({}, {}),
    "one value": ({"m": [8]}, {}),
    "sizes": ({"n": [10, 3000], "m": [4, 8], "d": [60, 2**40], "modality": "both"}, {}),
    "defaults": ({"tau": [None, 0.25, 0.125], "m": [4, 8], "d_b": [None, 60], "d": [60, 70]}, {}),
    "engines": ({"engine": ["auto", "gram", "primal"], "epochs": [0, 5]}, {}),
    "derived": (
        {"snr": [0.0, 1 / 3], "c_mu": [2.0, 0.7], "sigma_xi": [0.3, 1.1], "noise_start": [0.1]},
        {"m": [3, 5, 7], "noise_rate": [0.1, 0.2, 0.3]},
    ),
    "n_snr2": ({"n_snr2": [0.1, 7.0], "n": [10, 11, 13], "d": [50, 51]}, {}),
    "seeds among the axes": ({"m": [4, 8], "data_seed": [None, 3], "eta": [0.1, 0.2]}, {}),
    "kinds": (
        {"dtype": ["float32", "float64"], "negatives_per_sample": [None, 3]},
        {"optimizer": ["gd", "momentum"], "momentum": [None, 0.5]},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("grid", "zipped"), GRIDS.values(), ids=GRIDS)
def test_columns_are_the_points_one_by_one(grid: dict, zipped: dict) -> None:
    axes = make_axes(grid, zipped)
    count = int(np.prod([len(axis.rows) for axis in axes]))
    one_by_one: dict[TrainConfig, int] = {}
    places = []
    for k in range(count):
        point = {n: v for n, v in combination(axes, k).items() if n != "data_seed"}
        places.append(one_by_one.setdefault(resolve_point(BASE, point), len(one_by_one)))
    points, point_of = resolve_points(BASE, axes)
    assert list(points) == list(one_by_one)
    assert [list(map(type, vars(cfg).values())) for cfg in points] == [
        [type(getattr(cfg, name)) for name in vars(mine)]
        for cfg, mine in zip(one_by_one, points, strict=True)
    ]
    np.testing.assert_array_equal(point_of, places)
    check_points(points)
    assert points == Points.of(list(one_by_one))
    assert [points[k] for k in range(-len(points), 0)] == list(points)
    assert list(points[1:]) == list(points)[1:]


def test_combinations_count_with_the_last_axis_fastest() -> None:
    axes = make_axes({"m": [1, 2], "eta": [0.1, 0.2, 0.3]}, {"n": [5, 6], "d": [7, 8]})
    values = [
        {"m": m, "eta": eta, "n": n, "d": d}
        for m, eta, (n, d) in itertools.product((1, 2), (0.1, 0.2, 0.3), ((5, 7), (6, 8)))
    ]
    assert [combination(axes, k) for k in range(12)] == values


MISTAKES = [
    ({"m": [4, 0], "n": [20]}, r"m: expected an integer >= 1, got 0 \(at m = 0, n = 20\)"),
    ({"eta": [0.1, 0.2], "snr": [0.1, 1e40]}, r"mu_norm: .*\(at eta = 0.1, snr = 1e\+40\)"),
    (
        {"modality": ["single", "multi"], "augment": ["fixed", "per_epoch"]},
        r"augment: expected fixed .*\(at modality = multi, augment = per_epoch\)",
    ),
    (
        {"optimizer": ["gd", "adam"], "data": ["explicit"], "engine": ["gram"]},
        r"engine gram: optimizer adam .*\(at optimizer = adam, data = explicit, engine = gram\)",
    ),
    ({"noise_start": [0.1, 0.0]}, r"sigma_0: expected .* > 0, got 0.0 \(at noise_start = 0.0\)"),
    ({"d": [60], "sigma_xi": [1.0, 1e30]}, r"sigma_xi: .* \(at d = 60, sigma_xi = 1e\+30\)"),
]


@pytest.mark.parametrize(("grid", "message"), MISTAKES, ids=[m[:30] for _, m in MISTAKES])
def test_mistakes_name_the_combination(grid: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_plan(BASE, grid=grid, seeds=2)


def test_invalid_columns_are_refused() -> None:
    """As they may be in a file that another program wrote."""
    good = make_plan(BASE, grid={"m": [4, 8]}).points
    wrong = {"m": (4, 0), "eta": (1e39,), "modality": ("single", "third"), "batch_size": (4,)}
    for name, values in wrong.items():
        columns = {field: good.column(field) for field in FIELD_NAMES}
        columns[name] = Column.of(values, np.arange(2, dtype=np.int32) % len(values))
        with pytest.raises(ConfigError, match=name):
            check_points(Points(columns))


def test_texts_are_those_of_the_json_encoder() -> None:
    """Settings that the first plans lacked come last, where they are not what those plans mean."""
    base = BASE.replace(probe_on="ood")
    points = stacked_points(
        make_plan(BASE, grid={"snr": [0.1, 1 / 3]}, seeds=2).points,
        make_plan(base, grid={"probe_samples": [20, 30]}).points,
    )
    hows = ('a "quoted" one', "b", "b", "b")
    later = [{}, {}, *({"probe_on": "ood", "probe_samples": k} for k in (20, 30))]
    expected = [
        json.dumps(
            [
                *(value for name, value in cfg.to_dict().items() if name not in LATER_FIELDS),
                how,
                *([others] if others else []),
            ]
        )
        for cfg, how, others in zip(points, hows, later, strict=True)
    ]
    assert "".join(points.texts(hows)) == "\n".join(expected)
    rows = np.array([3, 0])
    assert "".join(points.texts(hows, rows)) == f"{expected[3]}\n{expected[0]}"


def test_points_of_two_tables_are_numbered_together() -> None:
    one = make_plan(BASE, grid={"m": [4, 8]}).points
    other = make_plan(BASE, grid={"m": [16, 8], "eta": [0.5, BASE.eta]}).points
    have, want = numbered(one, other)
    assert have.tolist() == [0, 1]
    assert want.tolist() == [2, 3, 4, 1]
    assert list(stacked_points(one, other)) == [*one, *other]
    elsewhere = Points.of([cfg.replace(engine="gram") for cfg in one])
    assert not set(numbered(one, elsewhere)[1]) & {0, 1}
    assert numbered(one, elsewhere, ("engine",))[1].tolist() == [0, 1]


def test_rows_of_many_columns_are_told_apart() -> None:
    """Their codes as one number would not fit into 64 bits."""
    draw = np.random.default_rng(5)
    codes = draw.integers(0, 3000, (9, 4000)).astype(np.int32)
    codes[:, 2000:] = codes[:, :2000]
    columns = [Column.of(range(3000), row) for row in codes]
    first, index = distinct_rows(columns)
    assert first.tolist() == list(range(2000))
    assert index.tolist() == [*range(2000), *range(2000)]
    total = combined(lambda *values: sum(values), columns)
    assert [total.values[k] for k in total.codes] == codes.sum(0).tolist()


class _Recorded(TrainConfig):
    """A config that notes which of its fields are read."""

    def __getattribute__(self, name: str) -> Any:
        if name in FIELD_NAMES:
            READ.add(name)
        return object.__getattribute__(self, name)


READ: set[str] = set()
CONFIGS = [
    BASE,
    BASE.replace(modality="multi", engine="gram", coefficients_every=2),
    BASE.replace(n=3000, d=100, optimizer="momentum", tau=0.1, dtype="float64"),
    BASE.replace(data="streamed", engine="primal", augment="per_epoch"),
    BASE.replace(optimizer="sgd", batch_size=4, data="explicit", engine="reference"),
    BASE.replace(negatives_per_sample=3, weight_decay=0.1, evaluate_every=0),
]
READERS = {
    "resolve_engine": (resolve_engine, SIZES),
    "run_seconds": (run_seconds, SIZES),
    "memory_bytes": (lambda cfg: memory_bytes(cfg, resolve_engine(cfg)), SIZES),
    "max_runs": (lambda cfg: ENGINES[resolve_engine(cfg)].max_runs(cfg), SIZES),
    "check_combinations": (check_combinations, COMBINED),
    "numerics_of": (numerics_of, ("engine", "device")),
    **{f"default of {name}": (value, reads) for name, (reads, value) in DEFAULTS.items()},
}


@pytest.mark.parametrize("name", READERS)
def test_a_function_reads_no_other_settings_than_declared(name: str) -> None:
    """It is called once for each distinct tuple of these."""
    function, declared = READERS[name]
    for cfg in CONFIGS:
        recorded = _Recorded.of_valid(cfg.replace(device="cpu").to_dict())
        READ.clear()
        function(recorded)
        assert set(declared) >= READ


@pytest.mark.parametrize("name", DERIVED_READS)
def test_a_derived_quantity_depends_on_no_other_settings_than_declared(name: str) -> None:
    numbers = (
        "n",
        "d",
        "m",
        "mu_norm",
        "mu_b_norm",
        "nu_norm",
        "sigma_xi",
        "sigma_0",
        "eta",
        "tau",
    )
    cfg = BASE.replace(tau=0.3)
    for setting in numbers:
        changed = derived(cfg.replace(**{setting: 2 * getattr(cfg, setting)}))[name]
        assert (changed != derived(cfg)[name]) == (setting in DERIVED_READS[name]), setting


def test_shapes_are_sizes_without_dimensions() -> None:
    assert set(SIZES) - set(SHAPE) == {"d", "d_b"}


def test_settings_take_little_memory() -> None:
    """A config takes some 2 kB, so 10^5 of them 200 MB."""
    grid = {"snr": np.linspace(0.01, 1, 250).tolist(), "eta": np.linspace(0.01, 1, 400).tolist()}
    tracemalloc.start()
    plan = make_plan(BASE, grid=grid)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(plan.points) == 100_000
    assert peak < 30e6
