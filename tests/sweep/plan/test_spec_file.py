"""Sweeps in a TOML file: the same as flags, and one line for what a file may not say."""

from pathlib import Path

import pytest

from mmcl_fast import TrainConfig
from mmcl_fast.errors import ConfigError
from mmcl_fast.sweep import Spec, make_plan, read_spec

FILE = """
seeds = 3
first_seed = 18446744073709551613
[base]
data = "reduced"
n = 12
epochs = 6
[grid]
m = [16, 64]
snr = { linspace = [0.1, 0.3, 3] }
modality = "both"
[zip]
d = [50, 100]
tau = ["none", 0.5]
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "sweep.toml"
    path.write_text(text)
    return path


def test_a_file_is_the_same_as_python(tmp_path: Path) -> None:
    spec = read_spec(written(tmp_path, FILE))
    assert spec == Spec(
        TrainConfig(data="reduced", n=12, epochs=6),
        {"m": [16, 64], "snr": [0.1, 0.2, 0.3], "modality": ["both"]},
        {"d": [50, 100], "tau": [None, 0.5]},
        seeds=3,
        first_seed=2**64 - 3,
    )
    assert list(spec.grid) == ["m", "snr", "modality"], "the order of the axes is that of the file"
    plan = make_plan(
        spec.base,
        grid=spec.grid,
        zipped=spec.zipped,
        seeds=spec.seeds,
        first_seed=spec.first_seed,
    )
    assert len(plan) == 2 * 3 * 2 * 2 * 3


def test_an_empty_file_is_one_run_of_figure_1(tmp_path: Path) -> None:
    assert read_spec(written(tmp_path, "")) == Spec(TrainConfig())
    multi = read_spec(written(tmp_path, 'preset = "figure1-multi"\n[base]\nm = 7'))
    assert (multi.base.modality, multi.base.m) == ("multi", 7)


BIG, HUGE = 10**20, 10**400
MISTAKES = [
    ("a = " + "[" * 100_000, "spec: expected a TOML file, got .* recursion"),
    ("[base]\nn = " + "{a = " * 5000 + "1" + "}" * 5000, "spec: expected a TOML file, got .* rec"),
    ("[base]\nn = 1" + "0" * 5000, "spec: expected a TOML file, got .* digits"),
    (f"[base]\nn = {BIG}", f"n: expected an integer below 2\\^63, got {BIG}"),
    (f"[base]\nevaluate_every = {BIG}", "evaluate_every: expected an integer below"),
    (f"[base]\neta = {HUGE}", "eta: expected a finite number, got a larger integer"),
    ("m = [1", "spec: expected a TOML file, got '.*sweep.toml'"),
    (
        "runs = 3",
        "sweep.toml: expected base, grid, zip, metrics, seeds, .*, got runs",
    ),
    ("[grids]\nm = [1]", "sweep.toml: expected base, .*, got grids"),
    ("seeds = 1.5", "seeds: expected an integer, got 1.5"),
    ("seeds = true", "seeds: expected an integer, got True"),
    ('first_seed = "1"', "first_seed: expected an integer, got '1'"),
    ("base = 3", r"base: expected a table \[base\], got 3"),
    ('preset = "figure2"', "preset: expected one of figure1, figure1-multi, got 'figure2'"),
    ("preset = [1]", r"preset: expected one of figure1, figure1-multi, got \[1\]"),
    ("[base]\nmm = 3", r"mm: unknown setting; did you mean m\?"),
    ("[base]\nm = 0", "m: expected an integer >= 1, got 0"),
    ("[base]\nm = [1]", r"m: expected an integer, got \[1\]"),
    ("[grid]\nsnrr = [1]", r"snrr: unknown setting; did you mean snr\?"),
    ("[grid]\nm = 2001-01-01", "m: expected numbers or words, got datetime.date"),
    ("[grid]\nm = { range = [1, 2, 3] }", "m: expected one of linspace, geomspace, logspace"),
    ("[grid]\nm = { linspace = [1, 2] }", r"m: expected linspace\(first, last, count\)"),
    ("[zip]\nm = {}", "m: expected one range"),
]


@pytest.mark.parametrize(("text", "message"), MISTAKES, ids=[t[:25] for t, _ in MISTAKES])
def test_mistakes(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        read_spec(written(tmp_path, text))


def test_a_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    (tmp_path / "noise.toml").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "nowhere.toml", tmp_path, tmp_path / "noise.toml"):
        with pytest.raises(ConfigError, match="spec: expected a TOML file, got"):
            read_spec(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"[grid]\nm = [4, {BIG}]", f"m: expected an integer below 2\\^63, got {BIG}"),
        (f"[grid]\neta = [{HUGE}]", "eta: expected a finite number, got a larger integer"),
        (f"[grid]\nsnr = [{HUGE}]", "snr: expected a finite number >= 0, got 1000"),
    ],
)
def test_an_axis_of_huge_numbers(text: str, message: str, tmp_path: Path) -> None:
    spec = read_spec(written(tmp_path, text))
    with pytest.raises(ConfigError, match=message):
        make_plan(spec.base, grid=spec.grid)


def test_a_size_for_which_no_time_is_enough_is_planned(tmp_path: Path) -> None:
    """It is refused where it is to be computed, for its memory."""
    spec = read_spec(written(tmp_path, f"[base]\nn = {2**62}\n[grid]\nm = [4, {2**62}]"))
    assert len(make_plan(spec.base, grid=spec.grid)) == 2
