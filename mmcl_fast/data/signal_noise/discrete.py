"""Labels, attributes, positives and targets of runs: words of the stream against thresholds.

A probability p is the integer threshold floor(2^32 p): a word below it is a success. Thresholds
of classes are computed in decimal arithmetic of fixed precision, so no rounding differs between
machines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext
from functools import lru_cache
from itertools import accumulate

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mmcl_fast.config import TrainConfig
from mmcl_fast.config_variants import test_correlation
from mmcl_fast.data.stream.generate import label_runs, word_runs, words

WORDS = 1 << 32  # values that a word takes
# Thresholds have ten digits; nothing is left to the global context, and underflow gives 0.
DECIMAL = Context(prec=50, rounding=ROUND_HALF_EVEN, Emin=-999_999, Emax=999_999, traps=[])


@lru_cache(maxsize=64)
def class_thresholds(classes: int, exponent: float) -> npt.NDArray[np.uint64]:
    """First word of each class but class 0, ascending, at most 2^32, [classes - 1].

    Class k = 0, 1, ... has probability proportional to (k + 1)^-exponent, exact to 2^-32.

    Args:
        classes: Their number, >= 1.
        exponent: Finite, >= 0.
    """
    with localcontext(DECIMAL):  # its ln and exp are correctly rounded
        weights = [(-Decimal(exponent) * Decimal(k).ln()).exp() for k in range(1, classes + 1)]
        sums = list(accumulate(weights))
        firsts = [int(WORDS * s / sums[-1]) for s in sums[:-1]]
    thresholds = np.array(firsts, dtype=np.uint64)
    thresholds.flags.writeable = False  # it is shared by all callers
    return thresholds


def drawn_labels(configs: Sequence[TrainConfig], stream: str, count: int) -> Tensor:
    """Labels of runs of equal sizes, [R, count]: +1 and -1, or numbers of classes.

    Args:
        configs: Settings; equal in dtype and classes.
        stream: "labels": classes with their prior; "test_labels", "probe_labels": uniform.
        count: Labels of a run.
    """
    cfg, keys = configs[0], [c.data_key for c in configs]
    if cfg.classes is None:
        return label_runs(keys, stream, count, cfg.dtype)
    word = word_runs(keys, stream, count)
    drawn = np.empty(word.shape, dtype=np.int64)
    for r, c in enumerate(configs):
        exponent = c.prior_exponent if stream == "labels" else 0.0
        thresholds = class_thresholds(cfg.classes, exponent)
        drawn[r] = np.searchsorted(thresholds, word[r].astype(np.uint64), side="right")
    return torch.from_numpy(drawn).to(getattr(torch, cfg.dtype))


def class_signs(cfg: TrainConfig, labels: Tensor) -> Tensor:
    """s(y), +1 or -1, as `labels`: the label itself; of classes +1 if even, -1 if odd."""
    return labels if cfg.classes is None else 1 - 2 * (labels % 2)


def draw_attributes(cfg: TrainConfig, stream: str, labels: Tensor) -> Tensor:
    """Spurious attributes of samples, +1 or -1, as `labels`; P(a = s(y)) = (1 + correlation) / 2.

    Args:
        cfg: Settings of a run with a spurious signal.
        stream: "attributes": correlation of training; "test_attributes", "probe_attributes": of the
            test distribution.
        labels: Labels of the samples, [k].
    """
    given = cfg.spurious_correlation if stream == "attributes" else test_correlation(cfg)
    assert given is not None
    word = words(cfg.data_key, stream, (1, 1, len(labels)))[0, 0]
    agrees = torch.from_numpy(word < threshold((1 + given) / 2)).to(labels.device)
    signs = class_signs(cfg, labels)
    return torch.where(agrees, signs, -signs)


def positives(cfg: TrainConfig, stream: str = "pair_noise") -> Tensor | None:
    """Index of the sample whose view, or modality B, is the positive of each, [n]; None: its own.

    Of round(pair_noise n) samples (a half to the even number), at least 2, those of the smallest
    words, each has the positive of the one before it in the order of the words, the first that of
    the last.

    Args:
        cfg: Settings.
        stream: "pair_noise"; "pair_noise_c": index of the sample whose modality C it is.
    """
    if not cfg.pair_noise:
        return None
    count = max(2, round(cfg.pair_noise * cfg.n))
    word = words(cfg.data_key, stream, (1, 1, cfg.n))[0, 0]
    chosen = np.argsort(word, kind="stable")[:count]
    found = np.arange(cfg.n)
    found[chosen] = np.roll(chosen, 1)
    return torch.from_numpy(found)


def draw_targets(cfg: TrainConfig, labels: Tensor, epoch: int) -> Tensor:
    """Labels that objective logistic is told in an epoch, as `labels`: some with another sign.

    Args:
        cfg: Its `label_noise` is the probability of a wrong label, drawn once or in each epoch.
        labels: +1 and -1, [n].
        epoch: 0 .. 2^24 - 1.
    """
    if not cfg.label_noise:
        return labels
    drawn_at = epoch if cfg.label_noise_draw == "per_epoch" else 0
    word = words(cfg.data_key, "label_noise", (1, 1, len(labels)), epoch=drawn_at)[0, 0]
    wrong = torch.from_numpy(word < threshold(cfg.label_noise)).to(labels.device)
    return torch.where(wrong, -labels, labels)


def assigned(cfg: TrainConfig, fields: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
    """Fields of a run, completed by what follows from its labels: attributes, targets and others.

    Args:
        cfg: Settings of the run.
        fields: Fields of its data, labels among them; those that are given are kept.
    """
    found = {name: x for name, x in fields.items() if x is not None}
    if cfg.has_spurious:
        for sample_set in ("", "test_", "probe_"):
            name, labels = f"{sample_set}attributes", found.get(f"{sample_set}labels")
            if labels is not None and name not in found:
                found[name] = draw_attributes(cfg, name, labels)
    for suffix in cfg.positive_suffixes:
        order = positives(cfg, f"pair_noise{suffix}")
        if order is None:
            continue
        found.setdefault(f"positive_labels{suffix}", found["labels"][order])
        if cfg.has_spurious:
            found.setdefault(f"positive_attributes{suffix}", found["attributes"][order])
    if cfg.objective == "logistic" and "targets" not in found:
        found["targets"] = draw_targets(cfg, found["labels"], 0)
    return found


def threshold(probability: float) -> int:
    """floor(2^32 p); the product with a power of two is exact."""
    return int(probability * WORDS)


__all__ = [
    "assigned",
    "class_signs",
    "class_thresholds",
    "draw_attributes",
    "draw_targets",
    "drawn_labels",
    "positives",
    "threshold",
]
