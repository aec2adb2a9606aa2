"""The calls of open_clip 3.3 (`open_clip.loss`)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from mmcl_fast.losses.compat.inputs import (
    check_features,
    check_pairs,
    is_not_finite,
    scale_of,
    with_key_bias,
)
from mmcl_fast.losses.compat.module import LossModule, without_axes
from mmcl_fast.losses.compat.open_clip_logits import clip_logits
from mmcl_fast.losses.contrastive import info_nce
from mmcl_fast.losses.family import pairs_by_sigmoid, siglip
from mmcl_fast.losses.scaled import scaled_info_nce

_IMPLEMENTATIONS = ("bidir", "shift", "reduce", "gather")


class ClipLoss(LossModule):
    """`open_clip.ClipLoss`: `info_nce(..., symmetric=True)`, and its form over several processes.

    Differs: float32 result for float16 and bfloat16 features; no N x N logits, but in `get_logits`
    for classes that extend this one; `logit_scale` must be > 0. A `logit_bias` of one element
    changes no softmax: its gradient is 0, where open_clip's is rounding.

    Args:
        local_loss: With several processes: as in open_clip.
        gather_with_grad: With several processes: as in open_clip. False: features of other ranks
            are constants, and the gradient under DDP is not that of the loss.
        cache_labels: No labels are made that could be cached.
        rank: Of this process; the default group knows it.
        world_size: Processes of the default group.
        use_horovod: False.
        backend: As for `info_nce`.

    Raises:
        ValueError: Horovod.

    See: mmcl_fast.losses.info_nce, mmcl_fast.distributed.clip_loss.
    """

    shown = (
        "local_loss",
        "gather_with_grad",
        "cache_labels",
        "rank",
        "world_size",
        "use_horovod",
        "backend",
    )

    def __init__(
        self,
        local_loss: bool = False,
        gather_with_grad: bool = False,
        cache_labels: bool = False,
        rank: int = 0,
        world_size: int = 1,
        use_horovod: bool = False,
        *,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        if use_horovod:
            raise ValueError("use_horovod: expected False, got True: Horovod is not supported")
        self.local_loss = local_loss
        self.gather_with_grad = gather_with_grad
        self.cache_labels = cache_labels
        self.rank = rank
        self.world_size = world_size
        self.use_horovod = use_horovod
        self.backend = backend

    def get_ground_truth(self, device: torch.device, num_logits: int) -> Tensor:
        """The column of each row's positive in `get_logits`: [num_logits], int64."""
        labels = torch.arange(num_logits, device=device, dtype=torch.long)
        if self.world_size > 1 and self.local_loss:
            labels = labels + num_logits * self.rank
        return labels

    def get_logits(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: float | Tensor,
        logit_bias: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The logits of images against texts and of texts against images, as in open_clip.

        `forward` does not call it. It is for classes that extend this one and distil or inspect
        scores: it stores all of them, N x N in one process.

        Returns: Two matrices in the arithmetic of the features' dtype; with several processes rows
            of all ranks, or with `local_loss` of this one, against columns of all ranks.
        """
        gathered = None
        if self.world_size > 1:
            gathered = self.rank, self.world_size, self.gather_with_grad
        return clip_logits(
            (image_features, text_features),
            logit_scale,
            logit_bias,
            gathered=gathered,
            local_loss=self.local_loss,
        )

    def forward(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: float | Tensor,
        logit_bias: Tensor | None = None,
        output_dict: bool = False,
    ) -> Tensor | dict[str, Tensor]:
        """Symmetric cross-entropy of `logit_scale * image_features @ text_features.T`.

        Args:
            image_features: [N, D], normalised by the caller.
            text_features: [N, D], normalised by the caller.
            logit_scale: The inverse temperature, exponentiated by the caller; one element. One that
                is NaN or infinite on a CPU gives a NaN loss, which a `GradScaler` skips.
            logit_bias: One element: without effect. [N], in one process: added to the columns of
                both directions' logits.
            output_dict: The loss as {"contrastive_loss": loss}.

        Returns: A scalar, or that dictionary.

        Raises:
            TypeError, ValueError: As for `info_nce`; `logit_scale` not > 0; another shape of
                `logit_bias`.
        """
        check_features("image_features", image_features)
        check_features("text_features", text_features)
        check_pairs("text_features", text_features, "image_features", image_features)
        per_column = _is_per_column(logit_bias, text_features.shape[0], self.world_size)
        if is_not_finite("logit_scale", logit_scale):
            loss = _not_a_number(image_features, text_features, logit_scale)
        elif per_column:
            assert logit_bias is not None
            loss = self._with_bias(image_features, text_features, logit_scale, logit_bias)
        else:
            loss = self._without_bias(image_features, text_features, logit_scale)
        if isinstance(logit_bias, Tensor) and logit_bias.requires_grad and not per_column:
            # DistributedDataParallel waits for a gradient of every parameter.
            loss = loss + 0 * logit_bias.sum().to(loss.dtype)
        return {"contrastive_loss": loss} if output_dict else loss

    def _without_bias(self, images: Tensor, texts: Tensor, scale: float | Tensor) -> Tensor:
        scale = scale_of("logit_scale", scale, images)
        if self.world_size > 1:
            # Here, as the distributed losses are built on this package.
            from mmcl_fast.distributed import clip_loss

            return clip_loss(
                images,
                texts,
                scale,
                gather_with_grad=self.gather_with_grad,
                local_loss=self.local_loss,
            )
        return scaled_info_nce(images, texts, scale, self.backend)

    def _with_bias(
        self, images: Tensor, texts: Tensor, scale: float | Tensor, bias: Tensor
    ) -> Tensor:
        directions = (
            with_key_bias(query, key, scale, bias)
            for query, key in ((images, texts), (texts, images))
        )
        first, second = (
            info_nce(query, key, temperature=1.0, backend=self.backend) for query, key in directions
        )
        return (first + second) / 2


class SigLipLoss(LossModule):
    """`open_clip.SigLipLoss`: `siglip`, and its form over several processes.

    Differs: float32 result for float16 and bfloat16 features; no N x N logits, but in `get_logits`
    for classes that extend this one; `logit_scale` must be > 0.

    Args:
        cache_labels: No labels are made that could be cached.
        rank: Of this process; the default group knows it.
        world_size: Processes of the default group.
        dist_impl: Of several processes: "gather" or "reduce" gathers the texts; "bidir", the
            default, and "shift" pass them around in a ring. The value is the mean over the whole
            batch on every rank.
        chunk_size: Without effect: logits are never stored, whatever its value.
        backend: As for `siglip`.

    Raises:
        ValueError: An unknown `dist_impl`.

    See: mmcl_fast.losses.siglip, mmcl_fast.distributed.siglip_loss.
    """

    shown = ("cache_labels", "rank", "world_size", "dist_impl", "chunk_size", "backend")

    def __init__(
        self,
        cache_labels: bool = False,
        rank: int = 0,
        world_size: int = 1,
        dist_impl: str | None = None,
        chunk_size: int = 0,
        *,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        if dist_impl is not None and dist_impl not in _IMPLEMENTATIONS:
            known = " | ".join(repr(name) for name in _IMPLEMENTATIONS)
            raise ValueError(f"dist_impl: expected None | {known}, got {dist_impl!r}")
        self.cache_labels = cache_labels
        self.rank = rank
        self.world_size = world_size
        self.dist_impl = dist_impl or "bidir"
        self.chunk_size = chunk_size
        self.backend = backend

    def get_ground_truth(
        self,
        device: torch.device,
        dtype: torch.dtype,
        num_logits: int,
        negative_only: bool = False,
    ) -> Tensor:
        """The sign of each logit's pair, [num_logits, num_logits]: 1 of a positive, else -1."""
        labels = -torch.ones((num_logits, num_logits), device=device, dtype=dtype)
        return labels if negative_only else labels.fill_diagonal_(1)

    def get_logits(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: float | Tensor,
        logit_bias: float | Tensor | None = None,
    ) -> Tensor:
        """The logits of images against texts, [N, N], in the arithmetic of the features' dtype.

        `forward` does not call it. It is for classes that extend this one.
        """
        logits = logit_scale * image_features @ text_features.T
        return logits if logit_bias is None else logits + logit_bias

    def forward(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: float | Tensor,
        logit_bias: float | Tensor | None = None,
        output_dict: bool = False,
    ) -> Tensor | dict[str, Tensor]:
        """Sum over all pairs of the sigmoid loss, over N.

        Args:
            image_features: [N, D], normalised by the caller.
            text_features: [N, D], normalised by the caller.
            logit_scale: The inverse temperature, exponentiated by the caller; one element. One that
                is NaN or infinite on a CPU gives a NaN loss, which a `GradScaler` skips.
            logit_bias: Added to every logit; one element, or [N] in one process: one of each text.
                None: 0.
            output_dict: The loss as {"contrastive_loss": loss}.

        Returns: A scalar, or that dictionary.

        Raises:
            TypeError, ValueError: As for `siglip`; `logit_scale` not > 0; another shape of
                `logit_bias`.
        """
        check_features("image_features", image_features)
        check_features("text_features", text_features)
        check_pairs("text_features", text_features, "image_features", image_features)
        per_column = _is_per_column(logit_bias, text_features.shape[0], self.world_size)
        bias = 0.0 if logit_bias is None else without_axes(logit_bias)
        if is_not_finite("logit_scale", logit_scale) or is_not_finite("logit_bias", bias):
            loss = _not_a_number(image_features, text_features, logit_scale, bias)
        elif per_column:
            assert isinstance(bias, Tensor)
            rows = with_key_bias(image_features, text_features, logit_scale, bias)
            loss = siglip(*rows, temperature=1.0, bias=0.0, backend=self.backend)
        else:
            loss = self._with_one_bias(image_features, text_features, logit_scale, bias)
        return {"contrastive_loss": loss} if output_dict else loss

    def _with_one_bias(
        self, images: Tensor, texts: Tensor, scale: float | Tensor, bias: float | Tensor
    ) -> Tensor:
        scale = scale_of("logit_scale", scale, images)
        if self.world_size > 1:
            from mmcl_fast.distributed import siglip_loss

            gathers = self.dist_impl in {"gather", "reduce"}
            mode: Literal["gather", "ring"] = "gather" if gathers else "ring"
            return siglip_loss(images, texts, scale, bias, mode=mode)
        return pairs_by_sigmoid(images, texts, scale, bias, "mean", self.backend, inverse=True)


def _is_per_column(bias: object, columns: int, processes: int) -> bool:
    """Whether `bias` is one number for each column, and not one for all.

    Raises:
        TypeError: A tensor that is not real and floating.
        ValueError: Another shape.
    """
    if not isinstance(bias, Tensor):
        return False
    if not bias.is_floating_point():
        raise TypeError(f"logit_bias: expected a floating tensor, got {bias.dtype}")
    if bias.numel() == 1:
        return False
    if processes > 1 or bias.shape != (columns,):
        expected = f"one element or [{columns}], one number for each text"
        if processes > 1:
            expected = "one element with several processes"
        raise ValueError(f"logit_bias: expected {expected}, got shape {list(bias.shape)}")
    return True


def _not_a_number(images: Tensor, texts: Tensor, *scalars: object) -> Tensor:
    """The loss of a scale or bias that is NaN or infinite, with NaN gradients."""
    double = torch.float64 in (images.dtype, texts.dtype)
    dtype = torch.float64 if double else torch.float32
    tensors = [images, texts, *(x for x in scalars if isinstance(x, Tensor))]
    return sum((x.to(dtype).sum() * torch.nan for x in tensors), images.new_zeros((), dtype=dtype))


__all__ = ["ClipLoss", "SigLipLoss"]
