"""The bench of variants' sweeps: operations of a run, rows, and the comparison with single runs."""

import numpy as np
import pytest

from mmcl_fast.bench.cpu import variant_sweeps
from mmcl_fast.bench.cpu.variant_sweeps import EVALUATED, NEWTON_STEPS, run_flop
from mmcl_fast.bench.cpu.variants import epoch_flop


def test_operations_of_a_run() -> None:
    n, m = EVALUATED.n, EVALUATED.m
    never = EVALUATED.replace(evaluate_every=0)
    assert run_flop(never.replace(epochs=300)) - run_flop(never) == 100 * epoch_flop(never)
    # Heads of 10 classes and of 2 at 11 evaluations; the other products differ by the signals.
    classes = [EVALUATED.replace(classes=k) for k in (2, 10)]
    evaluations = [run_flop(x) - run_flop(x.replace(evaluate_every=0)) for x in classes]
    heads = 11 * 8 * NEWTON_STEPS * (n * m**2 + m**3 / 3)
    assert evaluations[1] - evaluations[0] == pytest.approx(heads, rel=0.1)


@pytest.mark.process
def test_rows_of_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = EVALUATED.replace(n=20, d=60, m=6, epochs=20, n_test=10)
    monkeypatch.setattr(variant_sweeps, "EVALUATED", tiny)
    paper, logistic = variant_sweeps.measure(["logistic"], runs=40, rounds=1)
    assert paper["settings"]["option"] == "the paper's model, single"
    assert paper["rate_per_flop"] == 1.0
    ratio = paper["cpu_ms_per_run"]["p50"] / logistic["cpu_ms_per_run"]["p50"]
    assert logistic["of_papers_rate"] == pytest.approx(ratio, rel=0.01)
    flop = run_flop(tiny.replace(objective="logistic", label_noise=0.1)) / run_flop(tiny)
    assert logistic["of_papers_flop"] == pytest.approx(flop, abs=1e-3)


def test_a_row_that_is_not_its_run_is_noticed() -> None:
    plan = variant_sweeps.sweep.make_plan(
        EVALUATED.replace(n=20, d=60, m=6, epochs=2, n_test=10), seeds=2
    )
    rows = []
    for run_id in plan.runs_of(0).tolist():
        run = variant_sweeps.train(plan.config(run_id))
        curves = {name: getattr(run, name).numpy() for name in variant_sweeps.CURVES}
        rows.append({"run_id": run_id, **curves})
    variant_sweeps.check(plan, rows)
    rows[-1]["noise"] = np.nextafter(rows[-1]["noise"], np.float32(1))
    with pytest.raises(AssertionError):
        variant_sweeps.check(plan, rows)
