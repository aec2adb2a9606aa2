"""lightly's memory bank and weighted loss, step by step beside lightly's own."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from mmcl_fast.losses.compat import DCLWLoss, MemoryBankModule, NTXentLoss
from tests.losses.peer_cases import assert_same, inputs
from tests.support.budget import value_and_grads
from tests.support.peers import peer

SIZES = [4, 6, 7, 3, 8, 1, 20]  # a bank of 10 is filled exactly, cut at its end, and overrun


def batches(dtype: torch.dtype = torch.float32) -> Iterator[dict[str, Tensor]]:
    g = torch.Generator().manual_seed(7)
    for rows in SIZES:
        x, y = torch.randn(2, rows, 5, generator=g).to(dtype)
        yield {"out0": x, "out1": y}


def test_a_loss_with_a_memory_bank_is_theirs_step_by_step() -> None:
    module = peer("lightly.loss.ntx_ent_loss", without="lightly.models.utils")
    ours, theirs = (kind(0.2, (10, 5)) for kind in (NTXentLoss, module.NTXentLoss))
    theirs.memory_bank.bank.copy_(ours.memory_bank.bank)
    for step, tensors in enumerate(batches()):
        if step == 3:  # evaluation leaves the bank as it is
            for loss in (ours, theirs):
                loss(**tensors)
        found, expected = (value_and_grads(loss, tensors) for loss in (ours, theirs))
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(ours.memory_bank.bank, theirs.memory_bank.bank)
        assert torch.equal(ours.memory_bank.bank_ptr, theirs.memory_bank.bank_ptr)
    assert not ours.state_dict()


def test_a_bank_in_float64_against_its_formula() -> None:
    loss = NTXentLoss(0.2, (10, 5))
    for tensors in batches(torch.float64):
        bank = loss.memory_bank.bank.double()

        def dense(out0: Tensor, out1: Tensor, bank: Tensor = bank) -> Tensor:
            u, v = normalize(out0, dim=1), normalize(out1, dim=1)
            logits = torch.cat([(u * v).sum(1, keepdim=True), u @ bank.T], dim=1) / 0.2
            return cross_entropy(logits, torch.zeros(len(u), dtype=torch.long))

        found, expected = (value_and_grads(f, tensors) for f in (loss, dense))
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-12)


def test_the_bank_by_itself() -> None:
    module = peer("lightly.models.modules.memory_bank", without="lightly.models.utils")
    for options in ({}, {"feature_dim_first": False}):
        ours = MemoryBankModule((10, 5), **options)
        theirs = module.MemoryBankModule((10, 5), **options)
        theirs.bank.copy_(ours.bank)
        for tensors in batches():
            for update in (False, True):
                found = ours(tensors["out0"], update=update)
                expected = theirs(tensors["out0"], update=update)
                assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    torch.testing.assert_close(ours.bank.norm(dim=1) > 0, torch.ones(10, dtype=torch.bool))
    for none in (0, (0, 5)):
        output, bank = MemoryBankModule(none)(tensors["out0"], update=True)
        assert output is tensors["out0"]
        assert bank is None


@pytest.mark.parametrize("options", [{}, {"temperature": 0.2, "sigma": 0.9}])
def test_a_loss_with_mises_fisher_weights(options: dict[str, float]) -> None:
    module = peer("lightly.loss.dcl_loss")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="To copy construct from a tensor")
        assert_same(
            lambda x, y: DCLWLoss(**options)(x, y),
            lambda x, y: module.DCLWLoss(**options)(x, y),
            inputs("x", "y"),
        )
