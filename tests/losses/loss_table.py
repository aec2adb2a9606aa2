"""Every loss as a function of two matrices of features and a temperature, and its dense formula."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmcl_fast import losses, reference

N, D = 10, 6
LABELS = torch.arange(N) % 3
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


class Pair(NamedTuple):
    ours: Loss
    dense: Loss


def _info_nce(**options: Any) -> Pair:
    return Pair(
        lambda x, y, t: losses.info_nce(x, y, temperature=t, **options),
        lambda x, y, t: reference.info_nce(x, y, temperature=t, **options),
    )


def _both(call: Callable[[Any, Tensor, Tensor, Tensor], Tensor]) -> Pair:
    return Pair(lambda x, y, t: call(losses, x, y, t), lambda x, y, t: call(reference, x, y, t))


OTHER = {"labels": LABELS, "negatives": "other_label"}
_PAIRS = torch.rand(4, N, N, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
EXCLUDED, POSITIVES = _PAIRS[0] < 0.3, _PAIRS[1] < 0.3
EXCLUDED[4], POSITIVES[4] = True, False  # neither a candidate nor a positive
SHARES = torch.where(_PAIRS[2] < 0.5, _PAIRS[3], 0.0)
LISTED = torch.arange(N)[:, None] + torch.tensor([0, 1, 4, 4])  # itself, and one of them twice
LISTED = torch.where(_PAIRS[2, :, :4] < 0.7, LISTED % N, -1)
ROW_WEIGHTS = torch.linspace(0, 2, N, dtype=torch.float64)
# Weights of the rows' losses, so that a "none" has an upstream gradient of its own.
WEIGHTS = torch.linspace(-1, 2, 2 * N)


def weighted(rows: Tensor) -> Tensor:
    """The rows' losses, weighted and summed."""
    return (rows * WEIGHTS[: rows.shape[0]].to(rows.dtype)).sum()


LOSSES: dict[str, Pair] = {
    "one_way": _info_nce(),
    "rows": _both(lambda m, x, y, t: weighted(m.info_nce(x, y, temperature=t, reduction="none"))),
    "symmetric": _info_nce(symmetric=True),
    "symmetric_rows": _both(
        lambda m, x, y, t: weighted(
            m.info_nce(x, y, temperature=t, symmetric=True, reduction="none")
        )
    ),
    "stopped": _info_nce(symmetric=True, stop_gradient="key"),
    "smoothed": _info_nce(label_smoothing=0.1),
    "symmetric_smoothed": _info_nce(symmetric=True, label_smoothing=0.2, **OTHER),
    "other_label": _info_nce(**OTHER),
    "paper_6": _both(
        lambda m, x, y, t: m.info_nce(
            x, x, positive_key=y, temperature=t, stop_gradient="key", **OTHER
        )
    ),
    "indexed": _info_nce(positive=torch.arange(N).roll(1), exclude_self=True),
    "more_negatives": _both(
        lambda m, x, y, t: m.info_nce(
            x, y, temperature=t, extra_negatives=y[:3] + 0.5, label_smoothing=0.1,
            hard_negatives=torch.stack([x.roll(1, 0), y.roll(2, 0)], dim=1),
        )
    ),
    "counted_negatives": _both(
        lambda m, x, y, t: weighted(
            m.info_nce(
                x, y, temperature=t, label_smoothing=0.1, reduction="none",
                hard_negatives=torch.stack(
                    [x.roll(1, 0), y.roll(2, 0), torch.full_like(x, torch.nan)], dim=1
                ),
                hard_negative_counts=torch.arange(N) % 3,
            )
        )
    ),
    "excluded": _both(
        lambda m, x, y, t: weighted(
            m.info_nce(
                x, y, temperature=t, symmetric=True, exclude_mask=EXCLUDED, reduction="none"
            )
        )
    ),
    "positive_mask": _both(
        lambda m, x, y, t: m.info_nce(
            x, y, temperature=t, positive_mask=POSITIVES, exclude_mask=EXCLUDED,
            weight=ROW_WEIGHTS.to(t.dtype),
        )
    ),
    "listed_rows": _both(
        lambda m, x, y, t: weighted(
            m.info_nce(
                x, x, temperature=t * y.square().mean(), positive=LISTED, exclude_self=True,
                reduction="none",
            )
        )
    ),
    "targets": _both(
        lambda m, x, y, t: m.info_nce(
            x, y, temperature=t, targets=SHARES, key_bias=y[:, 0], extra_negatives=y[:3] + 0.5,
            hard_negatives=torch.stack([x.roll(1, 0), y.roll(2, 0)], dim=1),
        )
    ),
    "nt_xent": _both(lambda m, x, y, t: m.nt_xent(x, y, temperature=t)),
    "nt_xent_rows": _both(
        lambda m, x, y, t: weighted(m.nt_xent(x, y, temperature=t, reduction="none"))
    ),
    "dcl": _both(lambda m, x, y, t: m.dcl(x, y, temperature=t)),
    "sup_con": _both(
        lambda m, x, y, t: m.sup_con(torch.cat([x, y]), LABELS.repeat(2), temperature=t)
    ),
    "sup_con_keys": _both(
        lambda m, x, y, t: weighted(
            m.sup_con(
                x, LABELS, key=y, key_labels=LABELS.roll(1), exclude_self=True, temperature=t,
                reduction="none",
            )
        )
    ),
    "siglip": _both(lambda m, x, y, t: m.siglip(x, y, temperature=t, bias=t - 1)),
}  # fmt: skip


def inputs(dtype: torch.dtype = torch.float64, *, grad: bool = True) -> list[Tensor]:
    """Features [N, D] twice, and a temperature."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(N, D, generator=generator, dtype=torch.float64) for _ in range(2))
    given = (x, y, torch.tensor(0.7, dtype=torch.float64))
    return [tensor.to(dtype).requires_grad_(grad) for tensor in given]
