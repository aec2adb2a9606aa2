"""The bench of model variants: its peer is the same model, and its ratios of operations."""

from typing import Any

import pytest
import torch

from mmcl_fast import TrainConfig
from mmcl_fast.bench.cpu.train import engine_losses
from mmcl_fast.bench.cpu.variants import OPTIONS, epoch_flop
from mmcl_fast.bench.peers.variants import eager_variant_losses, textbook_variant_losses
from mmcl_fast.data import sample

SMALL: dict[str, Any] = {"n": 20, "d": 60, "m": 8, "n_test": 4, "epochs": 12, "dtype": "float64"}


@pytest.mark.parametrize("option", OPTIONS)
def test_eager_pytorch_trains_the_same_model(option: str) -> None:
    cfg = TrainConfig(**SMALL | OPTIONS[option] | {"q": 2, "sigma_0": 0.05})
    data = sample(cfg)
    exact = engine_losses("reference", cfg, [data])[0]
    for peer in (eager_variant_losses, textbook_variant_losses):
        torch.testing.assert_close(peer(cfg, data), exact, rtol=1e-10, atol=1e-12)
    assert exact[0] != exact[-1], "premise: something was learned"


def test_operations_of_an_epoch() -> None:
    n, m = 100, 50
    single, multi = (TrainConfig(n=n, m=m, modality=x) for x in ("single", "multi"))
    # Half of the columns change; scores of half of the pairs, and half of their products.
    assert epoch_flop(single) == 2 * m * ((2 * n + 1) * (n + 1) / 2 + 1.5 * n**2 / 2)
    assert epoch_flop(multi) == 2 * m * (2 * (n + 1) ** 2 / 2 + 2 * n**2 / 2)
    keys = single.replace(stop_gradient="none")
    assert epoch_flop(keys) - epoch_flop(single) == m * n * (2 * n + 1), "n more columns"
    assert epoch_flop(single.replace(negatives="all")) - epoch_flop(single) == 1.5 * m * n**2
    assert epoch_flop(single.replace(objective="logistic")) == m * (n + 1) ** 2
