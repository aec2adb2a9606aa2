"""Fit the polynomials of csrc/core and print them as exact float32.

L, S, C: the normal transform (docs/stream.md, 3). E, Q: 2^r and log2(1 + z) / z of the passes over
scores (csrc/core/softmax_constants.h).

Minimax in relative error by Lawson's reweighting; coefficients are rounded to float32 one at a
time, lowest degree first, and the rest refitted after each rounding.
Run: python csrc/tools/fit_transform.py
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

import numpy as np

NODES = 4000
LAWSON_STEPS = 60
Function = Callable[[np.ndarray], np.ndarray]


def _minimax(x: np.ndarray, y: np.ndarray, weight: np.ndarray, degrees: list[int]) -> np.ndarray:
    lawson = np.ones(NODES)
    basis = np.stack([(x**k * weight).astype(float) for k in degrees], axis=1)
    for _ in range(LAWSON_STEPS):
        rows = basis * np.sqrt(lawson)[:, None]
        norm = np.linalg.norm(rows, axis=0)
        target = (y * weight).astype(float) * np.sqrt(lawson)
        c = np.linalg.lstsq(rows / norm, target, rcond=None)[0] / norm
        lawson *= np.abs((y * weight).astype(float) - basis @ c)
        lawson /= lawson.mean()
    return c


def fit(
    f: Function, low: float, high: float, degree: int, fixed: Mapping[int, float]
) -> tuple[list[float], float]:
    """Float32 coefficients of a polynomial near f on [low, high]; its largest relative error."""
    node = np.cos(np.pi * (np.arange(NODES) + 0.5) / NODES)
    x = (node * (high - low) / 2 + (high + low) / 2).astype(np.longdouble)
    y, chosen = f(x), dict(fixed)
    weight = 1 / np.abs(y)
    for k in range(degree + 1):
        if k in chosen:
            continue
        free = [j for j in range(degree + 1) if j not in chosen]
        remainder = y - sum(np.longdouble(c) * x**j for j, c in chosen.items())
        chosen[k] = float(np.float32(_minimax(x, remainder, weight, free)[0]))
    error = np.abs((sum(np.longdouble(chosen[k]) * x**k for k in range(degree + 1)) - y) * weight)
    return [chosen[k] for k in range(degree + 1)], float(error.max())


def main() -> None:
    """Fit and print every polynomial."""
    half = float(np.float32(np.sqrt(0.5)))
    quarter = np.longdouble(np.pi) / 4
    table: list[tuple[str, Function, float, float, int, dict[int, float]]] = [
        ("L", lambda t: -2 * np.log1p(t) / t, half - 1 - 1e-6, 2 * half - 1 + 1e-6, 8, {0: -2.0}),
        ("S", lambda u: np.sin(quarter * np.sqrt(u)) / np.sqrt(u), 0.0, 1.0, 3, {}),
        ("C", lambda u: np.cos(quarter * np.sqrt(u)), 0.0, 1.0, 4, {0: 1.0}),
        ("E", np.exp2, -0.5, 0.5, 6, {0: 1.0}),
        ("Q", lambda z: np.log1p(z) / (z * np.log(np.longdouble(2))), 0.0, 1.0, 8, {}),
    ]
    for name, f, low, high, degree, fixed in table:
        coefficients, error = fit(f, low, high, degree, fixed)
        sys.stdout.write(f"{name}  relative error {error:.2e}\n")
        sys.stdout.writelines(f"  {c.hex()}\n" for c in coefficients)


if __name__ == "__main__":
    main()
