"""What open_clip's losses have beside their value: logits, biases, a scale that is not finite."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, logsigmoid, normalize

import mmcl_fast.distributed
from mmcl_fast.losses.compat import ClipLoss, SigLipLoss
from tests.support.budget import value_and_grads
from tests.support.peers import peer

N, D = 17, 6


def inputs(dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(11)
    image, text = normalize(torch.randn(2, N, D, dtype=torch.float64, generator=g), dim=-1)
    drawn = {
        "image_features": image,
        "text_features": text,
        "logit_scale": torch.tensor(9.0),
        "logit_bias": torch.randn(N, generator=g) * 3,
    }
    return {name: value.to(dtype) for name, value in drawn.items()}


def dense_clip(image_features: Tensor, text_features: Tensor, logit_scale: Tensor,
               logit_bias: Tensor) -> Tensor:  # fmt: skip
    scores = logit_scale * image_features @ text_features.T
    at = torch.arange(len(scores))
    both = (scores + logit_bias, scores.T + logit_bias)
    return (cross_entropy(both[0], at) + cross_entropy(both[1], at)) / 2


def dense_siglip(image_features: Tensor, text_features: Tensor, logit_scale: Tensor,
                 logit_bias: Tensor) -> Tensor:  # fmt: skip
    scores = logit_scale * image_features @ text_features.T + logit_bias
    return -logsigmoid(scores * (2 * torch.eye(len(scores)) - 1)).sum() / len(scores)


FORMULAS = {ClipLoss: dense_clip, SigLipLoss: dense_siglip}


@pytest.mark.parametrize("kind", FORMULAS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_a_bias_of_each_column(kind: Any, dtype: torch.dtype) -> None:
    tensors = inputs(dtype)
    found = value_and_grads(kind(), tensors)
    expected = value_and_grads(FORMULAS[kind], {k: v.double() for k, v in tensors.items()})
    eps = torch.finfo(dtype).eps
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name].double(), value, rtol=8 * eps, atol=8 * eps * value.abs().max().item()
        )


@pytest.mark.parametrize("kind", FORMULAS)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_scale_that_is_not_finite_gives_a_loss_that_a_scaler_skips(kind: Any, bad: float) -> None:
    """As open_clip: a GradScaler then leaves the step out and lowers its factor; others go on."""
    tensors = inputs(torch.float32) | {"logit_bias": torch.tensor(-2.0)}
    tower = nn.Linear(D, D)
    scale = nn.Parameter(torch.tensor(bad))
    optimizer = torch.optim.SGD([*tower.parameters(), scale], lr=1.0)
    before = tower.weight.clone()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    loss = kind()(tower(tensors["image_features"]), tensors["text_features"], scale)
    assert loss.isnan()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    assert torch.equal(tower.weight, before)
    assert scaler.get_scale() == 2.0**15
    assert kind()(*tensors.values(), output_dict=True)["contrastive_loss"].isfinite()


@pytest.mark.parametrize("bias", [False, True])
def test_logits_and_ground_truth_are_theirs(bias: bool) -> None:
    module = peer("open_clip.loss")
    tensors = inputs() if bias else {k: v for k, v in inputs().items() if k != "logit_bias"}
    for ours, theirs in ((ClipLoss(), module.ClipLoss()), (SigLipLoss(), module.SigLipLoss())):
        torch.testing.assert_close(
            ours.get_logits(**tensors), theirs.get_logits(**tensors), rtol=1e-14, atol=1e-14
        )
    device = torch.device("cpu")
    assert torch.equal(ClipLoss().get_ground_truth(device, 5), torch.arange(5))
    several = {"local_loss": True, "rank": 2, "world_size": 3}
    assert torch.equal(
        ClipLoss(**several).get_ground_truth(device, 5),
        module.ClipLoss(**several).get_ground_truth(device, 5),
    )
    for alone in (False, True):
        assert torch.equal(
            SigLipLoss().get_ground_truth(device, torch.float64, 4, negative_only=alone),
            module.SigLipLoss().get_ground_truth(device, torch.float64, 4, negative_only=alone),
        )


def test_their_distilling_loss_on_our_base() -> None:
    """The class open_clip builds on `get_logits` and `get_ground_truth`, with our base."""
    module = peer("open_clip.loss")
    methods = {name: getattr(module.DistillClipLoss, name) for name in ("dist_loss", "forward")}
    ours = type("DistillClipLoss", (ClipLoss,), methods)()
    tensors = {k: v for k, v in inputs().items() if k != "logit_bias"}
    teacher = inputs()["text_features"].roll(1, 0)
    more = {"dist_image_features": teacher, "dist_text_features": teacher.flip(0),
            "dist_logit_scale": torch.tensor(4.0)}  # fmt: skip
    for part in range(2):
        found, expected = (
            value_and_grads(lambda loss=loss, part=part, **t: loss(**t)[part], tensors | more)
            for loss in (ours, module.DistillClipLoss())
        )
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-12, atol=1e-14)


def test_a_chunk_size_changes_nothing() -> None:
    tensors = inputs() | {"logit_bias": torch.tensor(-2.0)}
    assert torch.equal(SigLipLoss(False, 0, 1, None, 4)(**tensors), SigLipLoss()(**tensors))


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("with_grad", [False, True])
def test_several_processes_are_told_what_is_gathered(
    monkeypatch: pytest.MonkeyPatch, with_grad: bool, local: bool
) -> None:
    told: dict[str, Any] = {}

    def clip_loss(image: Tensor, text: Tensor, scale: Tensor, **options: Any) -> Tensor:
        told.update(options, scale=scale)
        return image.sum()

    monkeypatch.setattr(mmcl_fast.distributed, "clip_loss", clip_loss)
    tensors = {k: v for k, v in inputs().items() if k != "logit_bias"}
    ClipLoss(local, with_grad, rank=1, world_size=2)(**tensors)
    assert told.pop("scale").item() == pytest.approx(9.0)
    assert told == {"gather_with_grad": with_grad, "local_loss": local}
