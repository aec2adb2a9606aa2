"""`load`: rows equal to `train` bit for bit, whatever cut, chunk and worker; names and types."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import mmcl_fast
from mmcl_fast import TrainConfig
from mmcl_fast.config import FIELD_NAMES
from mmcl_fast.derived import derived
from mmcl_fast.errors import ConfigError, OutputError
from mmcl_fast.sweep import Plan, Policy, load, make_plan, run_sweep
from mmcl_fast.sweep.execute import shard
from mmcl_fast.sweep.plan.point_table import Points
from mmcl_fast.sweep.store.plan_file import write_plan
from mmcl_fast.sweep.store.store import Store, provenance
from tests.sweep.disturbance import parts

CURVES = ("loss", "ood_accuracy", "signal", "noise")
BASE = TrainConfig(n=12, d=60, m=4, epochs=6, n_test=10, data="reduced", evaluate_every=3)
DIVERGING = {"q": 3, "eta": 1000.0, "sigma_0": 1.0, "epochs": 50}


def assert_rows_of(table: pa.Table, plan: Plan) -> None:
    """Every row is what `train` gives for its config, bit for bit."""
    assert table["run_id"].to_pylist() == list(range(len(plan)))
    for row, cfg in zip(table.to_pylist(), plan.configs(range(len(plan))), strict=True):
        run = mmcl_fast.train(cfg)
        told = {name: row[name] for name in FIELD_NAMES}
        assert told == cfg.to_dict()
        assert told == {**run.config.to_dict(), "d_b": cfg.d_b, "sigma_xi_b": cfg.sigma_xi_b}
        for name, value in derived(cfg).items():
            np.testing.assert_equal(row[name], value)
        assert (row["status"], row["diverged_at"]) == (run.status, run.diverged_at)
        assert row["error"] is None
        for name in CURVES:
            ours, theirs = np.array(row[name]), getattr(run, name).double().numpy()
            np.testing.assert_array_equal(ours, theirs, err_msg=name)
            np.testing.assert_equal(row[f"final_{name}"], theirs[-1])


SWEEPS = {
    "sizes": (BASE, {"grid": {"m": [4, 8], "n": [12, 9], "modality": "both"}, "seeds": 2}),
    "dimension": (BASE, {"grid": {"d": [60, 2**53], "noise_rate": [0.1, 0.5]}}),
    "float64": (BASE.replace(dtype="float64"), {"grid": {"snr": [0.0, 0.3]}, "seeds": 2}),
    "both types": (BASE, {"grid": {"dtype": ["float32", "float64"]}, "seeds": 2}),
    "last seeds": (BASE, {"seeds": 3, "first_seed": 2**64 - 3}),
    "own seeds": (BASE, {"grid": {"data_seed": [None, 2**64 - 1], "init_seed": [1, 2]}}),
    "engines": (BASE, {"grid": {"engine": ["native", "gram", "primal", "reference"]}}),
    "explicit": (BASE.replace(data="explicit"), {"zipped": {"n": [9, 12], "tau": [None, 0.5]}}),
    "optimizers": (
        BASE.replace(data="explicit"),
        {"grid": {"optimizer": ["gd", "momentum", "adam"]}},
    ),
    "negatives": (BASE, {"grid": {"negatives_per_sample": [None, 2]}, "seeds": 2}),
    "diverging": (BASE.replace(**DIVERGING), {"grid": {"eta": [1e-9, 1000.0]}, "seeds": 2}),
    "no epochs": (BASE.replace(epochs=0), {"seeds": 2}),
    "never evaluated": (BASE.replace(evaluate_every=0), {"seeds": 2}),
}


@pytest.mark.parametrize(("base", "arguments"), SWEEPS.values(), ids=SWEEPS)
def test_rows_are_those_of_single_runs(
    base: TrainConfig, arguments: dict, tmp_path: Path, compute: Callable
) -> None:
    plan = make_plan(base, **arguments)
    counts = compute(plan, tmp_path / "store").counts
    assert sum(counts.values()) == len(plan)
    table = load(tmp_path / "store")
    assert_rows_of(table, plan)
    kind = pa.list_(pa.float64() if "float64" in table["dtype"].to_pylist() else pa.float32())
    assert {table.schema.field(name).type for name in CURVES} == {kind}


def test_a_diverged_run_is_a_row(tmp_path: Path, compute: Callable) -> None:
    plan = make_plan(BASE.replace(**DIVERGING))
    assert compute(plan, tmp_path / "store").counts == {"diverged": 1}
    (row,) = load(tmp_path / "store").to_pylist()
    assert row["status"] == "diverged"
    assert np.isfinite(row["loss"][: row["diverged_at"]]).all()
    assert np.isnan(row["loss"][row["diverged_at"] :]).all()
    assert len(row["loss"]) == 51


def test_rows_do_not_depend_on_cut_or_chunk(
    tmp_path: Path, compute: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(BASE, grid={"m": [4, 5], "modality": "both", "snr": [0.1, 0.3]}, seeds=3)
    compute(plan, tmp_path / "whole")
    expected = load(tmp_path / "whole")
    choose = np.random.default_rng(2)
    for chunk in (1, 5):
        monkeypatch.setattr(shard, "CHUNK_RUNS", chunk)
        mixed = replace(plan, shard_of=choose.integers(0, 4, len(plan), np.int32))
        folder = Store(tmp_path / f"chunk {chunk}")
        folder.prepare()
        write_plan(mixed, folder.path)
        compute(plan, folder.path)  # takes the store's cut
        assert len(parts(folder.path)) == 4
        found = load(folder.path)
        assert repr(found.to_pydict()) == repr(expected.to_pydict())


def test_rows_of_two_worker_processes(tmp_path: Path) -> None:
    plan = make_plan(BASE, grid={"engine": ["native", "gram"], "m": [4, 8]}, seeds=2)
    result = run_sweep(plan, tmp_path / "store", policy=Policy(workers=2))
    assert (result.workers, result.computed) == (2, 8)
    assert_rows_of(load(tmp_path / "store"), plan)


def test_a_run_that_raises_is_a_row_with_a_traceback(
    tmp_path: Path, compute: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(BASE, seeds=4)
    good = shard.train_many

    def fails(configs: list[TrainConfig], **options: object) -> list:
        if any(cfg.seed in (1, 3) for cfg in configs):
            raise ArithmeticError("no such\nnumber")
        return good(configs, **options)

    monkeypatch.setattr(shard, "train_many", fails)
    store = tmp_path / "store"
    assert compute(plan, store).counts == {"finished": 2, "failed": 2}
    rows = load(store).to_pylist()
    assert [row["status"] for row in rows] == ["finished", "failed"] * 2
    assert rows[1]["error"] == "number"
    assert rows[1]["loss"] is None
    assert np.isnan(rows[1]["final_loss"])
    assert {p.name for p in (store / "failures").iterdir()} == {"run-1.txt", "run-3.txt"}
    assert "ArithmeticError: no such" in (store / "failures" / "run-3.txt").read_text()
    np.testing.assert_array_equal(
        np.array(rows[2]["loss"]), mmcl_fast.train(plan.config(2)).loss.double().numpy()
    )
    # They stay failed until they are asked for again.
    monkeypatch.setattr(shard, "train_many", good)
    assert compute(plan, store).computed == 0
    assert compute(plan, store, retry_failed=True).counts == {"finished": 4}
    assert_rows_of(load(store), plan)
    assert not list((store / "failures").iterdir()), "tracebacks of runs that are well"


def test_columns_in_the_order_asked_for(tmp_path: Path, compute: Callable) -> None:
    compute(make_plan(BASE, seeds=2), tmp_path)
    table = load(tmp_path, ["final_loss", "seed", "computed_on"])
    assert table.schema.names == ["final_loss", "seed", "computed_on"]
    assert table["seed"].to_pylist() == [0, 1]
    assert set(table["computed_on"].to_pylist()) == {f"mmcl_fast {mmcl_fast.__version__}, native"}
    assert load(tmp_path, []).num_rows == 2
    with pytest.raises(ConfigError, match=r"^zz: unknown column; help\(mmcl_fast.sweep.load\) l"):
        load(tmp_path, ["zz"])
    with pytest.raises(ConfigError, match=r"final_los: unknown column; did you mean final_loss\?"):
        load(tmp_path, ["final_los"])


def test_rows_are_sorted_across_parts(tmp_path: Path, compute: Callable) -> None:
    plan = make_plan(BASE, grid={"snr": [0.1, 0.2], "m": [4, 8]}, seeds=2)
    assert plan.runs_of(0).tolist() == [0, 1, 4, 5], "parts interleave"
    compute(plan, tmp_path)
    table = load(tmp_path, ["run_id", "m", "loss"])
    assert table["run_id"].to_pylist() == list(range(8))
    assert table["m"].to_pylist() == [4, 4, 8, 8] * 2


def test_a_store_that_is_not_complete(tmp_path: Path, compute: Callable) -> None:
    with pytest.raises(OutputError, match=r"store: expected a directory with plan.parquet"):
        load(tmp_path / "nowhere")
    plan = make_plan(BASE, grid={"m": [4, 8]}, seeds=2)
    compute(plan, tmp_path, part=(1, 2))  # the longer runs
    assert load(tmp_path)["run_id"].to_pylist() == [2, 3]
    Store(tmp_path).part(1).unlink()
    empty = load(tmp_path)
    assert empty.num_rows == 0
    compute(plan, tmp_path)
    assert load(tmp_path).schema == empty.schema


def test_parts_from_before_a_plan_took_float64(tmp_path: Path, compute: Callable) -> None:
    compute(make_plan(BASE, seeds=2), tmp_path)
    before = load(tmp_path)["loss"].to_pylist()
    plan = make_plan(BASE, grid={"dtype": ["float32", "float64"]}, seeds=2)
    compute(plan, tmp_path, extend=True)
    table = load(tmp_path)
    assert table.schema.field("loss").type == pa.list_(pa.float64())
    assert table["loss"].to_pylist()[:2] == before
    assert_rows_of(table, plan)


def test_another_engine_is_marked(
    tmp_path: Path, compute: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan of a machine with a GPU goes on here only if that is asked for, and rows say so."""
    here = make_plan(BASE.replace(engine="gram"), seeds=2)
    gpu = "mmcl_fast 0, gram, torch 0, GPU"
    there = replace(
        here, points=Points.of([c.replace(device="cuda") for c in here.points]), numerics=(gpu,)
    )
    folder = Store(tmp_path)
    folder.prepare()
    write_plan(there, tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"device: cuda only in the store.*--allow-other-engine"):
        compute(here, tmp_path)
    assert compute(here, tmp_path, any_engine=True).counts == {"finished": 2}
    for row in load(tmp_path).to_pylist():
        assert (row["device"], row["engine"]) == ("cpu", "native")
        assert row["computed_on"] == f"mmcl_fast {mmcl_fast.__version__}, native"


def test_want_of_memory_is_a_failed_row_elsewhere_too(
    tmp_path: Path, compute: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not take the worker down, which would look like a deadly shard."""
    plan = make_plan(BASE, seeds=2)
    monkeypatch.setattr("mmcl_fast.engines.cost.available_bytes", lambda: 1)
    assert compute(plan, tmp_path, any_engine=True).counts == {"failed": 2}
    assert all("DataError: memory" in text for text in load(tmp_path)["error"].to_pylist())


def test_another_processor_is_refused(tmp_path: Path, compute: Callable) -> None:
    plan = make_plan(BASE.replace(engine="gram"), seeds=2)
    folder = Store(tmp_path)
    folder.prepare()
    write_plan(replace(plan, numerics=("mmcl_fast 0, gram, elsewhere",)), tmp_path)
    with pytest.raises(ConfigError, match="engine: expected what the plan was made with"):
        compute(plan, tmp_path)
    assert compute(plan, tmp_path, any_engine=True).computed == 2
    assert set(load(tmp_path)["computed_on"].to_pylist()) == {plan.numerics[0]}
    assert set(load(tmp_path)["engine"].to_pylist()) == {"gram"}


def test_publishing_a_shard_needs_no_other(tmp_path: Path) -> None:
    """A part is written from the plan alone, by whoever has it."""
    plan = make_plan(BASE, grid={"m": [4, 8]}, seeds=2)
    folder = Store(tmp_path)
    folder.prepare()
    write_plan(plan, tmp_path)
    folder.publish(plan, 1, shard.compute(plan, 1), provenance(1))
    assert load(tmp_path)["run_id"].to_pylist() == [2, 3]
