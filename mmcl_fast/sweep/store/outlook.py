"""How fast a sweep goes, how long it will take, and which of its settings take longest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmcl_fast.sweep.store.drivers import Driver
from mmcl_fast.sweep.store.parquet_file import open_parquet
from mmcl_fast.sweep.store.plan_file import Outline
from mmcl_fast.sweep.store.store import PART_REMEDY, PartInfo

RECENT_SECONDS = 600.0
SLOWEST = 3


@dataclass(frozen=True)
class Slow:
    """A shard whose runs took longest.

    Attributes:
        shard: Index of the shard.
        seconds: Mean training time of its runs.
        settings: The swept settings, and their values in it, as text.
    """

    shard: int
    seconds: float
    settings: dict[str, str]


def rate(infos: Sequence[PartInfo], now: float | None = None) -> float | None:
    """Runs per second of the last `RECENT_SECONDS` of work; None: too few parts.

    Args:
        infos: Metadata of the parts.
        now: Where the sweep is running: seconds since 1970. Work ends now then, and not with the
            last part, so a rate falls while nothing is finished.
    """
    if not infos:
        return None
    ends = np.array([info.finished for info in infos])
    runs = np.array([info.runs for info in infos])
    last = ends.max() if now is None else max(now, ends.max())
    recent = ends >= ends.max() - RECENT_SECONDS
    if len(infos) < 2 or recent.sum() < 2 or ends[recent].min() == last:
        return None
    # The first part's work precedes its end, where the interval begins.
    first = ends == ends[recent].min()
    return float(runs[recent & ~first].sum() / (last - ends[recent].min()))


def seconds_left(
    infos: Sequence[PartInfo],
    plan: Outline,
    drivers: Sequence[Driver],
    runs_per_second: float | None,
) -> float | None:
    """Expected time until every run is there; None: unknown.

    It is that of the remaining runs at the present rate, or that of the shard in hand that will
    end last, whichever is longer. It is unknown where the worker of a shard in hand is silent, or a
    shard takes longer than its runs have taken anywhere.
    """
    remaining = plan.runs - sum(info.runs for info in infos)
    if remaining <= 0:
        return 0.0
    work = [each for driver in drivers for each in driver.work]
    if runs_per_second is None or runs_per_second <= 0:
        return None
    if any(each.is_silent for each in work):
        return None
    longest = max(info.seconds / info.runs for info in infos)
    ends = [longest * plan.shard_size(each.shard) - each.seconds for each in work]
    if any(end < 0 for end in ends):
        return None
    usual = float(np.median([info.seconds / info.runs for info in infos]))
    last = [usual * plan.shard_size(each.shard) - each.seconds for each in work]
    return max(remaining / runs_per_second, *last, 0.0)


def slowest(
    infos: Sequence[PartInfo],
    plan: Outline,
    settings: Callable[[int], dict[str, str]],
) -> list[Slow]:
    """The shards whose runs took longest, where some took longer than others.

    Args:
        infos: Metadata of the parts.
        plan: The plan.
        settings: `swept_settings` of a shard.

    Raises: DamagedFileError: one of their parts, which is named.
    """
    times = {info.shard: info.seconds / info.runs for info in infos}
    if len(times) < 2 or not plan.swept:
        return []
    chosen = sorted(times, key=lambda shard: -times[shard])[:SLOWEST]
    return [Slow(k, times[k], settings(k)) for k in chosen]


def swept_settings(path: Path, names: Sequence[str]) -> dict[str, str]:
    """Values of the swept settings in a part: one, or how far they range.

    Raises: DamagedFileError: the part, which is named.
    """
    with open_parquet(path, PART_REMEDY, whole=False) as part:
        table = part.read(list(names))
    found = {}
    for name in names:
        values = sorted(set(table[name].to_pylist()), key=lambda v: (str(type(v)), v))
        texts = [f"{v:.4g}" if isinstance(v, float) else str(v) for v in values]
        found[name] = texts[0] if len(texts) == 1 else f"{texts[0]} .. {texts[-1]}"
    return found


__all__ = ["RECENT_SECONDS", "Slow", "rate", "seconds_left", "slowest", "swept_settings"]
