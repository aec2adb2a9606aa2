"""The checks on small real runs, the settings they train at, and what the command leaves."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from mmcl_fast import ConfigError, TrainConfig, theory, train
from mmcl_fast.cli.command_line import run as mmcl
from mmcl_fast.data.signal_noise.sampling import sample
from mmcl_fast.experiments.scaling import FIGURE_1_START, Scaled
from mmcl_fast.experiments.theory_checks import (
    c_mu,
    concentration,
    convergence,
    couplings,
    first_stage,
    generalisation,
    growth,
    pairs,
    scale,
    signs,
    stage2,
)
from mmcl_fast.experiments.theory_checks.check import Finding, Panel, Row, Series
from mmcl_fast.experiments.theory_checks.coverage import STATEMENTS, coverage_markdown, rows_of
from mmcl_fast.experiments.theory_checks.names import CHECK_NAMES
from mmcl_fast.experiments.theory_checks.report import to_json, to_markdown
from mmcl_fast.experiments.theory_checks.run import CHECKS
from mmcl_fast.plotting import curves
from mmcl_fast.plotting import theory as plotting_theory

SEEDS = (0, 1)


def test_scaled_settings_are_figure_1_at_its_size() -> None:
    figure1 = TrainConfig(data="reduced", tau=0.02)
    mine = Scaled(n=100, d=2000).config()
    for name, value in figure1.to_dict().items():
        got = getattr(mine, name)
        assert got == (pytest.approx(value, rel=1e-12) if isinstance(value, float) else value), name


@pytest.mark.parametrize("n", [50, 800])
@pytest.mark.parametrize("d", [10**4, 10**9])
def test_scaled_settings_hold_what_they_say(n: int, d: int) -> None:
    point = Scaled(n=n, d=d, m=20, n_snr2=0.7, c_mu=2.0, noise_rate=0.1, noise_start=0.01)
    cfg = point.config(epochs=3)
    rate = cfg.eta * cfg.sigma_xi**2 * d / (n * cfg.m * cfg.tau_value)
    assert rate == pytest.approx(0.1)
    assert cfg.sigma_0 * cfg.sigma_xi * math.sqrt(d) == pytest.approx(0.01)
    sizes = {"mu_norm": cfg.mu_norm, "sigma_xi": cfg.sigma_xi, "d": d}
    assert theory.n_snr2(n=n, **sizes) == pytest.approx(0.7)
    assert cfg.mu_b_norm / cfg.mu_norm == pytest.approx(2.0)
    assert (cfg.epochs, cfg.data) == (3, "reduced")


def test_default_scaled_settings_meet_assumption_4_1() -> None:
    cfg = Scaled().config()
    names = ("n", "d", "m", "eta", "sigma_0", "sigma_xi", "sigma_eps", "mu_norm", "mu_b_norm")
    checks = theory.assumption_4_1(**{name: getattr(cfg, name) for name in names})
    assert [c.condition for c in checks if not c.holds] == []


@pytest.mark.parametrize(
    "grid",
    [
        growth.GrowthGrid(),
        first_stage.FirstStageGrid(),
        pairs.PairsGrid(),
        scale.ScaleGrid(),
        stage2.Stage2Grid(),
        convergence.ConvergenceGrid(),
    ],
    ids=lambda grid: type(grid).__name__,
)
def test_checks_of_lemmas_meet_the_assumption_at_every_start(grid) -> None:
    """Also Proposition C.13's limit on the step, and at the largest n."""
    rates = getattr(grid, "rates", None) or (grid.noise_rate,)
    sizes = grid.n if isinstance(grid.n, tuple) else (grid.n,)
    starts = getattr(grid, "starts", (FIGURE_1_START,))
    names = ("n", "d", "m", "eta", "sigma_0", "sigma_xi", "sigma_eps", "mu_norm", "mu_b_norm")
    places = [(n, starts[0]) for n in sizes]
    places += [(getattr(grid, "starts_n", sizes[0]), start) for start in starts]
    for n, start in places:
        cfg = Scaled(n=n, noise_rate=max(rates), noise_start=start).config()
        checks = theory.assumption_4_1(
            **{name: getattr(cfg, name) for name in names}, tau=cfg.tau_value
        )
        assert [c.condition for c in checks if not c.holds] == [], (n, start)


@pytest.mark.parametrize("name", ["n_snr2", "noise_rate", "noise_start"])
def test_scaled_settings_refuse(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}: expected a finite number > 0, got 0"):
        Scaled(**{name: 0.0})


@pytest.mark.parametrize("modality", ["single", "multi"])
def test_signal_parts_are_projections_of_the_weights(modality: str) -> None:
    """In explicit data the weights exist, so the last part can be had without coefficients."""
    cfg = TrainConfig(n=12, d=40, m=6, modality=modality, epochs=30, dtype="float64", eta=0.2)
    run = train(cfg)
    data = sample(cfg)
    for which, suffix in (("a", ""), ("b", "_b"))[: 1 + cfg.is_multi]:
        start, moved, end = signs.signal_parts(run, data, suffix)
        mu = getattr(data, f"mu{suffix}")
        torch.testing.assert_close(end, run.weights(which) @ mu, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(start, getattr(data, f"weights{suffix}") @ mu)
        torch.testing.assert_close(moved - start, getattr(run, f"gamma{suffix}"))
        assert (end - moved).abs().max() > 1e-3, "the noise's part is there"


TINY = {
    "growth": lambda: growth.check(
        SEEDS,
        growth.GrowthGrid(
            n=20, rates=(0.1,), starts=(FIGURE_1_START, FIGURE_1_START / 10), large_n=40
        ),
    ),
    "first_stage": lambda: first_stage.check(
        SEEDS, first_stage.FirstStageGrid(n=20, rates=(0.2,), starts=(FIGURE_1_START, 0.01))
    ),
    "scale": lambda: scale.check(
        SEEDS, scale.ScaleGrid(n=(10, 20), starts=(0.1, 0.01), starts_n=20, c_mu=(3.0,))
    ),
    "signs": lambda: signs.check(SEEDS, signs.SignsGrid(n=20, d=(100, 10**6), epochs=60)),
    "c_mu": lambda: c_mu.check(
        SEEDS, c_mu.CMuGrid(n=30, c_mu=(0.5, 2.66, 6.0), n_snr2=(1.25, 0.7), epochs=60, n_test=50)
    ),
    "test_error": lambda: generalisation.check(
        SEEDS,
        generalisation.GeneralisationGrid(
            d=(200, 1000),
            fixed_n=20,
            fixed_n_d=(200, 10**5),
            probe_samples=(30, 60),
            epochs=60,
            n_test=50,
        ),
    ),
    "convergence": lambda: convergence.check(
        SEEDS,
        convergence.ConvergenceGrid(n=20, epochs=300, losses=(1.0, 0.1, 0.01), gradient_epochs=50),
    ),
    "stage2": lambda: stage2.check(SEEDS, stage2.Stage2Grid(n=20, epochs=400, every=20)),
    "pairs": lambda: pairs.check(SEEDS, pairs.PairsGrid(n=20, sums_n=(20, 80))),
    "concentration": lambda: concentration.check(
        SEEDS, concentration.ConcentrationGrid(n=20, m=10, d=(500, 10**6))
    ),
    "couplings": lambda: couplings.check(SEEDS, couplings.CouplingsGrid(n=(10, 20))),
}


def test_every_check_is_in_the_tables() -> None:
    assert tuple(CHECKS) == CHECK_NAMES == tuple(TINY)


@pytest.fixture(scope="module")
def findings() -> dict[str, Finding]:
    return {name: run() for name, run in TINY.items()}


@pytest.mark.parametrize("name", CHECK_NAMES)
def test_a_check_reports_and_can_be_drawn(
    name: str, findings: dict[str, Finding], tmp_path: Path
) -> None:
    finding = findings[name]
    assert finding.name == name
    for row in finding.rows:
        assert len(row.per_seed) == len(SEEDS)
        assert row.criterion
        assert row.predicted
    for series in finding.panel.series:
        assert len(series.x) == len(series.mean)
        assert (series.modality is None) == (not series.sd)
    figure = plotting_theory.theory([finding], len(SEEDS))
    assert curves.save(figure, tmp_path / "x.png").stat().st_size > 1000
    assert TINY[name]() == finding, "equal seeds, equal numbers"


def test_growth_rates_of_small_runs(findings: dict[str, Finding]) -> None:
    rows = {row.statement: row for row in findings["growth"].rows}
    fitted = rows["multi-modal: signal grows by 1 + 0.48 x rate an epoch"].per_seed
    # Half of the samples carry a neuron's sign, less one negative in n / 2 + 1.
    assert np.mean(fitted) == pytest.approx(0.5, abs=0.12)


def test_what_the_appendix_claims_of_every_pair_fails_in_small_runs_too(
    findings: dict[str, Finding],
) -> None:
    rows = {row.source: row for row in findings["pairs"].rows}
    for source in ("Lemma C.11 (22)", "Lemma C.11 (24)"):
        assert min(rows[source].per_seed) > 0.2
        assert not rows[source].agrees
    assert rows["Lemma C.11 (23)"].per_seed == (0.0, 0.0)
    assert np.mean(rows["Lemma C.9"].per_seed) == pytest.approx(1, abs=0.15)
    assert rows["Lemma C.7"].agrees


def test_the_claim_is_seen_in_small_runs(findings: dict[str, Finding]) -> None:
    rows = findings["test_error"].rows
    assert np.mean(rows[0].per_seed) > 0.3, rows[0]
    assert np.mean(rows[1].per_seed) < 0.05, rows[1]
    at = {row.statement.partition("|mu|, ")[2]: row for row in rows if "single" in row.statement}
    on_training, on_ood = (
        at[f"head on {what}, C = 100)"] for what in ("training embeddings", "60 OOD samples")
    )
    assert np.mean(on_ood.per_seed) < 0.1 < 0.3 < np.mean(on_training.per_seed)


def test_json_and_markdown(findings: dict[str, Finding]) -> None:
    mine = list(findings.values())
    found = json.loads(json.dumps(to_json(mine, SEEDS), allow_nan=False))
    assert found["seeds"] == [0, 1]
    assert list(found["checks"]) == list(CHECK_NAMES)
    row = found["checks"]["signs"]["rows"][0]
    assert row["mean"] == pytest.approx(np.mean(row["per_seed"]))
    assert row["verdict"] in ("agrees", "DIFFERS")
    page = to_markdown(mine)
    lines = page.splitlines()
    assert len(lines) == 2 + sum(len(f.rows) for f in mine)
    assert {line.replace("\\|", "").count("|") for line in lines} == {6}
    assert "`mmcl theory --checks c_mu`" in page


def made_up(per_seed: tuple[float, ...], *, agrees: bool) -> Finding:
    row = Row(
        statement="a |claim|",
        source="Lemma 0",
        predicted="1",
        quantity="x",
        per_seed=per_seed,
        criterion="is 1",
        agrees=agrees,
    )
    line = Series(label="x", modality="single", x=(1.0, 2.0), mean=(3.0, 4.0), sd=(0.5, 0.25))
    guide = Series(label="theory", modality=None, x=(1.0, 2.0), mean=(5.0, 6.0))
    panel = Panel(title="t", xlabel="x", ylabel="y", series=(line, guide), log_x=True)
    return Finding(name="signs", rows=(row,), panel=panel, settings={})


def test_a_difference_is_said_and_what_is_not_finite_is_null() -> None:
    found = to_json([made_up((1.0, math.nan), agrees=False)], [0, 1])
    row = found["checks"]["signs"]["rows"][0]
    assert row["verdict"] == "DIFFERS"
    assert row["per_seed"] == [1.0, None]
    assert row["mean"] is None
    page = to_markdown([made_up((1.0, 2.0), agrees=False)])
    assert "| x: 1.500 ± 0.707 | DIFFERS |" in page
    assert "a \\|claim\\|" in page
    assert "| agrees |" in to_markdown([made_up((1.0, 2.0), agrees=True)])


def test_panels_show_means_bands_and_predictions() -> None:
    (axis,) = plotting_theory.theory([made_up((1.0,), agrees=True)], 1).axes
    assert {text.get_text() for text in axis.get_legend().get_texts()} == {"x", "theory"}
    (guide,) = [line for line in axis.get_lines() if line.get_label() == "theory"]
    np.testing.assert_array_equal(guide.get_ydata(), [5.0, 6.0])
    assert guide.get_color() == "black"
    line = axis.containers[0].lines[0]
    np.testing.assert_array_equal(line.get_ydata(), [3.0, 4.0])
    assert line.get_color() == curves.COLOURS["single"]
    (bars,) = axis.containers
    ends = [segment[:, 1].tolist() for segment in bars[2][0].get_segments()]
    assert ends == [[2.5, 3.5], [3.75, 4.25]]
    assert axis.get_xscale() == "log"
    assert axis.get_yscale() == "linear"


def test_the_command_leaves_its_files(
    tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture
) -> None:
    from mmcl_fast.experiments.theory_checks import run

    seen = []

    def check(seeds):
        seen.append(list(seeds))
        return made_up(tuple(float(s) for s in seeds), agrees=False)

    monkeypatch.setattr(run, "CHECKS", {"signs": check})
    threads = torch.get_num_threads()
    command = ["theory", "--checks", "signs", "--seeds", "3", "--first-seed", "5"]
    assert mmcl([*command, "--out", str(tmp_path)]) == 0
    torch.set_num_threads(threads)
    assert seen == [[5, 6, 7]]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["theory.json", "theory.md", "theory.png"]
    assert json.loads((tmp_path / "theory.json").read_text())["seeds"] == [5, 6, 7]
    said = capsys.readouterr().out
    assert "DIFFERS" in said
    assert "6.000 ± 1.000" in said


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--seeds", "1"], "seeds: expected an integer >= 2 (for a spread), got 1"),
        (["--seeds", "-3"], "seeds: expected an integer >= 2 (for a spread), got -3"),
        (["--checks", "signs", "signs"], "checks: expected each once, got 'signs signs'"),
        (["--first-seed", "-1"], "seed: expected an integer in 0 .. 2^64 - 1, got -1"),
    ],
)
def test_mistakes_leave_nothing(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    threads = torch.get_num_threads()
    out = tmp_path / "out"
    assert mmcl(["theory", *flags, "--out", str(out)]) == 2
    torch.set_num_threads(threads)
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_an_unknown_check_is_named(capsys: pytest.CaptureFixture) -> None:
    assert mmcl(["theory", "--checks", "sign"]) == 2
    said = capsys.readouterr().err
    assert "sign" in said
    assert said.count("\n") == 1


def test_every_statement_has_its_rows_and_every_new_row_its_statement(
    findings: dict[str, Finding],
) -> None:
    results = to_json(list(findings.values()), SEEDS)
    page = coverage_markdown(results).splitlines()
    assert len(page) == 2 + len(STATEMENTS)
    assert {line.replace("\\|", "").count("|") for line in page} == {5}
    listed = [row for s in STATEMENTS for row in rows_of(s, results)]
    for name in ("growth", "first_stage", "signs", "pairs", "concentration", "couplings"):
        for row in results["checks"][name]["rows"]:
            assert row in listed, (name, row["source"])
    for statement in STATEMENTS:
        assert bool(statement.rows) != bool(statement.verdict), statement.number
    (line,) = [line for line in page if line.startswith("| Lemma D.3(1) ")]
    assert "`mmcl theory --checks signs`" in line
    assert "DIFFERS: neurons in it" in line
    del results["checks"]["signs"]["rows"][-1]
    with pytest.raises(ValueError, match=r"^signs: expected a row whose source .*'Lemma D.3\(1\)'"):
        coverage_markdown(results)
