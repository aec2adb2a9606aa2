"""Prints the coefficients of the exponential in `csrc/core/lanes_math.h`, and its largest error.

e^r = 1 + r + r^2 (c0 + c1 r + ... + c4 r^4) for |r| <= log(2) / 2, minimax in the relative error by
Lawson's reweighted least squares. Coefficients are rounded to float32 one by one, lowest first, and
those that follow are fitted again. Needs NumPy: `python csrc/tools/fit_exp.py`.
"""

import sys

import numpy as np

TERMS, STEPS = 5, 200


def main() -> None:
    """Fit and print."""
    r = np.cos((np.arange(4000) + 0.5) / 4000 * np.pi) * np.log(2) / 2 * 1.0001
    r = r.astype(np.longdouble)
    quotient, weight = (np.exp(r) - 1 - r) / r**2, r**2 / np.exp(r)
    coefficients: list[np.longdouble] = []
    for k in range(TERMS):
        remainder = quotient - sum(c * r**i for i, c in enumerate(coefficients))
        powers = np.stack([r**i for i in range(k, TERMS)], axis=1).astype(float)
        lawson = np.ones(len(r)) / len(r)
        for _ in range(STEPS):
            scale = (weight * np.sqrt(lawson)).astype(float)
            fit = np.linalg.lstsq(powers * scale[:, None], (remainder * scale).astype(float))[0]
            error = np.abs((powers @ fit - remainder) * weight).astype(float)
            lawson *= error / error.max()
            lawson = (lawson + 1e-12) / (lawson + 1e-12).sum()
        coefficients.append(np.longdouble(np.float32(fit[0])))
    value = 1 + r + r**2 * sum(c * r**i for i, c in enumerate(coefficients))
    worst = float(np.abs(value / np.exp(r) - 1).max())
    sys.stdout.write(
        ", ".join(float(c).hex() for c in coefficients) + f"\nerror at most {worst:.1e}\n"
    )


if __name__ == "__main__":
    main()
