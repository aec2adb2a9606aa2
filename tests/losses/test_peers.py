"""The same numbers as other libraries: value and gradients in float64."""

from __future__ import annotations

import copy
import math
from functools import partial
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from mmcl_fast import losses
from mmcl_fast.losses.compat import info_nce_pytorch
from tests.losses.peer_cases import D, Loss, M, N, T, assert_same, inputs
from tests.support.peers import peer, require

DIAGONAL = torch.arange(N)


# --- torch ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_torch_cross_entropy(smoothing: float) -> None:
    def theirs(x: Tensor, y: Tensor) -> Tensor:
        both = (x @ y.T / T, y @ x.T / T)
        return sum(cross_entropy(s, DIAGONAL, label_smoothing=smoothing) for s in both) / 2

    ours = partial(losses.info_nce, temperature=T, symmetric=True, label_smoothing=smoothing)
    assert_same(lambda x, y: ours(x, y), theirs, inputs("x", "y"))


def test_torch_linear_cross_entropy() -> None:
    theirs = getattr(torch.nn.functional, "linear_cross_entropy", None)
    if theirs is None:
        pytest.skip(f"torch {torch.__version__} has no linear_cross_entropy (2.13 has)")
    at = torch.arange(M).repeat(7)[:N]
    assert_same(
        lambda x, shared: losses.info_nce(x, shared, positive=at, temperature=T),
        lambda x, shared: theirs(x / T, shared, at),
        inputs("x", "shared"),
    )


# --- open_clip 3.3 --------------------------------------------------------------------------------


def test_open_clip_clip_loss() -> None:
    theirs = peer("open_clip.loss").ClipLoss()
    names = {"x": "image_features", "y": "text_features", "scale": "logit_scale"}
    tensors = {names[k]: v for k, v in inputs("x", "y", "scale", unit=True).items()}
    assert_same(losses.ClipLoss(), theirs, tensors)
    as_dict = losses.ClipLoss()(**tensors, output_dict=True)
    torch.testing.assert_close(as_dict, theirs(**tensors, output_dict=True), rtol=1e-12, atol=0.0)


def test_open_clip_siglip_loss() -> None:
    theirs = peer("open_clip.loss").SigLipLoss()
    names = {
        "x": "image_features", "y": "text_features", "scale": "logit_scale", "bias": "logit_bias",
    }  # fmt: skip
    tensors = {names[k]: v for k, v in inputs("x", "y", "scale", "bias", unit=True).items()}
    assert_same(losses.SigLipLoss(), theirs, tensors)
    as_dict = losses.SigLipLoss()(**tensors, output_dict=True)
    torch.testing.assert_close(as_dict, theirs(**tensors, output_dict=True), rtol=1e-12, atol=0.0)
    without_bias = partial(theirs, logit_bias=None)
    del tensors["logit_bias"]
    assert_same(losses.SigLipLoss(), without_bias, tensors)


# --- lightly 1.6 ----------------------------------------------------------------------------------


def test_lightly_nt_xent() -> None:
    module = peer("lightly.loss.ntx_ent_loss", without="lightly.models.utils")
    for options in ({}, {"temperature": T}):
        assert_same(
            lambda x, y, o=options: losses.NTXentLoss(**o)(x, y),
            lambda x, y, o=options: module.NTXentLoss(**o)(x, y),
            inputs("x", "y"),
        )


def test_lightly_dcl() -> None:
    module = peer("lightly.loss.dcl_loss")
    for options in ({}, {"temperature": T}):
        assert_same(
            lambda x, y, o=options: losses.DCLLoss(**o)(x, y),
            lambda x, y, o=options: module.DCLLoss(**o)(x, y),
            inputs("x", "y"),
        )


def test_lightly_weighted_dcl() -> None:
    module = peer("lightly.loss.dcl_loss")

    def weights(first: Tensor, second: Tensor) -> Tensor:
        # Not symmetric in its arguments, and with a gradient.
        return 1 + (first * second).sum(dim=1) + first[:, 0].square()

    assert_same(
        lambda x, y: losses.DCLLoss(T, weights)(x, y),
        lambda x, y: module.DCLLoss(T, weights)(x, y),
        inputs("x", "y"),
    )


# --- info-nce-pytorch 0.1.4 -----------------------------------------------------------------------


@pytest.mark.parametrize("negatives", [None, "shared", "paired"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_info_nce_pytorch(negatives: str | None, reduction: str) -> None:
    require("info_nce")
    import info_nce as theirs

    options = {"temperature": T, "reduction": reduction}
    if negatives == "paired":
        options["negative_mode"] = "paired"

    def call(loss: Loss) -> Loss:
        def summed(*rows: Tensor) -> Tensor:
            value = loss(*rows)
            weights = torch.linspace(0.5, 1.5, N, dtype=value.dtype)
            return value if reduction != "none" else (weights * value).sum()

        if negatives is None:
            return lambda x, y: summed(x, y)
        return lambda x, y, **more: summed(x, y, *more.values())

    names = ("x", "y") if negatives is None else ("x", "y", negatives)
    assert_same(call(losses.InfoNCE(**options)), call(theirs.InfoNCE(**options)), inputs(*names))
    functions = (partial(f, **options) for f in (info_nce_pytorch.info_nce, theirs.info_nce))
    assert_same(*(call(function) for function in functions), inputs(*names))


def test_the_function_of_info_nce_pytorch_is_not_ours() -> None:
    x, y = inputs("x", "y").values()
    normalising = info_nce_pytorch.info_nce(x, y)
    assert (normalising - losses.info_nce(x, y, temperature=0.1)).abs() > 1


# --- pytorch-metric-learning 2.9 ------------------------------------------------------------------


@pytest.fixture
def metric_learning() -> ModuleType:
    require("pytorch_metric_learning")
    import pytorch_metric_learning.losses

    return pytorch_metric_learning.losses


def test_metric_learning_nt_xent(metric_learning: ModuleType) -> None:
    theirs = metric_learning.SelfSupervisedLoss(metric_learning.NTXentLoss(temperature=T))
    assert_same(
        lambda x, y: losses.nt_xent(normalize(x), normalize(y), temperature=T),
        lambda x, y: theirs(x, y),
        inputs("x", "y"),
    )


def test_metric_learning_one_way(metric_learning: ModuleType) -> None:
    pairs = metric_learning.NTXentLoss(temperature=T)
    theirs = metric_learning.SelfSupervisedLoss(pairs, symmetric=False)
    assert_same(
        lambda x, y: losses.info_nce(normalize(x), normalize(y), temperature=T),
        lambda x, y: theirs(x, y),
        inputs("x", "y"),
    )


def test_metric_learning_queue(metric_learning: ModuleType) -> None:
    theirs = metric_learning.NTXentLoss(temperature=T)
    every = torch.arange(N + M)
    assert_same(
        lambda x, y, shared: losses.info_nce(
            normalize(x), normalize(y), extra_negatives=normalize(shared), temperature=T
        ),
        lambda x, y, shared: theirs(x, every[:N], ref_emb=torch.cat([y, shared]), ref_labels=every),
        inputs("x", "y", "shared"),
    )


def test_metric_learning_sup_con(metric_learning: ModuleType) -> None:
    theirs = metric_learning.SupConLoss(temperature=T)
    labels = torch.arange(N) // 3  # the last is alone, and their mean is over rows of loss > 0
    assert_same(
        lambda x: losses.sup_con(normalize(x), labels, temperature=T, reduction="sum") / (N - 1),
        lambda x: theirs(x, labels),
        inputs("x"),
    )


def test_sup_con_without_negatives(metric_learning: ModuleType) -> None:
    rows, labels = inputs("x")["x"][:3].mul(0), torch.zeros(3)
    assert metric_learning.SupConLoss()(rows, labels) == 0
    assert losses.sup_con(rows, labels).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("labelled", [False, True])
def test_metric_learning_sup_con_of_views(metric_learning: ModuleType, labelled: bool) -> None:
    theirs = metric_learning.SupConLoss(temperature=T)
    labels = torch.arange(12) % 5 if labelled else torch.arange(12)
    assert_same(
        lambda views: losses.SupConLoss(T, "all", T)(
            normalize(views, dim=2), labels if labelled else None
        ),
        lambda views: theirs(views.transpose(0, 1).flatten(end_dim=1), labels.repeat(3)),
        inputs("views"),
    )


# --- GradCache 0.0.1 ------------------------------------------------------------------------------


@pytest.mark.parametrize("hard", [0, 2])
def test_grad_cache_contrastive_loss(hard: int) -> None:
    theirs = peer("grad_cache.loss", folder="gradcache").SimpleContrastiveLoss(hard)
    tensors = inputs("x", "y")
    tensors["x"] = tensors["x"][: N // (hard + 1)]
    tensors["y"] = tensors["y"][: len(tensors["x"]) * (hard + 1)]
    at = torch.arange(0, len(tensors["y"]), hard + 1)
    assert_same(
        lambda x, y: losses.info_nce(x, y, positive=at, temperature=1.0),
        lambda x, y: theirs(x, y),
        tensors,
    )


PAIR_LOSSES: dict[str, Loss] = {
    "info_nce": lambda x, y: losses.info_nce(x, y, temperature=T),
    "symmetric": losses.InfoNCELoss(temperature=T, symmetric=True),
    "siglip": lambda x, y: losses.siglip(x, y, temperature=T, bias=-2.0),
    "ClipLoss": lambda x, y: losses.ClipLoss()(x, y, 5.0),
    "SigLipLoss": lambda x, y: losses.SigLipLoss()(x, y, 5.0, -2.0),
    "NTXentLoss": losses.NTXentLoss(),
    "DCLLoss": losses.DCLLoss(),
    "InfoNCE": losses.InfoNCE(),
    "SupConLoss": lambda x, y: losses.SupConLoss()(normalize(torch.stack([x, y], dim=1), dim=2)),
    "MemoryEfficientCLIPLoss": losses.MemoryEfficientCLIPLoss(),
    "cal_inf_loss": losses.cal_inf_loss,
}


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_grad_cache_takes_it_as_its_loss(name: str) -> None:
    cache = peer("grad_cache.grad_cache", folder="gradcache").GradCache
    torch.manual_seed(5)
    direct = [nn.Linear(D, 6, dtype=torch.float64) for _ in range(2)]
    chunked = copy.deepcopy(direct)
    x, y = inputs("x", "y").values()
    loss = PAIR_LOSSES[name](direct[0](x), direct[1](y))
    loss.backward()
    found = cache(models=chunked, chunk_sizes=16, loss_fn=PAIR_LOSSES[name])(x, y)
    torch.testing.assert_close(found, loss.detach(), rtol=1e-12, atol=0.0)
    for one, other in zip(direct, chunked, strict=True):
        torch.testing.assert_close(other.weight.grad, one.weight.grad, rtol=1e-9, atol=1e-13)
        assert one.weight.grad.any()
