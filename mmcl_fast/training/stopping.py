"""Runs that a callback ends before the others of their batch: their results at that epoch.

They are those of a run of so many epochs, bit for bit: what is evaluated and stored at the last
epoch of such a run is evaluated and stored here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmcl_fast.engines.protocol import Coefficients, Engine


@dataclass(frozen=True)
class StoppedRun:
    """Results of one run at the epoch that it ended at.

    Attributes:
        epoch: The epoch.
        coefficients: Of each modality, with a leading dimension of 1; None with Adam.
        weights: Of each modality, [m, d]; None where the engine has none.
    """

    epoch: int
    coefficients: tuple[Coefficients, ...] | None
    weights: tuple[Tensor, ...] | None


def stopped_run(run: int, epoch: int, engine: Engine) -> StoppedRun:
    """Results of a run of an engine at its present weights."""
    coefficients, weights = engine.coefficients(), engine.weights()
    own = slice(run, run + 1)
    return StoppedRun(
        epoch,
        coefficients and tuple(c.mapped(lambda x: x[own].cpu().clone()) for c in coefficients),
        weights and tuple(w[run].cpu().clone() for w in weights),
    )


def cut_stored_curves(fields: dict[str, Any], epoch: int, final: dict[str, Tensor]) -> None:
    """Cut the stored coefficients of a run, in place, to those up to its last epoch.

    Args:
        fields: Fields of `Run` by name.
        epoch: The last epoch.
        final: Coefficients of the last epoch by the names of `Run`'s fields.
    """
    epochs = fields["coefficient_epochs"]
    if not epochs:
        return
    kept = [e for e in epochs if e <= epoch]
    for name, value in final.items():
        curve = fields[f"{name}_curve"][: len(kept)]
        fields[f"{name}_curve"] = (
            curve if kept[-1] == epoch else torch.cat([curve, value.unsqueeze(0)])
        )
    fields["coefficient_epochs"] = kept if kept[-1] == epoch else [*kept, epoch]


__all__ = ["StoppedRun", "cut_stored_curves", "stopped_run"]
