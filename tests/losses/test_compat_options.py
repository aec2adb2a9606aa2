"""Options of the drop-in modules: temperatures that are tensors, `repr`, and refused arguments."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from mmcl_fast.losses import compat
from mmcl_fast.losses.compat import info_nce_pytorch, inputs

G = torch.Generator().manual_seed(3)
X, Y = torch.randn(2, 5, 3, generator=G)
VIEWS = torch.randn(5, 2, 3, generator=G)
QUERY, KEYS = X, torch.randn(5, 4, 3, generator=G)

TEMPERED: dict[str, tuple[type[nn.Module], tuple[Tensor, ...]]] = {
    "InfoNCE": (compat.InfoNCE, (X, Y)),
    "NTXentLoss": (compat.NTXentLoss, (X, Y)),
    "DCLLoss": (compat.DCLLoss, (X, Y)),
    "DCLWLoss": (compat.DCLWLoss, (X, Y)),
    "SupConLoss": (compat.SupConLoss, (VIEWS,)),
    "MemoryEfficientCLIPLoss": (compat.MemoryEfficientCLIPLoss, (X, Y)),
}


@pytest.mark.parametrize("name", TEMPERED)
@pytest.mark.parametrize("shape", [(), (1,)], ids=str)
def test_a_temperature_of_one_element_follows_the_module_and_learns(
    name: str, shape: tuple[int, ...]
) -> None:
    kind, tensors = TEMPERED[name]
    expected = kind(0.3)(*tensors)
    fixed = kind(torch.full(shape, 0.3))
    torch.testing.assert_close(fixed(*tensors), expected, rtol=1e-6, atol=0.0)
    assert [name for name, _ in fixed.named_buffers() if "bank" not in name] == ["temperature"]
    # The checkpoints of the replaced libraries have no such entry.
    assert not fixed.state_dict()
    moved = copy.deepcopy(fixed).to(torch.float64)
    assert moved.temperature.dtype == torch.float64
    learning = kind(nn.Parameter(torch.full(shape, 0.3)))
    learning(*tensors).backward()
    (temperature,) = learning.parameters()
    assert temperature.grad is not None
    assert temperature.grad.shape == shape
    assert temperature.grad.abs().sum() > 0


@pytest.mark.parametrize("name", TEMPERED)
def test_a_temperature_of_several_elements_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"^temperature: expected a tensor of one element.*\[2\]"):
        TEMPERED[name][0](torch.ones(2))


REPRS = {
    "ClipLoss(local_loss=False, gather_with_grad=True, cache_labels=False, rank=1, world_size=2, "
    "use_horovod=False, backend='auto')": lambda: compat.ClipLoss(
        gather_with_grad=True, rank=1, world_size=2
    ),
    "SigLipLoss(cache_labels=False, rank=0, world_size=1, dist_impl='bidir', chunk_size=64, "
    "backend='torch')": lambda: compat.SigLipLoss(chunk_size=64, backend="torch"),
    "InfoNCE(temperature=<tensor>, reduction='sum', negative_mode='paired', backend='auto')": (
        lambda: compat.InfoNCE(torch.tensor(0.2), "sum", "paired")
    ),
    "SupConLoss(temperature=0.1, contrast_mode='one', base_temperature=0.2, backend='auto')": (
        lambda: compat.SupConLoss(0.1, "one", 0.2)
    ),
    "MemoryEfficientCLIPLoss(temperature=0.1, normalized_inputs=True, stable=False, tau_plus=0.0, "
    "label_smoothing=0.2, backend='auto')": lambda: compat.MemoryEfficientCLIPLoss(
        0.1, normalized_inputs=True, label_smoothing=0.2
    ),
    "DCLLoss(temperature=0.1, weight_fn=dot, gather_distributed=False, backend='auto')": (
        lambda: compat.DCLLoss(0.1, torch.dot)
    ),
    "DCLWLoss(temperature=0.2, sigma=0.7, gather_distributed=True, backend='auto')": (
        lambda: compat.DCLWLoss(0.2, 0.7, gather_distributed=True)
    ),
    "NTXentLoss(\n  temperature=0.5, memory_bank_size=(8, 3), gather_distributed=False, "
    "backend='auto'\n  (memory_bank): MemoryBankModule(size=(8, 3), gather_distributed=False, "
    "feature_dim_first=True)\n)": lambda: compat.NTXentLoss(memory_bank_size=(8, 3)),
}


@pytest.mark.parametrize("text", REPRS, ids=lambda text: text.partition("(")[0])
def test_repr_names_the_options(text: str) -> None:
    assert repr(REPRS[text]()) == text


def paired(query: Tensor, keys: Tensor) -> Tensor:
    return compat.InfoNCE(negative_mode="paired")(query, Y, keys)


@pytest.mark.parametrize("mode", ["all", "one"])
def test_sup_contrast_with_a_mask(mode: Literal["all", "one"]) -> None:
    """The formula of SupContrast's paper, over all scores, with an asymmetric mask."""
    b, v = 6, 2
    views = torch.randn(b, v, 4, generator=G, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(b, b, generator=G) < 0.4
    mask[0] = False  # example 0 has no positive
    rows = views.transpose(0, 1).reshape(v * b, 4)
    anchors = v if mode == "all" else 1
    scores = rows[: anchors * b] @ rows.T / 0.3
    others = ~torch.eye(v * b, dtype=torch.bool)[: anchors * b]
    positives = mask.repeat(anchors, v) & others
    log_share = scores - torch.logsumexp(scores.masked_fill(~others, -torch.inf), 1, keepdim=True)
    each = -(log_share * positives).sum(dim=1) / positives.sum(dim=1).clamp(min=1)
    (expected,) = torch.autograd.grad(each.mean() * 0.3 / 0.07, views)
    value = compat.SupConLoss(0.3, mode)(views, mask=mask.float())
    (found,) = torch.autograd.grad(value, views)
    torch.testing.assert_close(value, each.mean() * 0.3 / 0.07)
    torch.testing.assert_close(found, expected)


TALL, WIDE = torch.randn(6, 3, generator=G), torch.randn(5, 4, generator=G)
WRONG: list[tuple[Callable[[], object], str]] = [
    (lambda: compat.InfoNCE()(X, WIDE), "positive_key: expected 3 features as in query, got 4"),
    (lambda: compat.InfoNCE()(X, Y.double()), "positive_key: expected the dtype of query, float32, "
     "got float64"),
    (lambda: compat.InfoNCE()(X, Y, WIDE), "negative_keys: expected 3 features as in query, got 4"),
    (lambda: paired(X, KEYS[:4]), "negative_keys: expected the 5 rows of query with "
     'negative_mode="paired", got 4'),
    (lambda: compat.ClipLoss()(X, TALL, 1.0), "text_features: expected the 5 rows of "
     "image_features, got 6"),
    (lambda: compat.ClipLoss()(X, WIDE, 1.0), "text_features: expected 3 features as in "
     "image_features, got 4"),
    (lambda: compat.SigLipLoss()(X, Y.half(), 1.0), "text_features: expected the dtype of "
     "image_features, float32, got float16"),
    (lambda: compat.NTXentLoss()(X, TALL), "out1: expected the 5 rows of out0, got 6"),
    (lambda: compat.DCLLoss()(X, WIDE), "out1: expected 3 features as in out0, got 4"),
    (lambda: compat.MemoryEfficientCLIPLoss()(X, TALL), "text_features: expected the 5 rows of "
     "image_features, got 6"),
    (lambda: compat.cal_inf_loss(TALL, X), "k: expected at least the 6 rows of q, whose positives "
     "they are (or give labels), got 5 rows"),
    (lambda: compat.cal_inf_loss(X, WIDE), "k: expected 3 features as in q, got 4"),
    (lambda: compat.cal_inf_loss(X, Y, torch.arange(5) + 1), "labels: expected rows of k, 0 .. 4, "
     "got 5"),
    (lambda: compat.cal_inf_loss(X, Y, torch.arange(4)), "labels: expected int64 [5], one row of k "
     "for each of q, got int64 [4]"),
    (lambda: compat.SupConLoss()(VIEWS, mask=torch.eye(4)), "mask: expected [5, 5], got [4, 4]"),
    (lambda: compat.SupConLoss()(VIEWS, torch.arange(5), torch.eye(5)), "labels: expected None "
     "beside mask, got labels"),
    (lambda: compat.SupConLoss()(VIEWS, [0, 1, 2, 3, 4]), "labels: expected a tensor, got list"),
    (lambda: compat.ClipLoss()(X, Y, 1.0, torch.ones(4)), "logit_bias: expected one element or "
     "[5], one number for each text, got shape [4]"),
    (lambda: compat.SigLipLoss()(X, Y, 1.0, torch.ones(5, 5)), "logit_bias: expected one element "
     "or [5], one number for each text, got shape [5, 5]"),
    (lambda: compat.SigLipLoss(world_size=2)(X, Y, 1.0, torch.ones(5)), "logit_bias: expected one "
     "element with several processes, got shape [5]"),
    (lambda: compat.SigLipLoss(dist_impl="ring"), "dist_impl: expected None | 'bidir' | 'shift' | "
     "'reduce' | 'gather', got 'ring'"),
    (lambda: compat.NTXentLoss(memory_bank_size=(8, 4))(X, Y), "output: expected [rows, 4], the "
     "features of the bank, got shape [5, 3]"),
    (lambda: compat.NTXentLoss(memory_bank_size=(-1, 4)), "memory_bank_size: expected 0 or (rows, "
     "features), both >= 0, got (-1, 4)"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), WRONG, ids=[m[:40] for _, m in WRONG])
def test_messages_name_the_callers_argument(call: Callable[[], object], message: str) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        call()
    assert str(caught.value) == message


def test_dtypes_may_differ_under_autocast_alone() -> None:
    """There the loss decides; on a device without autocast they may not."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inputs.check_pairs("b", Y.bfloat16(), "a", X)
        with pytest.raises(TypeError, match=r"^b: expected the dtype of a, float32, got bfloat16$"):
            inputs.check_pairs("b", Y.to("meta").bfloat16(), "a", X.to("meta"))
    with pytest.raises(ValueError, match=r"^b: expected a tensor on cpu as a is, got meta$"):
        inputs.check_pairs("b", Y.to("meta"), "a", X)


Z = torch.complex(X, Y)
COMPLEX: dict[str, Callable[[], object]] = {
    "image_features": lambda: compat.ClipLoss()(Z, Z, 1.0),
    "text_features": lambda: compat.SigLipLoss()(X, Z, 1.0),
    "logit_scale": lambda: compat.ClipLoss()(X, Y, torch.tensor(1j)),
    "logit_bias": lambda: compat.ClipLoss()(X, Y, 1.0, torch.tensor(1j, requires_grad=True)),
    "logit_bias of SigLIP": lambda: compat.SigLipLoss()(X, Y, 1.0, torch.tensor(1j)),
    "query": lambda: compat.InfoNCE()(Z, Z),
    "positive_key": lambda: info_nce_pytorch.info_nce(X, Z),
    "negative_keys": lambda: compat.InfoNCE()(X, Y, Z),
    "out0": lambda: compat.NTXentLoss()(Z, Z),
    "out1": lambda: compat.DCLLoss()(X, Z),
    "features": lambda: compat.SupConLoss()(torch.complex(VIEWS, VIEWS)),
    "labels": lambda: compat.SupConLoss()(VIEWS, Z[:, 0]),
    "text_features of memeff": lambda: compat.MemoryEfficientCLIPLoss()(X, Z),
    "q": lambda: compat.cal_inf_loss(Z, Z),
    "scale": lambda: compat.cal_inf_loss(X, Y, scale=torch.tensor(1j)),
    "temperature": lambda: compat.InfoNCE(torch.tensor(1j)),
}


@pytest.mark.parametrize("name", COMPLEX)
def test_complex_numbers_are_refused(name: str) -> None:
    with pytest.raises(TypeError, match=rf"^{name.split()[0]}: expected .*complex64$"):
        COMPLEX[name]()
