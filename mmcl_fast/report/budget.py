"""How much of a store a report holds: epochs of the mean curves, and single runs' curves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mmcl_fast.config import TrainConfig
from mmcl_fast.errors import ConfigError
from mmcl_fast.sweep.store.schema import CURVES

DATA_BYTES = 13_000_000
"""Data of a report; Vega and the page are another megabyte."""
SETTING_BYTES = 230  # counts, labels, and the last epoch of the four curves
MEAN_BYTES, RUN_BYTES = 13, 8  # of an epoch of a curve: mean and s.d.; the value of one run
MOST_EPOCHS = 201
LEAST_EPOCHS = 3
MOST_RUNS = 50  # thin lines of one setting that an eye can follow


@dataclass(frozen=True)
class Budget:
    """What a report holds.

    Attributes:
        epochs: Epochs at which curves are kept, increasing, the first 0, the last that of the
            longest run.
        every: Distance between them, but for the last.
        runs: Runs of each setting whose own curves are kept.
    """

    epochs: npt.NDArray[np.int64]
    every: int
    runs: int


def budget(points: list[TrainConfig], seeds: int) -> Budget:
    """Divide `DATA_BYTES` among settings, epochs and runs.

    Args:
        points: Every setting.
        seeds: The most runs that a setting has.

    Raises: ConfigError: so many settings that not even three epochs of each fit.
    """
    last = max(cfg.epochs for cfg in points)
    curves = len(points) * len(CURVES)
    left = DATA_BYTES - len(points) * SETTING_BYTES
    fits = left // (curves * MEAN_BYTES)
    if fits < min(LEAST_EPOCHS, last + 1):
        most = DATA_BYTES // (SETTING_BYTES + LEAST_EPOCHS * len(CURVES) * MEAN_BYTES)
        raise ConfigError(
            f"store: expected at most {most} settings for a report, got {len(points)}; choose some "
            "with --where"
        )
    every = 1
    if last + 1 > min(fits, MOST_EPOCHS):
        every = -(-last // (min(fits, MOST_EPOCHS) - 1))
    # Accuracy is known at multiples of this; other epochs would leave its map empty.
    evaluated = max(cfg.evaluate_every for cfg in points)
    if every > 1 and 0 < evaluated < last:
        every = -(-every // evaluated) * evaluated
    epochs = np.unique(np.append(np.arange(0, last + 1, every), last))
    left -= curves * MEAN_BYTES * len(epochs)
    runs = min(left // (curves * RUN_BYTES * len(epochs)), MOST_RUNS, seeds)
    return Budget(epochs, every, int(runs))


__all__ = ["Budget", "budget"]
