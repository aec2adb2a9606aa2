"""Axes: how they are written, what they become, and one clear message for every mistake."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from mmcl_fast.errors import ConfigError
from mmcl_fast.sweep.plan.axes import axis_from_table, make_axes, parse_axis

WRITTEN = [
    ("m=16,64, 256", ("m", [16, 64, 256])),
    ("eta = 1e-3,1", ("eta", [1e-3, 1])),
    ("tau=none,0.5", ("tau", [None, 0.5])),
    ("stop_gradient=key,none", ("stop_gradient", ["key", "none"])),
    ("optimizer=gd,momentum", ("optimizer", ["gd", "momentum"])),
    ("snr=linspace(0.1, 0.3, 3)", ("snr", [0.1, 0.2, 0.3])),
    ("snr=linspace(2, 1, 1)", ("snr", [2.0])),
    ("eta=geomspace(1, 1000, 4)", ("eta", [1.0, 10.0, 100.0, 1000.0])),
    ("eta=logspace(-3, 0, 4)", ("eta", [1e-3, 1e-2, 1e-1, 1.0])),
    ("m=linspace(2, 4, 9)", ("m", [2, 3, 4])),
    ("d=geomspace(1, 9007199254740992, 2)", ("d", [1, 2**53])),
    ("seed=18446744073709551615", ("seed", [2**64 - 1])),
]


@pytest.mark.parametrize(("text", "expected"), WRITTEN, ids=lambda x: str(x)[:30])
def test_axes_of_a_command_line(text: str, expected: tuple[str, list]) -> None:
    name, values = parse_axis(text)
    assert (name, values) == expected
    assert list(map(type, values)) == list(map(type, expected[1]))


@pytest.mark.parametrize("kind", ["linspace", "geomspace"])
def test_ranges_begin_and_end_exactly(kind: str) -> None:
    first, last = 0.2, 3.3  # neither is a power of ten of its rounded logarithm
    assert 10 ** math.log10(first) != first
    _, values = parse_axis(f"eta={kind}({first},{last},7)")
    assert (values[0], values[-1], len(values)) == (first, last, 7)
    np.testing.assert_allclose(values, getattr(np, kind)(first, last, 7), rtol=1e-14)


def test_axes_of_a_file() -> None:
    assert axis_from_table("m", [16, 64]) == [16, 64]
    assert axis_from_table("m", 16) == [16]
    assert axis_from_table("modality", "both") == ["both"]
    assert axis_from_table("tau", ["none", 0.5]) == [None, 0.5]
    assert axis_from_table("snr", {"linspace": [0, 1, 3]}) == [0.0, 0.5, 1.0]


def test_values_take_the_type_of_their_setting() -> None:
    axes = make_axes(
        {"m": np.array([4, 8]), "eta": [1, np.float32(0.5)], "snr": np.int64(2), "n": [10.0]}, {}
    )
    rows = [row for axis in axes for row in axis.rows]
    assert rows == [(4,), (8,), (1.0,), (0.5,), (2.0,), (10,)]
    assert [type(row[0]) for row in rows] == [int, int, float, float, float, int]


def test_both_modalities_and_zipped_lists() -> None:
    axes = make_axes({"modality": "both"}, {"n": [10, 20], "eta": [0.1, 0.2]})
    assert [axis.names for axis in axes] == [("modality",), ("n", "eta")]
    assert [axis.rows for axis in axes] == [(("single",), ("multi",)), ((10, 0.1), (20, 0.2))]


MISTAKES: list[tuple[Callable[[], object], str]] = [
    (lambda: parse_axis("m"), "grid: expected name=value,value,..., got 'm'"),
    (lambda: parse_axis("=1"), "grid: expected name=value"),
    (lambda: parse_axis("m="), "grid: expected name=value"),
    (lambda: parse_axis("m=1,,2"), "grid: expected a value between commas, got none"),
    (lambda: parse_axis("mm=1"), "mm: unknown setting; did you mean m?"),
    (lambda: parse_axis("snrr=1"), "snrr: unknown setting; did you mean snr?"),
    (lambda: parse_axis("m=space(1,2,3)"), "m: expected one of linspace, geomspace, logspace"),
    (lambda: parse_axis("m=linspace(1,2)"), r"m: expected linspace\(first, last, count\)"),
    (lambda: parse_axis("m=linspace(1,2,inf)"), r"m: expected linspace\(first, last, count\)"),
    (lambda: parse_axis("m=linspace(nan,2,3)"), r"m: expected linspace\(first, last, count\)"),
    (lambda: parse_axis("m=linspace(1,2,2.5)"), r"m: expected linspace\(first, last, count\)"),
    (lambda: parse_axis("m=linspace(1,2,0)"), "m: expected a range of 1 .. 1000000 values, got 0"),
    (lambda: parse_axis("m=linspace(1,x,3)"), "m: expected a number, got 'x'"),
    (lambda: parse_axis("m=geomspace(0,1,3)"), "m: expected geomspace between numbers > 0"),
    (lambda: parse_axis("eta=logspace(0,999,3)"), "eta: expected a range of finite numbers"),
    (
        lambda: parse_axis("data_seed=linspace(0,18446744073709551615,3)"),
        r"data_seed: expected a range below 2\^53; list larger integers",
    ),
    (lambda: axis_from_table("m", {}), "m: expected one range"),
    (lambda: axis_from_table("m", {"linspace": 3}), "m: expected one range"),
    (lambda: axis_from_table("m", [[1]]), r"m: expected numbers or words, got \[1\]"),
    (lambda: axis_from_table("m", [True]), "m: expected numbers or words, got True"),
    (lambda: make_axes({"x": [1]}, {}), "x: unknown setting"),
    (lambda: make_axes({"m": []}, {}), "m: expected at least one value, got none"),
    (lambda: make_axes({"m": {"a": 1}.items}, {}), "m: expected a list of values"),
    (lambda: make_axes({"m": [[1]]}, {}), r"m: expected an integer, got \[1\]"),
    (lambda: make_axes({"m": [1.5]}, {}), "m: expected an integer, got 1.5"),
    (lambda: make_axes({"m": [None]}, {}), "m: expected an integer, got None"),
    (lambda: make_axes({"eta": ["x"]}, {}), "eta: expected a number, got 'x'"),
    (lambda: make_axes({"eta": [True]}, {}), "eta: expected a number, got True"),
    (lambda: make_axes({"eta": [1, 1.0]}, {}), "eta: expected different values, got 1.0 twice"),
    (lambda: make_axes({"modality": ["both", "multi"]}, {}), "modality: expected one of single"),
    (lambda: make_axes({"snr": ["x"]}, {}), "snr: expected a finite number >= 0, got 'x'"),
    (lambda: make_axes({"snr": [None]}, {}), "snr: expected a finite number >= 0, got None"),
    (lambda: make_axes({"snr": [float("nan")]}, {}), "snr: expected a finite number >= 0, got nan"),
    (lambda: make_axes({"n_snr2": [-1]}, {}), "n_snr2: expected a finite number >= 0, got -1"),
    (
        lambda: make_axes({"snr": [1]}, {"n_snr2": [2]}),
        "n_snr2: expected one axis that sets mu_norm, got snr too",
    ),
    (lambda: make_axes({"m": [1]}, {"m": [2]}), "m: expected one axis that sets m, got m too"),
    (
        lambda: make_axes({}, {"m": [1], "n": [2, 3]}),
        "zip: expected lists of one length, got m of 1, n of 2",
    ),
]


@pytest.mark.parametrize(("call", "message"), MISTAKES, ids=[m[:40] for _, m in MISTAKES])
def test_mistakes(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        call()
