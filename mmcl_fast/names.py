"""The nearest name to a wrong one: settings, flags, columns, commands."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from types import MappingProxyType

_SIMILAR = 0.6  # of difflib: 1 is the same word
_RESEMBLING = 0.4  # worth showing among others
# What other programs call a setting.
_OTHER_NAMES = MappingProxyType(
    {
        "activation": "q",
        "batch": "batch_size",
        "dim": "d",
        "hidden": "m",
        "input_dim": "d",
        "iterations": "epochs",
        "l2": "weight_decay",
        "learning_rate": "eta",
        "lr": "eta",
        "mu": "mu_norm",
        "n_samples": "n",
        "neurons": "m",
        "power": "q",
        "samples": "n",
        "sigma": "sigma_xi",
        "steps": "epochs",
        "temperature": "tau",
        "wd": "weight_decay",
        "width": "m",
    }
)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The name among `known` that another probably means: synonym, whole name, or most similar."""
    names = list(known)
    synonym = _OTHER_NAMES.get(name.lower())
    if synonym in names:
        return synonym
    longer = [other for other in names if len(name) > 2 and other.startswith(name)]
    if len(longer) == 1:
        return longer[0]
    # A name of one or two letters resembles too much.
    long = [other for other in names if len(other) > 2 or abs(len(name) - len(other)) < 2]
    near = difflib.get_close_matches(name, long, n=1, cutoff=_SIMILAR)
    return near[0] if near else None


def suggestion(name: str, known: Iterable[str], listed: str) -> str:
    """What the error about an unknown name says of the known ones, of which there may be many.

    Args:
        name: The unknown name.
        known: The names that exist.
        listed: Where all of them are listed.
    """
    names = list(known)
    if near := nearest(name, names):
        return f"did you mean {near}?"
    resembling = difflib.get_close_matches(name, names, n=3, cutoff=_RESEMBLING)
    return f"nearest: {', '.join(resembling)}; {listed}" if resembling else listed


__all__ = ["nearest", "suggestion"]
