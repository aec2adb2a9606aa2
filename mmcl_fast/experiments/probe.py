"""The linear probe of an experiment: what the head is fitted on, and how that is said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mmcl_fast.config import ProbeOn, TrainConfig


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Settings of the head; defaults are those of `TrainConfig`.

    Attributes:
        on: Training or OOD data.
        samples: OOD samples of the fit; None: the default, or none with training data.
        penalty: Its l2; None: the default.
    """

    on: ProbeOn = "train"
    samples: int | None = None
    penalty: float | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """Fields of a `TrainConfig`."""
        return {
            "probe_on": self.on,
            "probe_samples": self.samples,
            "probe_penalty": self.penalty,
        }


def head_text(cfg: TrainConfig) -> str:
    """What the head is fitted on, for captions."""
    k = cfg.probe_samples_value
    penalty = "" if cfg.probe_penalty is None else f", l2 = {cfg.probe_penalty:g}"
    return f"head fitted on {f'{k} OOD samples' if k else 'training embeddings'}{penalty}"


__all__ = ["Probe", "head_text"]
