"""Dense logits, as open_clip's `get_logits` has them, of one process or of several."""

from __future__ import annotations

import torch
from torch import Tensor, distributed


def clip_logits(
    features: tuple[Tensor, Tensor],
    scale: float | Tensor,
    bias: float | Tensor | None,
    *,
    gathered: tuple[int, int, bool] | None,
    local_loss: bool,
) -> tuple[Tensor, Tensor]:
    """The logits of images against texts and of texts against images.

    Args:
        features: Of images and of texts, each [n, D].
        scale: The logits are multiplied by it.
        bias: Added to them; anything that broadcasts.
        gathered: Rank, number of processes, and whether the rows of other ranks get a gradient; of
            several processes.
        local_loss: With several processes: rows of this one alone.

    Returns: [n, n] each; with several processes [n, W * n] or [W * n, W * n].
    """
    images, texts = features
    if gathered is None:
        per_image, per_text = scale * images @ texts.T, scale * texts @ images.T
    else:
        all_images, all_texts = (_gathered(x, *gathered, own=not local_loss) for x in features)
        if local_loss:
            per_image, per_text = scale * images @ all_texts.T, scale * texts @ all_images.T
        else:
            per_image = scale * all_images @ all_texts.T
            per_text = per_image.T
    if bias is None:
        return per_image, per_text
    return per_image + bias, per_text + bias


def _gathered(rows: Tensor, rank: int, processes: int, with_grad: bool, *, own: bool) -> Tensor:
    """The rows of all ranks [W * n, D].

    Args:
        rows: Of this rank.
        rank: Of this process.
        processes: W.
        with_grad: All rows have a gradient.
        own: Without it: at least this rank's own rows have one.
    """
    if with_grad:
        every: tuple[Tensor, ...] = _AllGather.apply(rows)  # type: ignore[no-untyped-call]
        return torch.cat(every)
    parts = [torch.empty_like(rows) for _ in range(processes)]
    distributed.all_gather(parts, rows.detach().contiguous())
    if own:
        parts[rank] = rows
    return torch.cat(parts)


class _AllGather(torch.autograd.Function):
    """The rows of every rank, whose gradients are added up on the rank they came from."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, rows: Tensor) -> tuple[Tensor, ...]:
        parts = [torch.empty_like(rows) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, rows.contiguous())
        return tuple(parts)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *grads: Tensor) -> Tensor:
        total = torch.stack(grads)
        distributed.all_reduce(total)
        return total[distributed.get_rank()]


__all__ = ["clip_logits"]
