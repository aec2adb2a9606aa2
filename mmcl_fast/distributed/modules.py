"""The distributed losses as modules. `docs/distributed.md` has the contract on one page."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from mmcl_fast.distributed.arguments import zero_dim
from mmcl_fast.distributed.autograd import GradientScale, Mode
from mmcl_fast.distributed.collective import Setting
from mmcl_fast.distributed.functional import (
    infonce_across,
    siglip_across,
    supcon_across,
    two_views_across,
)
from mmcl_fast.distributed.group import Group
from mmcl_fast.losses.contrast import Form
from mmcl_fast.losses.validation import (
    check_bias,
    check_options,
    check_smoothing,
    check_temperature,
)


class _Distributed(nn.Module):
    """Common parts of the losses: learnable scalars and the setting."""

    def __init__(self, setting: Setting, **scalars: float | Tensor) -> None:
        super().__init__()
        setting.check()
        self.setting = setting
        self._is_checked = False
        for name, value in scalars.items():
            check = check_bias if name == "bias" else check_temperature
            check(zero_dim(value), value.device if isinstance(value, Tensor) else None)  # type: ignore[arg-type]
            if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
                self.register_buffer(name, value)
            else:
                setattr(self, name, value)

    def _setting(self) -> Setting:
        """The setting of this call: the first one checks the promise of equal batches."""
        return self.setting if self._is_checked else self.setting._replace(equal_batches=False)

    def extra_repr(self) -> str:
        """The setting, for `repr`."""
        shown = ("mode", "gradient", "equal_batches")
        return ", ".join(f"{name}={getattr(self.setting, name)!r}" for name in shown)


class DistributedInfoNCELoss(_Distributed):
    """InfoNCE of a batch distributed over the processes of a group.

    Each rank passes its own rows; row i of its key is the positive of row i of its query, and the
    rows of all ranks are negatives, as in `info_nce` of all rows in one process.

    Value: every rank returns the mean over the whole batch, with the same bits. Batches may have
    different sizes, of at least one row; then this is not the mean of the ranks' means.

    Gradient, with L the returned loss, W the number of ranks and x this rank's features:

        "ddp"   d/dx is W * dL/dx, and that of the temperature dL/dT on every rank. The average over
                ranks that `DistributedDataParallel` takes of parameter gradients is then dL/d of
                every parameter; a temperature outside of it needs no reduction.
        "sum"   d/dx is dL/dx, and that of the temperature 1/W * dL/dT: the sum over ranks is the
                gradient.

    Either is multiplied by this rank's own upstream gradient. Forward and backward are collective
    calls: every rank makes both, in the same order. It can be differentiated once.

    Args:
        temperature: As for `info_nce`, and the same on every rank, which is not checked; a tensor
            may have shape [] or [1], which FSDP2 asks for. An `nn.Parameter` becomes a parameter of
            the module, any other tensor a buffer.
        symmetric: As for `info_nce`, and so are negatives, stop_gradient
            and label_smoothing.
        negatives: "all" | "other_label".
        stop_gradient: None | "key".
        label_smoothing: In 0 .. 1.
        mode: "gather": every rank holds all keys, and their gradient; fewer messages.
            "ring": keys travel from rank to rank, and their gradient with them, while the block
            before is computed; memory O(n D) of this rank's n rows, whatever the number of ranks.
        gradient: "ddp" | "sum".
        group: The processes; None: the default group.
        equal_batches: True promises that every rank brings as many rows as this one in every call.
            The first call checks it; later ones then exchange no sizes, which on a GPU saves a wait
            for the device where the group has no CPU backend.

    Raises:
        ValueError: An option's value; on every rank, before features are sent: features, dtype,
            options or wanted gradients that are not the same on all, or arguments that one refused.
        TypeError: An option's kind.
        RuntimeError: There is no process group.

    Numerics: Those of `info_nce`, and so are features of several dtypes under autocast; statistics
        and gradients are exchanged in float32 (float64 for float64 features). Same bits on every
        run with the same ranks. Computed by the "torch" backend on every device. Tests:
        tests/distributed.

    See: mmcl_fast.losses.info_nce; docs/distributed.md.
    """

    temperature: float | Tensor

    def __init__(  # noqa: PLR0913 - the options of the loss, and where it runs
        self,
        *,
        temperature: float | Tensor = 0.07,
        symmetric: bool = False,
        negatives: Literal["all", "other_label"] = "all",
        stop_gradient: Literal["key"] | None = None,
        label_smoothing: float = 0.0,
        mode: Mode = "gather",
        gradient: GradientScale = "ddp",
        group: Group | None = None,
        equal_batches: bool = False,
    ) -> None:
        super().__init__(Setting(group, mode, gradient, equal_batches), temperature=temperature)
        check_options(symmetric=symmetric, negatives=negatives, stop_gradient=stop_gradient)
        check_smoothing(label_smoothing)
        self.symmetric = symmetric
        self.negatives: Literal["all", "other_label"] = negatives
        self.stop_gradient: Literal["key"] | None = stop_gradient
        self.label_smoothing = label_smoothing

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        *,
        labels: Tensor | None = None,
        extra_negatives: Tensor | None = None,
        hard_negatives: Tensor | None = None,
    ) -> Tensor:
        """The loss of the whole batch, of which `query` and `key` [n, D] are this rank's rows.

        Args:
            query: [n, D].
            key: [n, D].
            labels: [n], of both.
            extra_negatives: [K, D], K >= 0: this rank's share of the negatives that every query of
                the whole batch has, as in one process with those of all ranks one after another.
                What all ranks hold alike, as a queue, is passed in parts: else it counts W times.
            hard_negatives: [n, K, D]: K further negatives of each of this rank's queries, and of
                no others; they do not travel. K may differ between ranks.
        """
        loss = infonce_across(
            self._setting(),
            query,
            key,
            temperature=self.temperature,
            symmetric=self.symmetric,
            labels=labels,
            extra_negatives=extra_negatives,
            hard_negatives=hard_negatives,
            negatives=self.negatives,
            stop_gradient=self.stop_gradient,
            label_smoothing=self.label_smoothing,
        )
        self._is_checked = True
        return loss


class DistributedSigLIPLoss(_Distributed):
    """`siglip` of a batch distributed over the processes of a group.

    Contract, arguments and errors are those of `DistributedInfoNCELoss`; the bias is treated like
    the temperature. Gradients are computed in the forward pass, so features are exchanged once.
    """

    temperature: float | Tensor
    bias: float | Tensor

    def __init__(
        self,
        *,
        temperature: float | Tensor = 0.1,
        bias: float | Tensor = -10.0,
        mode: Mode = "ring",
        gradient: GradientScale = "ddp",
        group: Group | None = None,
        equal_batches: bool = False,
    ) -> None:
        setting = Setting(group, mode, gradient, equal_batches)
        super().__init__(setting, temperature=temperature, bias=bias)

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        """The loss of the whole batch, of which `query` and `key` [n, D] are this rank's rows."""
        scalars = {"temperature": self.temperature, "bias": self.bias}
        loss = siglip_across(self._setting(), query, key, **scalars)
        self._is_checked = True
        return loss


class _TwoViews(_Distributed):
    """The losses of two views of every row, which differ in their form."""

    temperature: float | Tensor
    form: Form

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """The loss of the whole batch, of which these views [n, D] are this rank's rows."""
        loss = two_views_across(
            self._setting(), self.form, first, second, temperature=self.temperature
        )
        self._is_checked = True
        return loss


class DistributedNTXentLoss(_TwoViews):
    """`nt_xent` of a batch distributed over the processes of a group.

    Contract, arguments and errors are those of `DistributedInfoNCELoss`; the mean is over the two
    views of every row. Statistics are exchanged, and no gradients: each rank computes that of its
    own views.
    """

    form = "softmax"

    def __init__(
        self,
        *,
        temperature: float | Tensor = 0.5,
        mode: Mode = "gather",
        gradient: GradientScale = "ddp",
        group: Group | None = None,
        equal_batches: bool = False,
    ) -> None:
        super().__init__(Setting(group, mode, gradient, equal_batches), temperature=temperature)


class DistributedDCLLoss(_TwoViews):
    """`dcl` of a batch distributed over the processes of a group.

    Contract, arguments and errors are those of `DistributedNTXentLoss`. With one pair in the whole
    batch there are no negatives, and the loss is 0.
    """

    form = "decoupled"

    def __init__(
        self,
        *,
        temperature: float | Tensor = 0.1,
        mode: Mode = "gather",
        gradient: GradientScale = "ddp",
        group: Group | None = None,
        equal_batches: bool = False,
    ) -> None:
        super().__init__(Setting(group, mode, gradient, equal_batches), temperature=temperature)


class DistributedSupConLoss(_Distributed):
    """`sup_con` of a batch distributed over the processes of a group, without separate keys.

    The positives of a row are the rows of its label on every rank. Contract, arguments and errors
    are those of `DistributedNTXentLoss`; the mean is over all rows, and a row without positives has
    loss 0 and no gradient. Several views of an example are rows with one label.
    """

    temperature: float | Tensor

    def __init__(
        self,
        *,
        temperature: float | Tensor = 0.07,
        mode: Mode = "gather",
        gradient: GradientScale = "ddp",
        group: Group | None = None,
        equal_batches: bool = False,
    ) -> None:
        super().__init__(Setting(group, mode, gradient, equal_batches), temperature=temperature)

    def forward(self, query: Tensor, labels: Tensor) -> Tensor:
        """The loss of the whole batch; `query` [n, D] are this rank's rows, `labels` [n] theirs."""
        loss = supcon_across(self._setting(), query, labels, temperature=self.temperature)
        self._is_checked = True
        return loss


__all__ = [
    "DistributedDCLLoss",
    "DistributedInfoNCELoss",
    "DistributedNTXentLoss",
    "DistributedSigLIPLoss",
    "DistributedSupConLoss",
]
