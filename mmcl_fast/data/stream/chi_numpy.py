"""Chi variates in plain NumPy: the oracle of `csrc/core/chi.cpp` (`docs/stream.md`, 5)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mmcl_fast.data.stream.generate import normal, words
from mmcl_fast.stream_tags import WORDS_OF_BLOCK

ATTEMPTS = 8  # drawn at once; a row is rejected eight times with probability below 1e-10

Floats = npt.NDArray[np.float64]


def chi(degrees: Floats, rows: npt.NDArray[np.int64], key: int, stream: str) -> Floats:
    """Chi variates, one per row, by Marsaglia and Tsang's method (ACM TOMS 26, 2000), [k].

    Args:
        degrees: Degrees of freedom, 1 .. 2^53, [k].
        rows: The sample coordinate of each draw's own substream, ascending and consecutive, [k].
        key: Seed of the stream.
        stream: "chi" or "chi_b".

    Numerics: float64; the acceptance test uses log1p, so that it holds to 1e-9 at 10^15 degrees.
    """
    if not len(degrees):
        return np.zeros(0)
    shape = np.where(degrees < 2, degrees / 2 + 1, degrees / 2)
    result = np.full(len(degrees), np.nan)
    attempt = 0
    while np.isnan(result).any():
        x, u = _attempts(key, stream, rows, attempt)
        value = _gamma(shape[:, None], x, u)
        first = np.argmax(~np.isnan(value), axis=1)
        found = value[np.arange(len(rows)), first]
        result = np.where(np.isnan(result), found, result)
        attempt += ATTEMPTS
    boost = _uniform(words(key, stream, (1, len(rows), 1), (0, int(rows[0]), WORDS_OF_BLOCK[3])))
    result = np.where(degrees < 2, result * boost[:, 0] ** (2 / degrees), result)
    root: Floats = np.sqrt(2 * result)
    return root


def _attempts(
    key: int, stream: str, rows: npt.NDArray[np.int64], attempt: int
) -> tuple[Floats, Floats]:
    """Normals and uniforms of attempts `attempt ...` of each row, [k, ATTEMPTS]."""
    # Attempts are blocks; 64 of them share a tile of 256 dimensions, a word every 64.
    tile, lane = divmod(attempt, WORDS_OF_BLOCK[1])
    dim = tile * 4 * WORDS_OF_BLOCK[1] + lane
    shape, first = (1, len(rows), ATTEMPTS), int(rows[0])
    x = normal(key, stream, shape, (0, first, dim), dtype="float64")[0].numpy()
    u = _uniform(words(key, stream, shape, (0, first, dim + WORDS_OF_BLOCK[2])))
    return x, u


def _uniform(word: npt.NDArray[np.uint32]) -> Floats:
    uniform: Floats = (word[0].astype(float) + 0.5) * 2.0**-32
    return uniform


def _gamma(shape: Floats, x: Floats, u: Floats) -> Floats:
    """Gamma(shape) from a normal and a uniform, NaN where rejected."""
    d = shape - 1 / 3
    t = x / np.sqrt(9 * d)
    with np.errstate(invalid="ignore", divide="ignore"):
        grown = t * (3 + t * (3 + t))  # (1 + t)^3 - 1 without cancellation
        accepted = np.log(u) < x * x / 2 + d * (3 * np.log1p(t) - grown)
    return np.where((t > -1) & accepted, d * (1 + grown), np.nan)


__all__ = ["chi"]
