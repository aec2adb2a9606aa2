"""Data of runs drawn by the noise kernel, and their norms, in the interpreter and on a GPU."""

from __future__ import annotations

import pytest
import torch

from mmcl_fast import TrainConfig, train_many
from mmcl_fast.data.signal_noise.gpu import DeviceNormals, square_norms
from mmcl_fast.data.signal_noise.run_batches import SignalNoiseBatch
from mmcl_fast.data.signal_noise.sampling import _Draw, sample_many
from mmcl_fast.training import decomposition

BASE = TrainConfig(n=6, d=40, m=4, n_test=5, device="cpu", sigma_xi=1.7, sigma_eps=0.3)


@pytest.mark.parametrize("modality", ["single", "multi"])
@pytest.mark.parametrize("data", ["explicit", "reduced", "orthogonal"])
def test_draws_are_those_of_the_cpu(data: str, modality: str, device: torch.device) -> None:
    configs = [
        BASE.replace(data=data, modality=modality, seed=seed, sigma_0=0.1 + seed)
        for seed in (0, 3, 2**64 - 1)
    ]
    drawn = SignalNoiseBatch([_Draw(configs, DeviceNormals(device)).block()])
    for ours, want in zip(drawn, sample_many(configs), strict=True):
        assert ours.weights.device.type == device.type
        assert ours.labels.device.type == "cpu"
        for name, value in vars(want).items():
            found = getattr(ours, name)
            assert (found is None) == (value is None), name
            assert value is None or torch.equal(found.cpu(), value), name


def test_norms(device: torch.device) -> None:
    generator = torch.Generator().manual_seed(0)
    blocks = [torch.randn(k, 3, d, generator=generator) for k, d in ((2, 7), (1, 20), (1, 7))]
    found = square_norms(blocks, device).cpu()
    exact = torch.cat([x.double().square().sum(2) for x in blocks])
    torch.testing.assert_close(found.double(), exact, rtol=4 * torch.finfo(torch.float32).eps,
                               atol=0)  # fmt: skip
    assert torch.equal(square_norms(blocks[1:2], device)[0].cpu(), found[2])


@pytest.mark.parametrize("modality", ["single", "multi"])
def test_coefficients_with_norms_of_the_device(
    modality: str, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = BASE.replace(modality=modality, engine="gram", epochs=2, evaluate_every=0, d_b=33)
    cfg = cfg.replace(device=device.type)  # coefficients and norms meet on the CPU
    configs = [cfg.replace(seed=seed) for seed in (0, 3)]
    plain = train_many(configs)
    monkeypatch.setattr(decomposition, "drawing_device", lambda _: device)
    for ours, want in zip(train_many(configs), plain, strict=True):
        for name in ("gamma", "rho", "gamma_b", "rho_b"):
            x, y = getattr(ours, name), getattr(want, name)
            assert (x is None) == (y is None)
            if x is not None:
                torch.testing.assert_close(x, y, rtol=1e-6, atol=0)
