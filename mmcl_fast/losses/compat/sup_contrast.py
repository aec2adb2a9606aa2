"""The call of SupContrast (`losses.SupConLoss` of HobbitLong/SupContrast, commit 02f458c)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from mmcl_fast.losses.compat.inputs import check_features
from mmcl_fast.losses.compat.module import LossModule, keep_temperature, without_axes
from mmcl_fast.losses.contrastive import info_nce
from mmcl_fast.losses.family import sup_con
from mmcl_fast.losses.validation import check_temperature


class SupConLoss(LossModule):
    """SupContrast's `SupConLoss`: `sup_con` over all views, times temperature / base_temperature.

    Differs: an anchor without a positive has loss 0 (there: NaN); the sum of exponentials is not
    raised by 1e-9; a `mask` says yes or no.

    Args:
        temperature: Dimensionless, > 0; a number or a tensor of one element. An `nn.Parameter`
            becomes a parameter of the module, any other tensor a buffer that is not in its
            `state_dict`.
        contrast_mode: "all": every view is an anchor; "one": the first view of each example is.
        base_temperature: The loss is multiplied by temperature / base_temperature.
        backend: As for `sup_con`.

    Raises:
        TypeError: A temperature is no number.
        ValueError: The range of a temperature, or an unknown mode.

    See: mmcl_fast.losses.sup_con.
    """

    shown = ("temperature", "contrast_mode", "base_temperature", "backend")

    def __init__(
        self,
        temperature: float | Tensor = 0.07,
        contrast_mode: Literal["all", "one"] = "all",
        base_temperature: float = 0.07,
        *,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        keep_temperature(self, temperature)
        check_temperature(base_temperature, None)
        if contrast_mode not in ("all", "one"):
            raise ValueError(f"contrast_mode: expected 'all' | 'one', got {contrast_mode!r}")
        self.contrast_mode = contrast_mode
        self.base_temperature = base_temperature
        self.backend = backend

    def forward(
        self, features: Tensor, labels: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """The mean loss of the anchors.

        Args:
            features: [B, V, D], V views of each example, normalised by the caller; more axes are
                joined with D.
            labels: [B] or [B, 1]. None: the views of one example are each other's only positives.
            mask: [B, B], of 0 and 1: entry (i, j) says whether example j is of the class of i. It
                may be asymmetric. Instead of labels; it is stored for all views, [V * B, V * B].

        Returns: A scalar.

        Raises:
            TypeError, ValueError: As for `sup_con`; labels and a mask; another shape.
        """
        if isinstance(features, Tensor) and features.dim() > 3:
            features = features.flatten(start_dim=2)
        check_features("features", features, rank=3)
        b, v, _ = features.shape
        if mask is not None:
            if labels is not None:
                raise ValueError("labels: expected None beside mask, got labels")
            return self._masked(features, mask)
        if labels is None:
            labels = torch.arange(b, device=features.device)
        elif not isinstance(labels, Tensor):
            raise TypeError(f"labels: expected a tensor, got {type(labels).__name__}")
        elif labels.numel() != b:
            raise ValueError(f"labels: expected [{b}], got {list(labels.shape)}")
        labels = labels.reshape(-1)
        views = features.transpose(0, 1).flatten(end_dim=1)  # [V * B, D], view by view
        every = labels.repeat(v)
        temperature = without_axes(self.temperature)
        if self.contrast_mode == "all":
            loss = sup_con(views, every, temperature=temperature, backend=self.backend)
        else:
            loss = sup_con(
                features[:, 0],
                labels,
                key=views,
                key_labels=every,
                exclude_self=True,
                temperature=temperature,
                backend=self.backend,
            )
        return self._scaled(loss, temperature)

    def _masked(self, features: Tensor, mask: Tensor) -> Tensor:
        b, v, _ = features.shape
        if not isinstance(mask, Tensor):
            raise TypeError(f"mask: expected a tensor, got {type(mask).__name__}")
        if mask.shape != (b, b):
            raise ValueError(f"mask: expected [{b}, {b}], got {list(mask.shape)}")
        views = features.transpose(0, 1).flatten(end_dim=1)
        anchors = v if self.contrast_mode == "all" else 1
        temperature = without_axes(self.temperature)
        loss = info_nce(
            views if anchors == v else features[:, 0],
            views,
            positive_mask=mask.bool().repeat(anchors, v),
            exclude_self=True,
            temperature=temperature,
            backend=self.backend,
        )
        return self._scaled(loss, temperature)

    def _scaled(self, loss: Tensor, temperature: float | Tensor) -> Tensor:
        factor = temperature / self.base_temperature
        return loss * (factor.to(loss.dtype) if isinstance(factor, Tensor) else factor)


__all__ = ["SupConLoss"]
