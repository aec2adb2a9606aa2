"""The call of inf-cl 1.2.1 (`inf_cl.cal_inf_loss`)."""

from __future__ import annotations

import torch
from torch import Tensor

from mmcl_fast.losses.compat.inputs import check_features, check_like, temperature_of
from mmcl_fast.losses.compat.world_size import require_one_process, world_size
from mmcl_fast.losses.contrastive import info_nce
from mmcl_fast.losses.validation import is_readable


def cal_inf_loss(
    q: Tensor,
    k: Tensor,
    labels: Tensor | None = None,
    scale: float | Tensor | None = None,
    head_dim: int = 256,
) -> Tensor:
    """inf-cl's loss of one process, one way: the mean of `info_nce(q, k, positive=labels)`.

    Differs: on a CPU too; any number of rows (there the gradient of k reads past its statistics
    unless that is a multiple of 64); any number of features; `scale` gets its gradient without a
    process group; products are as exact as `info_nce` has them (there TensorFloat-32).

    Args:
        q: [N, D]. Nothing is normalised.
        k: [M, D], same dtype and device.
        labels: [N], int64: the row of k that is the positive of each row of q. None: row i.
        scale: The inverse temperature, > 0; a tensor of one element gets a gradient. None: 1.
        head_dim: Slice width of inf-cl's kernels; without effect.

    Returns: A scalar.

    Raises:
        TypeError, ValueError: As for `info_nce`; several processes.

    See: mmcl_fast.losses.info_nce.
    """
    require_one_process("torch.distributed", "one process", processes=world_size())
    check_features("q", q)
    check_features("k", k)
    check_like("k", k, "q", q)
    _check_labels(labels, q, k)
    temperature = 1.0 if scale is None else temperature_of("scale", scale, q)
    return info_nce(q, k, positive=labels, temperature=temperature)


def _check_labels(labels: Tensor | None, q: Tensor, k: Tensor) -> None:
    """One row of k for each row of q; their range is read on a CPU only."""
    if labels is None:
        if k.shape[0] < q.shape[0]:
            raise ValueError(
                f"k: expected at least the {q.shape[0]} rows of q, whose positives they are (or "
                f"give labels), got {k.shape[0]} rows"
            )
        return
    if not isinstance(labels, Tensor):
        raise TypeError(f"labels: expected a tensor, got {type(labels).__name__}")
    if labels.dtype != torch.int64 or labels.shape != q.shape[:1]:
        dtype = str(labels.dtype).removeprefix("torch.")
        raise ValueError(
            f"labels: expected int64 [{q.shape[0]}], one row of k for each of q, "
            f"got {dtype} {list(labels.shape)}"
        )
    if labels.device != q.device:
        raise ValueError(f"labels: expected a tensor on {q.device} as q is, got {labels.device}")
    if labels.shape[0] and is_readable(labels):
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= k.shape[0]:
            bad = low if low < 0 else high
            raise ValueError(f"labels: expected rows of k, 0 .. {k.shape[0] - 1}, got {bad}")


__all__ = ["cal_inf_loss"]
