"""Tables of GPU results, from rows that nobody measured."""

import json
from pathlib import Path
from typing import Any

import pytest

from mmcl_fast.bench.gpu.runner import rows_of
from mmcl_fast.bench.report import __main__ as report
from mmcl_fast.bench.report import gpu_prepared, gpu_tables

RUN = {
    "device": {"gpu": "a GPU"},
    "versions": {"torch": "2.11", "triton": "3.6"},
    "commit": "c" * 40,
    "dirty": False,
    "date": "2026-01-02T00:00:00",
    "command": "python -m bench.gpu",
}
SOURCE = "a GPU, torch 2.11, triton 3.6, commit cccccccccc, 2026-01-02: `python -m bench.gpu`."
NAMES = tuple(
    f"gpu_{op}" for op in ("trajectory", "primal", "loss", "typical", "long", "sweep", "data")
)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(gpu_tables, "GPU", tmp_path / "gpu.jsonl")
    return tmp_path / "gpu.jsonl"


def write(path: Path, *rows: dict[str, Any]) -> None:
    path.write_text("".join(json.dumps({**RUN, **row}) + "\n" for row in rows))


def row(op: str, variant: str, settings: dict[str, Any], **found: Any) -> dict[str, Any]:
    return {"op": op, "variant": variant, "settings": settings, **found}


def ms(value: float, **more: Any) -> dict[str, Any]:
    return {"ms": {"p20": value, "p50": value, "p80": value}, "peak_mib": 7.4, **more}


@pytest.mark.parametrize("name", NAMES)
def test_nothing_measured_is_said(name: str, file: Path) -> None:
    assert "Nothing has been measured on a GPU yet" in report.TABLES[name]()
    op = name.removeprefix("gpu_")
    step = row("step", op, {}, status="skipped", reason="needs gate_x")
    write(file, step, {**step, "date": "2025-01-01", "reason": "an older one"})
    text = report.TABLES[name]()
    assert "Nothing was measured: skipped, needs gate_x." in text
    assert SOURCE in text


def test_trajectory(file: Path) -> None:
    single = {"modality": "single"}
    multi = {"modality": "multi", "runs": 1056}
    write(
        file,
        row("gate_trajectory", "triton, ieee", single, error=2.5e-7),
        row("gate_trajectory", "triton, ieee", single, error=9.0, date="2025-01-01"),
        row("trajectory", "triton, ieee", {**single, "runs": 1056}, **ms(9.0), runs_per_s=12345.6),
        row("trajectory", "triton, ieee", multi, skipped="RuntimeError: no"),
        row("trajectory", "JAX vmap", {**single, "runs": 256}, **ms(9.0), runs_per_s=24691.2),
        row("trajectory", "eager", {**single, "runs": 1}, **ms(9.0, host_bound=True), runs_per_s=3),
    )
    text = gpu_tables.gpu_trajectory()
    assert "| triton, ieee | 1,056 | 12,346 | 0.50 | 2e-07 | – | – | – |" in text
    assert "| JAX vmap | 256 | 24,691 | 1.00 | – | – | – | – |" in text
    assert "| eager | 1 | 3 † |" in text
    assert "† The host needs as long" in text
    assert "Not measured, multi-modal: triton, ieee: RuntimeError: no." in text
    assert "|  | runs | single-modal, runs/s |" in text
    assert "`train_many` in batches of up to 1,056" in " ".join(text.split())
    assert SOURCE in text


def test_trajectory_compares_with_peers_of_no_lower_precision(file: Path) -> None:
    size = {"modality": "single", "runs": 256}
    write(
        file,
        *(
            row("trajectory", name, size, **ms(9.0), runs_per_s=rate)
            for name, rate in (
                ("triton, ieee", 300.0), ("triton, tf32", 900.0), ("JAX vmap", 100.0),
                ("JAX vmap, tf32", 200.0),
            )
        ),
    )  # fmt: skip
    text = gpu_tables.gpu_trajectory()
    assert "| triton, ieee | 256 | 300 | 3.00 |" in text
    assert "| triton, tf32 | 256 | 900 | 4.50 |" in text
    assert "| JAX vmap, tf32 | 256 | 200 | 1.00 |" in text


def test_gram(file: Path) -> None:
    size = {"modality": "single", "n": 512, "m": 64, "runs": 1}
    later = {**size, "n": 1024}
    write(
        file,
        row("gram", "gram, replayed", size, **ms(2.0), ms_per_epoch=0.1),
        row("gram", "gram, eager launches", size, **ms(20.0), ms_per_epoch=1.0),
        row("gram", "gram, replayed", later, skipped="no time was left"),
    )
    text = gpu_tables.gpu_gram()
    assert "| 512 | 64 | 1 | 0.100 | 1.000 | 10.00 |" in text
    assert "1,024" not in text
    assert "no time was left" in text
    assert SOURCE in text


def test_what_was_not_measured_is_named_by_modality() -> None:
    names = ("eager, tuned, float32", "JAX vmap", "vmapped torch")
    skipped = [
        row("trajectory", name, {"modality": modality, "runs": 1}, skipped=why)
        for name, modality, why in (
            (names[0], "multi", "no time was left"),
            (names[1], "multi", "no time was left"),
            (names[2], "single", "no time was left"),
            (names[2], "multi", "no time was left"),
            (names[1], "single", "not installed"),
        )
    ]
    assert gpu_tables.not_measured(skipped) == [
        f"Not measured, multi-modal: {names[0]}; {names[1]}: no time was left.",
        f"Not measured: {names[2]}: no time was left.",
        f"Not measured, single-modal: {names[1]}: not installed.",
    ]


def test_primal(file: Path) -> None:
    size = {"modality": "single", "n": 16384, "d": 4096, "m": 2048}
    write(
        file,
        row("primal_product", "product, bfloat16", {}, tflops=800.4),
        row("primal", "primal, bf16", {**size, "n": 65536}, **ms(120.0), of_product_rate=0.42),
        row("primal", "primal, bf16", size, **ms(10.0), of_product_rate=0.5),
        row("primal", "eager, tuned, float32", size, **ms(40.0), of_product_rate=0.1),
        row("primal", "eager, tuned, bf16 autocast", size, **ms(5.0), of_product_rate=0.9),
        row("primal", "eager, tuned, compiled, float32", size, skipped="no time was left"),
    )
    text = gpu_tables.gpu_primal()
    assert "| primal, bf16 | 65,536 | 120 | 42% | – | 7 | – | – | – | – |" in text
    assert "| primal, bf16 | 16,384 | 10.0 | 50% | 0.50 | 7 |" in text
    assert "| eager, tuned, bf16 autocast | 16,384 | 5.00 | 90% | 1.00 |" in text
    assert "(800 TFLOP/s)" in text
    assert "no time was left" in text
    write(file, row("primal", "primal, bf16", size, skipped="RuntimeError: no"))
    assert "| primal, bf16 | 16,384 | – | – | – | – |" in gpu_tables.gpu_primal()


def test_loss(file: Path) -> None:
    size = {"loss": "symmetric", "n": 32768, "d": 128}
    reason = "AttributeError: module 'torch.nn.functional' has no attribute 'linear_cross_entropy'"
    write(
        file,
        row("loss", "mmcl_fast", size, **ms(2.0, host_bound=True)),
        row("loss", "dense", size, **ms(10.0)),
        row("loss", "linear_cross_entropy", size, skipped=reason),
        row("loss", "dense, compiled", size, **ms(1.0)),
        row("loss", "mmcl_fast", {**size, "n": 262144}, **ms(890.0)),
        row("loss", "linear_cross_entropy", {**size, "n": 1}, skipped=reason),
    )
    with file.open("a") as results:
        results.write('{"op": "loss", "cut')
    text = gpu_tables.gpu_loss()
    line = "| symmetric, N = 32,768, D = 128 | 2.00 † | 5.00 | 0.50 | 7 | 7 | 7 |"
    assert line in text
    assert "| symmetric, N = 262,144, D = 128 | 890 | – | – | 7 | – | – |" in text
    said = "linear_cross_entropy: torch 2.11 has no `torch.nn.functional.linear_cross_entropy`."
    assert " ".join(text.split()).count(said) == 1
    assert "AttributeError" not in text
    assert len(list(rows_of(file))) == 6


def test_typical(file: Path) -> None:
    size = {"loss": "symmetric", "n": 64, "d": 768}
    write(
        file,
        row("typical", "mmcl_fast", {**size, "n": 2048}, **ms(0.5, enqueue_ms=0.3)),
        row("typical", "mmcl_fast", size, **ms(0.4, enqueue_ms=0.31)),
        row("typical", "mmcl_fast, small batch", size, ok=False, gradient=1.0),
        row("typical", "dense", size, **ms(0.2, enqueue_ms=0.19, host_bound=True)),
        row("typical", "dense, captured", size, **ms(0.05)),
        row("typical", "dense", {**size, "n": 8}, **ms(9.0), dry_run=True, date="2030-01-01"),
    )
    text = gpu_prepared.gpu_typical()
    assert "| 64 | 768 | 0.40 | 0.310 | 0.20 † | 0.190 | 0.05 |" in text
    assert "| 2,048 | 768 | 0.50 | 0.300 | – | – | – |" in text
    assert "| 8 |" not in text


def test_long(file: Path) -> None:
    size = {"loss": "symmetric", "n": 65536, "d": 768}
    write(
        file,
        row("long", "mmcl_fast", size, **ms(60.0)),
        row("long", "mmcl_fast, pipelined", size, **ms(40.0), ok=True),
    )
    assert "| 65,536 | 768 | 60.0 | 40.0 | 1.50 | 7 | 7 |" in gpu_prepared.gpu_long()


def test_sweep(file: Path) -> None:
    write(
        file,
        row("trajectory", "triton, ieee", {"modality": "multi", "runs": 9}, runs_per_s=1.0),
        row("trajectory", "triton, ieee", {"modality": "single", "runs": 9}, runs_per_s=20000.0),
        row("sweep", "mmcl sweep", {"runs": 2000, "workers": 1}, seconds=4.0, runs_per_s=500.0),
        row("sweep", "beyond its start", {"runs": 9, "workers": 1}, runs_per_s=15000.0),
    )
    text = gpu_prepared.gpu_sweep()
    assert "| mmcl sweep | 2,000 | 1 | 4.0 | 500 | 2% |" in text
    assert "| beyond its start | 9 | 1 | – | 15,000 | 75% |" in text


def test_data(file: Path) -> None:
    settings = {"numbers": 134217728}
    write(
        file,
        row("data", "mmcl_fast", settings, **ms(0.4), gnumbers_per_s=372.3),
        row("data", "torch normal_", settings, **ms(0.3), gnumbers_per_s=445.6),
    )
    text = gpu_tables.gpu_data()
    assert "| mmcl_fast | 372 | 0.75 |" in text
    assert "| torch normal_ | 446 | 1.00 |" in text
    assert "134,217,728 float32" in text


def test_a_run_of_part_of_the_steps_leaves_the_others_tables(file: Path) -> None:
    size = {"loss": "symmetric", "n": 32768, "d": 128}
    later = {"date": "2026-01-03", "commit": None, "dirty": None}
    step = row("step", "loss", {}, status="failed", reason="exit status 1")
    write(file, row("loss", "mmcl_fast", size, **ms(2.0)), {**step, **later})
    assert SOURCE in gpu_tables.gpu_loss()
    write(file, {**step, **later})
    assert "commit unknown, 2026-01-03" in gpu_tables.gpu_loss()


def test_what_was_red_stands_below_the_table(file: Path) -> None:
    settings = {"modality": "single", "runs": 1056}
    ours = row("trajectory", "triton, ieee", settings, **ms(1.0), runs_per_s=1e6)
    write(file, ours, ours | {"red": ["test_x 1/2"]})
    assert "Red in this run, see bench/README.md: `test_x 1/2`." in gpu_tables.gpu_trajectory()
    file.unlink()
    write(file, ours)
    assert "Red" not in gpu_tables.gpu_trajectory()
