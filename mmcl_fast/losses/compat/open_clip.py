"""The calls of open_clip 3.3 (`open_clip.loss`)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from mmcl_fast.losses.compat.inputs import check_features, temperature_of
from mmcl_fast.losses.contrastive import info_nce
from mmcl_fast.losses.family import siglip


class ClipLoss(nn.Module):
    """`open_clip.ClipLoss`: `info_nce(..., symmetric=True)`, and its form over several processes.

    Differs: float32 result for float16 and bfloat16 features; no N x N logits; `logit_scale` must
    be > 0. `logit_bias` changes no softmax: its gradient is 0, where open_clip's is rounding.

    Args:
        local_loss: Of several processes: without effect. The value is the loss of the whole batch
            on every rank, and the gradient under DDP is its gradient.
        gather_with_grad: Of several processes: must be True, as open_clip's gradient is else
            1 / world_size of the loss's.
        cache_labels: No labels are made that could be cached.
        rank: Of this process; the default group knows it.
        world_size: Processes of the default group.
        use_horovod: False.
        backend: As for `info_nce`.

    Raises:
        ValueError: An option that is not supported.

    See: mmcl_fast.losses.info_nce, mmcl_fast.distributed.clip_loss.
    """

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
        if world_size > 1 and not gather_with_grad:
            raise ValueError(
                "gather_with_grad: expected True with several processes, got False: the gradient "
                "would be 1 / world_size of the loss's"
            )
        if use_horovod:
            raise ValueError("use_horovod: expected False, got True: Horovod is not supported")
        self.local_loss = local_loss
        self.gather_with_grad = gather_with_grad
        self.cache_labels = cache_labels
        self.rank = rank
        self.world_size = world_size
        self.use_horovod = use_horovod
        self.backend = backend

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
            logit_scale: The inverse temperature, exponentiated by the caller; one element.
            logit_bias: Without effect.
            output_dict: The loss as {"contrastive_loss": loss}.

        Returns: A scalar, or that dictionary.

        Raises:
            TypeError, ValueError: As for `info_nce`; `logit_scale` not > 0.
        """
        check_features("image_features", image_features)
        check_features("text_features", text_features)
        temperature = temperature_of("logit_scale", logit_scale, image_features)
        if self.world_size > 1:
            # Here, as the distributed losses are built on this package.
            from mmcl_fast.distributed import clip_loss

            loss = clip_loss(image_features, text_features, 1 / temperature)
        else:
            loss = info_nce(
                image_features,
                text_features,
                temperature=temperature,
                symmetric=True,
                backend=self.backend,
            )
        if isinstance(logit_bias, Tensor) and logit_bias.requires_grad:
            # DistributedDataParallel waits for a gradient of every parameter.
            loss = loss + 0 * logit_bias.sum().to(loss.dtype)
        return {"contrastive_loss": loss} if output_dict else loss


class SigLipLoss(nn.Module):
    """`open_clip.SigLipLoss`: `siglip`, and its form over several processes.

    Differs: float32 result for float16 and bfloat16 features; no N x N logits; `logit_scale` must
    be > 0.

    Args:
        cache_labels: No labels are made that could be cached.
        rank: Of this process; the default group knows it.
        world_size: Processes of the default group.
        dist_impl: Of several processes: "gather" or "reduce" gathers the texts; the others pass
            them around in a ring. The value is the mean over the whole batch on every rank.
        backend: As for `siglip`.

    See: mmcl_fast.losses.siglip, mmcl_fast.distributed.siglip_loss.
    """

    def __init__(
        self,
        cache_labels: bool = False,
        rank: int = 0,
        world_size: int = 1,
        dist_impl: str | None = None,
        *,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.cache_labels = cache_labels
        self.rank = rank
        self.world_size = world_size
        self.dist_impl = dist_impl
        self.backend = backend

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
            logit_scale: The inverse temperature, exponentiated by the caller; one element.
            logit_bias: Added to every logit; one element. None: 0.
            output_dict: The loss as {"contrastive_loss": loss}.

        Returns: A scalar, or that dictionary.

        Raises:
            TypeError, ValueError: As for `siglip`; `logit_scale` not > 0.
        """
        check_features("image_features", image_features)
        check_features("text_features", text_features)
        if len(image_features) != len(text_features):
            raise ValueError(
                f"text_features: expected the {len(image_features)} rows of image_features, "
                f"got {len(text_features)}"
            )
        temperature = temperature_of("logit_scale", logit_scale, image_features)
        bias = _bias_of(logit_bias)
        if self.world_size > 1:
            from mmcl_fast.distributed import siglip_loss

            mode: Literal["gather", "ring"] = "ring"
            if self.dist_impl in {"gather", "reduce"}:
                mode = "gather"
            loss = siglip_loss(image_features, text_features, 1 / temperature, bias, mode=mode)
        else:
            loss = siglip(
                image_features,
                text_features,
                temperature=temperature,
                bias=bias,
                backend=self.backend,
            )
        return {"contrastive_loss": loss} if output_dict else loss


def _bias_of(logit_bias: float | Tensor | None) -> float | Tensor:
    if logit_bias is None:
        return 0.0
    # open_clip can make its bias a tensor of shape [1].
    if isinstance(logit_bias, Tensor) and logit_bias.numel() == 1:
        return logit_bias.reshape(())
    return logit_bias


__all__ = ["ClipLoss", "SigLipLoss"]
