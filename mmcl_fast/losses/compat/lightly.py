"""The calls of lightly 1.6 (`lightly.loss`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from mmcl_fast.losses.compat.inputs import check_features, check_pairs
from mmcl_fast.losses.compat.memory_bank import MemoryBankModule, check_bank_size
from mmcl_fast.losses.compat.module import LossModule, keep_temperature, without_axes
from mmcl_fast.losses.compat.world_size import mean_over_ranks, world_size
from mmcl_fast.losses.contrastive import info_nce
from mmcl_fast.losses.family import dcl, two_views
from mmcl_fast.losses.unit_rows import unit_rows


class NTXentLoss(LossModule):
    """`lightly.loss.NTXentLoss`: `nt_xent`, or `info_nce` against a memory bank.

    Differs: float32 result for float16 and bfloat16 features; the four N x N blocks are not stored;
    `temperature` must be > 0. The bank is rounded to the dtype of the features.

    Args:
        temperature: Dimensionless, > 0; a number or a tensor of one element. An `nn.Parameter`
            becomes a parameter of the module, any other tensor a buffer that is not in its
            `state_dict`.
        memory_bank_size: (rows, features): the negatives of out0 are the rows of a
            `MemoryBankModule`, which takes out1 in where out0 wants a gradient. 0: the other views
            of the batch are the negatives.
        gather_distributed: With several processes: the views of all ranks are negatives, as in
            `mmcl_fast.distributed.DistributedNTXentLoss`, whose value is that of the whole batch on
            every rank (lightly's is of the rank's own rows, with the same gradient under DDP); with
            a bank, the rows of all ranks enter it.
        backend: As for `nt_xent`.

    Raises:
        TypeError: `temperature` is no number.
        ValueError: Its range, or the size of the bank.

    See: mmcl_fast.losses.nt_xent, mmcl_fast.losses.info_nce.
    """

    shown = ("temperature", "memory_bank_size", "gather_distributed", "backend")

    def __init__(
        self,
        temperature: float | Tensor = 0.5,
        memory_bank_size: int | Sequence[int] = 0,
        gather_distributed: bool = False,
        *,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        keep_temperature(self, temperature)
        check_bank_size("memory_bank_size", memory_bank_size)
        self.memory_bank_size = memory_bank_size
        self.memory_bank = MemoryBankModule(memory_bank_size, gather_distributed)
        self.gather_distributed = gather_distributed
        self.backend = backend

    def forward(self, out0: Tensor, out1: Tensor) -> Tensor:
        """The mean loss of two views [B, D], which are normalised here.

        Raises:
            TypeError, ValueError: As for `nt_xent`.
        """
        _check_views(out0, out1)
        temperature = without_axes(self.temperature)
        together = self.gather_distributed and world_size() > 1
        if not together and not self.memory_bank.size[0]:
            views = out0, out1
            return two_views("softmax", views, temperature, "mean", self.backend, normalised=True)
        first, second = unit_rows(out0), unit_rows(out1)
        if self.memory_bank.size[0]:
            _, bank = self.memory_bank(second, update=out0.requires_grad)
            return info_nce(
                first,
                bank.T.to(first),
                positive_key=second,
                temperature=temperature,
                backend=self.backend,
            )
        # Here, as the distributed losses are built on this package.
        from mmcl_fast.distributed import DistributedNTXentLoss

        loss: Tensor = DistributedNTXentLoss(temperature=temperature)(first, second)
        return loss


class DCLLoss(LossModule):
    """`lightly.loss.DCLLoss`: `dcl`, and its form over several processes.

    Differs: float32 result for float16 and bfloat16 features; the four N x N blocks are not stored;
    a single pair has loss 0 (lightly: -inf).

    Args:
        temperature: As for `NTXentLoss`.
        weight_fn: Weights [B] of the positives from the two normalised views of this process,
            called once for either order; `DCLWLoss` has such a function.
        gather_distributed: With several processes: the views of all ranks are negatives, as in
            `mmcl_fast.distributed.DistributedDCLLoss`, whose value is that of the whole batch on
            every rank (lightly's is of the rank's own rows, with the same gradient under DDP).
        backend: As for `dcl`.

    Raises:
        TypeError: `temperature` is no number.
        ValueError: Its range.

    See: mmcl_fast.losses.dcl.
    """

    shown = ("temperature", "weight_fn", "gather_distributed", "backend")

    def __init__(
        self,
        temperature: float | Tensor = 0.1,
        weight_fn: Callable[[Tensor, Tensor], Tensor] | None = None,
        gather_distributed: bool = False,
        *,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        keep_temperature(self, temperature)
        self.weight_fn = weight_fn
        self.gather_distributed = gather_distributed
        self.backend = backend

    def forward(self, out0: Tensor, out1: Tensor) -> Tensor:
        """The mean loss of two views [B, D], which are normalised here.

        Raises:
            TypeError, ValueError: As for `dcl`.
        """
        _check_views(out0, out1)
        temperature = without_axes(self.temperature)
        together = self.gather_distributed and world_size() > 1
        if not together and self.weight_fn is None:
            views = out0, out1
            return two_views("decoupled", views, temperature, "mean", self.backend, normalised=True)
        first, second = unit_rows(out0), unit_rows(out1)
        if together:
            from mmcl_fast.distributed import DistributedDCLLoss

            loss: Tensor = DistributedDCLLoss(temperature=temperature)(first, second)
        else:
            loss = dcl(first, second, temperature=temperature, backend=self.backend)
        if self.weight_fn is None:
            return loss
        # A weight w multiplies the positive's score, which `dcl` has subtracted once.
        weight = (self.weight_fn(first, second) + self.weight_fn(second, first)) / 2
        positive = (first.to(loss.dtype) * second.to(loss.dtype)).sum(dim=1) / temperature
        terms = ((1 - weight) * positive).to(loss.dtype)
        return loss + (mean_over_ranks(terms) if together else terms.mean())


class DCLWLoss(DCLLoss):
    """`lightly.loss.DCLWLoss`: `DCLLoss` with weights from a von Mises-Fisher density.

    The weight of positive i is 2 - B * softmax_i(<x_i, y_i> / sigma) over the B pairs of this
    process, a constant of the gradient. As for what differs, see `DCLLoss`.

    Args:
        temperature: As for `DCLLoss`, and so is `gather_distributed`.
        sigma: Dimensionless; the width of the density.
        gather_distributed: The views of all ranks are negatives.
        backend: As for `dcl`.

    See: Yeh et al. 2022 (Decoupled Contrastive Learning), equation 7; mmcl_fast.losses.dcl.
    """

    shown = ("temperature", "sigma", "gather_distributed", "backend")

    def __init__(
        self,
        temperature: float | Tensor = 0.1,
        sigma: float = 0.5,
        gather_distributed: bool = False,
        *,
        backend: str = "auto",
    ) -> None:
        weigh = partial(_mises_fisher_weights, sigma=sigma)
        super().__init__(temperature, weigh, gather_distributed, backend=backend)
        self.sigma = sigma


def _mises_fisher_weights(first: Tensor, second: Tensor, *, sigma: float) -> Tensor:
    double = first.dtype == torch.float64
    wide = torch.float64 if double else torch.float32
    similarity = (first.detach().to(wide) * second.detach().to(wide)).sum(dim=1) / sigma
    return 2 - first.shape[0] * similarity.softmax(dim=0)


def _check_views(out0: Tensor, out1: Tensor) -> None:
    check_features("out0", out0)
    check_features("out1", out1)
    check_pairs("out1", out1, "out0", out0)


__all__ = ["DCLLoss", "DCLWLoss", "MemoryBankModule", "NTXentLoss"]
