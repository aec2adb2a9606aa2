"""`pytest bench`: a small training run by every variant; slow variants show in the table.

With pytest-benchmark only, and not among the tests of `tests/`. It guards the benchmark itself: a
wrong curve fails, and a variant that breaks is seen before a long measurement.
"""

from __future__ import annotations

import pytest
import torch

from mmcl_fast.bench.cpu import train as bench_train
from mmcl_fast.config import TrainConfig
from mmcl_fast.data.signal_noise.sampling import sample

pytest.importorskip("pytest_benchmark")

SMALL = TrainConfig(device="cpu", evaluate_every=0, n=30, d=300, m=12, epochs=20)
NAMES = [
    bench_train.TEXTBOOK,
    bench_train.EAGER,
    bench_train.SCAN,
    "primal",
    "gram, 1 run",
    "gram, train()",
    "native, Gram given",
    "native, 1 run",
    "native, train()",
    "gram, 8 runs",
    bench_train.TORCH_VMAP,
    bench_train.JAX_VMAP,
]


@pytest.fixture(autouse=True)
def one_thread():
    """One thread, as in the benchmark."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=["single", "multi"])
def setting(request):
    """Config, data and all variants of a small run."""
    cfg = SMALL.replace(modality=request.param)
    data = [sample(cfg.replace(seed=seed)) for seed in range(8)]
    return cfg, data, bench_train.make_variants(cfg)


@pytest.mark.parametrize("name", NAMES)
def test_small_run(setting, name, benchmark):
    """Every variant trains as float64 autograd does."""
    cfg, data, variants = setting
    chosen = [v for v in variants if v.name == name]
    if not chosen:
        pytest.skip("its library is not installed")
    call = chosen[0].bind(data[: chosen[0].runs])
    far = bench_train.distances(cfg, data, chosen)
    assert bench_train.gate(far, first_loss=float(call().reshape(-1)[0])) == []
    benchmark(call)


def test_gate_refuses_a_wrong_curve(setting):
    """The gate sees an error of 0.1 % and a NaN, in one run of several too."""
    cfg, data, variants = setting
    good = variants[0]

    def spoiled(factor):
        def bind(group):
            return lambda: good.bind(group)() * (factor if group[0] is data[1] else 1.0)

        return bind

    wrong = [
        bench_train.Variant("0.1 % off", spoiled(1.001)),
        bench_train.Variant("not a number", spoiled(float("nan"))),
    ]
    far = bench_train.distances(cfg, data[:2], [good, *wrong])
    refused = bench_train.gate(far, first_loss=float(good.bind(data)()[0]))
    assert refused == ["0.1 % off", "not a number"]
