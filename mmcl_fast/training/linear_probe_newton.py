"""Logistic heads by batched Newton in torch, for problems too large for the native core.

Newton with Armijo backtracking, in float64. Problems with p <= n are solved in w, those with p > n
in the n coefficients a of w = F^T a: exact, as the optimum lies in the span of the features.
Features are centred (the intercept is not penalised, so this changes nothing), and once more with
the Newton weights, which eliminates the intercept without cancellation. `csrc/core/head_simd.h` is
the same method, one problem at a time.

Where it wins: beyond `linear_probe.NATIVE_ELEMENTS` elements on a CPU without AVX-512, where LAPACK
is blocked and the core is not. For one problem [n, p] on one thread of an AMD EPYC 9004, its time
over that of the core, by the core's instruction set:

    [n, p]          AVX-512    AVX2    plain C++
    [1000, 200]        4.6     3.1       0.14
    [2000, 1000]       1.8     0.44      0.06
    [4000, 1000]       1.2     0.41      0.08
    [2500, 2000]       -       0.27      -

With AVX-512 the core is faster at every size measured, but the size alone chooses the solver, so a
head has the same bits on every x86-64. `MMCL_CPU_TARGET=avx2 python -m bench.cpu.choices` repeats
the comparison (rows "head, ...").

Reproducibility: the result of a problem is bit-identical for any batch, chunks and number of
threads. Each chunk is computed by one thread, because threaded BLAS and LAPACK round differently;
chunks are distributed over threads. Products have at least two columns: a single vector in a batch
of one is sent to another BLAS routine, with another order of summation. Functions whose vector and
scalar code differ (sigmoid) are not used.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

GRADIENT_TOLERANCE = 1e-10
MAX_ITERATIONS = 200
# What a Newton step reads of a chunk should stay in the cache of one core; other sizes:
# `python -m bench.cpu.choices`.
CHUNK_BYTES = 2 * 2**20
_FLOAT64 = torch.finfo(torch.float64)
_MAX_HALVINGS = 60
_ARMIJO = 1e-4
# Rounding of the objective: without this slack the last Newton steps would be refused at random.
_ROUNDING = 1e-13


def fit_chunks(features: Tensor, labels: Tensor, l2: float) -> tuple[Tensor, ...]:
    """Weight [B, p], bias, converged and iterations [B] of B problems, on the CPU.

    Args:
        features: [B, n, p], floating.
        labels: [B, n], +1 or -1, both in every problem.
        l2: Penalty coefficient, > 0.

    Cost: per step 2 n p^2 + p^3 / 3 flop (p <= n) or n^3 / 3 (p > n, after 2 n^2 p once). Memory
        per thread: about 4 CHUNK_BYTES (p <= n), 30 (p > n), or 4 problems if that is more; and
        on the CPU all that is given, if it is on a GPU.
    """
    n, p = features.shape[1:]
    features, labels = _on_cpu(features), _on_cpu(labels)

    def fit_chunk(chunk: slice) -> tuple[Tensor, ...]:
        return _fit_chunk(_widen(features[chunk]), _widen(labels[chunk]), l2)

    # With p > n a step reads only the [n, n] products; the features still bound the chunk's memory.
    parts = _over_chunks(fit_chunk, len(features), 8 * n * max(min(n, p), p // 8))
    return tuple(torch.cat(column) for column in zip(*parts, strict=True))


def score_chunks(features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Share of samples [B] that heads classify rightly; NaN where a feature or head is not finite.

    Args:
        features: [B, n, p], floating.
        labels: [B, n], +1 or -1.
        weight: [B, p].
        bias: [B].
    """
    n, p = features.shape[1:]
    features, labels, weight, bias = (_on_cpu(x) for x in (features, labels, weight, bias))

    def score_chunk(chunk: slice) -> tuple[Tensor, ...]:
        matrix, direction = _widen(features[chunk]), _widen(weight[chunk])
        score = _times(matrix, direction, direction)[:, :, 0] + _widen(bias[chunk])[:, None]
        right = (score > 0) == (_widen(labels[chunk]) > 0)
        share = right.sum(1).to(torch.float64) / n
        usable = torch.isfinite(matrix).flatten(1).all(1) & torch.isfinite(score).all(1)
        return (torch.where(usable, share, math.nan),)

    return torch.cat([part[0] for part in _over_chunks(score_chunk, len(features), 8 * n * p)])


def _on_cpu(tensor: Tensor) -> Tensor:
    # By the calling thread: others have another CUDA stream, which does not wait for the caller's.
    return tensor.detach().cpu()


def _widen(tensor: Tensor) -> Tensor:
    # Contiguous, because BLAS may sum in another order for other strides.
    return tensor.to(torch.float64).contiguous()


def _over_chunks(
    work: Callable[[slice], tuple[Tensor, ...]], count: int, problem_bytes: int
) -> list[tuple[Tensor, ...]]:
    """Runs `work` on slices of the batch (one empty slice of none), each on one thread."""
    size = max(1, CHUNK_BYTES // problem_bytes)
    chunks = [slice(start, start + size) for start in range(0, count, size)] or [slice(0, 0)]
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads, "probe", torch.set_num_threads, (1,)) as pool:
            return list(pool.map(work, chunks))
    finally:
        # The count in force is per thread, but a new thread starts from the last one set anywhere.
        torch.set_num_threads(threads)


def _times(matrix: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """[k, r, c] times two vectors [k, c] each -> [k, r, 2]."""
    return torch.bmm(matrix, torch.stack((first, second), dim=2))


def _gram(rows: Tensor) -> Tensor:
    """[k, r, c] -> rows times their transpose, [k, r, r].

    In even sizes, padded with zeros: MKL rounds otherwise where a problem's matrix does not begin
    at 16 bytes, so the second of a batch would differ from the same problem alone (seen on an AMD
    CPU).
    """
    r, c = rows.shape[1:]
    even = torch.nn.functional.pad(rows, (0, c % 2, 0, r % 2)).contiguous()
    return torch.bmm(even, even.mT)[:, :r, :r].contiguous()


def _solved(matrix: Tensor, right: Tensor) -> Tensor:
    """[k, r, r], positive definite, and right sides [k, r, 2] -> solutions [k, r, 2]."""
    r = matrix.shape[1]
    odd = r % 2  # made even as in `_gram`, by an unknown of its own
    even = torch.nn.functional.pad(matrix, (0, odd, 0, odd))
    even[:, r:, r:] = 1.0
    factor = torch.linalg.cholesky_ex(even).L
    return torch.cholesky_solve(torch.nn.functional.pad(right, (0, 0, 0, odd)), factor)[:, :r]


def _dot(left: Tensor, right: Tensor) -> Tensor:
    return (left * right).sum(1)


class _Primal:
    """Newton steps in w = coef, [k, p]; `matrix` holds the centred features, [k, n, p]."""

    def __init__(self, features: Tensor, l2: float) -> None:
        self.matrix = features
        self.l2 = l2
        self.largest = features.abs().flatten(1).amax(1)  # [k]

    def keep(self, which: Tensor) -> None:
        self.matrix, self.largest = self.matrix[which], self.largest[which]

    def pull(self, coef: Tensor, pulls: Tensor, curvature: Tensor) -> Tensor:
        """F^T applied to pulls and curvature, [k, p, 2]."""
        return _times(self.matrix.mT, pulls, curvature)

    def stationary(self, coef: Tensor, pulls: Tensor, pulled: Tensor) -> Tensor:
        n = pulls.shape[1]
        gradient = self.l2 * coef - pulled[:, :, 0] / n
        scale = self.largest * pulls.abs().mean(1)
        return gradient.abs().amax(1) <= GRADIENT_TOLERANCE * scale

    def direction(
        self, coef: Tensor, pulls: Tensor, curvature: Tensor, pulled: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The Newton direction in w, [k, p], and in b, [k]."""
        n, p = self.matrix.shape[1:]
        total = curvature.sum(1).clamp_min(_FLOAT64.tiny)  # [k]
        lift = pulls.sum(1) / total
        mean = pulled[:, :, 1] / total[:, None]  # [k, p]
        weighted = (self.matrix - mean[:, None, :]) * curvature.sqrt()[:, :, None]
        hessian = _gram(weighted.mT) / n
        diagonal = hessian.diagonal(dim1=1, dim2=2)
        # l2 alone keeps the matrix definite unless rounding of huge features exceeds it.
        rounding = 4 * p * _FLOAT64.eps * diagonal.amax(1, keepdim=True)
        diagonal += self.l2 + rounding
        descent = (pulled[:, :, 0] - lift[:, None] * pulled[:, :, 1]) / n - self.l2 * coef
        right = torch.stack((descent, mean), dim=2)
        step = _solved(hessian, right)[:, :, 0]
        return step, lift - _dot(mean, step)

    def metric(self, vector: Tensor, image: Tensor) -> Tensor:
        """G v with |w|^2 = <coef, G coef>: here w itself."""
        return vector

    def weight(self, coef: Tensor, features: Tensor) -> Tensor:
        return coef


class _Dual:
    """Newton steps in coef = a, [k, n], where w = F^T a; `matrix` is F F^T, [k, n, n].

    Newton's system (I + W K) da + W 1 db = rho is solved through I + W^{1/2} K W^{1/2}: eigenvalues
    of at least 1 however small the weights W (Rasmussen and Williams 2006, algorithm 3.1).
    """

    def __init__(self, features: Tensor, l2: float) -> None:
        self.matrix = _gram(features)
        self.l2 = l2

    def keep(self, which: Tensor) -> None:
        self.matrix = self.matrix[which]

    def pull(self, coef: Tensor, pulls: Tensor, curvature: Tensor) -> Tensor:
        """rho, [k, n]: the gradient in w is -l2 F^T rho."""
        return pulls / (pulls.shape[1] * self.l2) - coef

    def stationary(self, coef: Tensor, pulls: Tensor, pulled: Tensor) -> Tensor:
        # max_j |l2 (F^T rho)_j| <= l2 n max|F| mean|rho|, so this implies the primal criterion.
        bound = pulls.abs().mean(1) / (pulls.shape[1] * self.l2)
        return pulled.abs().mean(1) <= GRADIENT_TOLERANCE * bound

    def direction(
        self, coef: Tensor, pulls: Tensor, curvature: Tensor, pulled: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The Newton direction in a, [k, n], and in b, [k]; after a whole step a sums to 0."""
        n = self.matrix.shape[1]
        root = (curvature / (n * self.l2)).sqrt()  # [k, n]
        inner = self.matrix * root[:, :, None] * root[:, None, :]
        diagonal = inner.diagonal(dim1=1, dim2=2)
        rounding = 4 * n * _FLOAT64.eps * diagonal.amax(1, keepdim=True)
        diagonal += 1.0 + rounding
        image = _times(self.matrix, pulled, coef)[:, :, 0]
        right = torch.stack((root * image, root), dim=2)
        solved = _solved(inner, right)
        plain = pulled - root * solved[:, :, 0]
        along_bias = root * solved[:, :, 1]
        total = along_bias.sum(1).clamp_min(_FLOAT64.tiny)
        bias_step = (coef.sum(1) + plain.sum(1)) / total
        return plain - bias_step[:, None] * along_bias, bias_step

    def metric(self, vector: Tensor, image: Tensor) -> Tensor:
        """G v with |w|^2 = <coef, G coef>: here K v, which is the image."""
        return image

    def weight(self, coef: Tensor, features: Tensor) -> Tensor:
        return _times(features.mT, coef, coef)[:, :, 0]


def _fit_chunk(features: Tensor, labels: Tensor, l2: float) -> tuple[Tensor, ...]:
    """Heads of k problems, [k, n, p] float64; NaN for those with non-finite features."""
    count, n, p = features.shape
    finite = torch.isfinite(features).flatten(1).all(1)
    weight, bias = labels.new_full((count, p), math.nan), labels.new_full((count,), math.nan)
    converged = torch.zeros(count, dtype=torch.bool)
    iterations = torch.zeros(count, dtype=torch.int64)
    if bool(finite.any()):
        usable = features[finite]
        mean = usable.mean(1, keepdim=True)  # [k, 1, p]
        centred = usable - mean
        model = _Primal(centred, l2) if p <= n else _Dual(centred, l2)
        coef, shifted, met, steps = _newton(model, labels[finite])
        fitted = model.weight(coef, centred)
        weight[finite] = fitted
        bias[finite] = shifted - _dot(fitted, mean[:, 0, :])
        converged[finite], iterations[finite] = met, steps
    return weight, bias, converged, iterations


def _newton(model: _Primal | _Dual, labels: Tensor) -> tuple[Tensor, ...]:
    """Damped Newton from w = 0 and the best constant score; a problem leaves when it is done."""
    count, n = labels.shape
    rows = torch.arange(count)
    plus = (labels > 0).sum(1).to(torch.float64)
    bias = (plus / (n - plus)).log()
    coef = torch.zeros(count, model.matrix.shape[2], dtype=torch.float64)
    score = bias[:, None].expand(count, n)
    moved = torch.ones(count, dtype=torch.bool)
    out_coef, out_bias = coef.clone(), bias.clone()
    converged = torch.zeros(count, dtype=torch.bool)
    iterations = torch.zeros(count, dtype=torch.int64)
    for iteration in range(MAX_ITERATIONS + 1):
        pulls, curvature = _derivatives(labels, score)
        pulled = model.pull(coef, pulls, curvature)
        balanced = pulls.sum(1).abs() <= GRADIENT_TOLERANCE * pulls.abs().sum(1)
        met = balanced & model.stationary(coef, pulls, pulled)
        leaving = met | ~moved | (iteration == MAX_ITERATIONS)
        if bool(leaving.any()):
            gone, stay = rows[leaving], ~leaving
            out_coef[gone], out_bias[gone] = coef[leaving], bias[leaving]
            converged[gone], iterations[gone] = met[leaving], iteration
            if not bool(stay.any()):
                break
            model.keep(stay)
            rows, labels, coef, bias = rows[stay], labels[stay], coef[stay], bias[stay]
            pulls, curvature, pulled = pulls[stay], curvature[stay], pulled[stay]
        step, bias_step = model.direction(coef, pulls, curvature, pulled)
        coef, bias, score, moved = _search(model, labels, (coef, bias), (step, bias_step))
    return out_coef, out_bias, converged, iterations


def _derivatives(labels: Tensor, score: Tensor) -> tuple[Tensor, Tensor]:
    """-dloss/dscore and the second derivative of each sample's loss, both [k, n]."""
    margin = labels * score
    small = torch.exp(-margin.abs())
    wrong = torch.where(margin > 0, small, 1.0) / (1.0 + small)  # 1 - P(y_i | f_i)
    curvature = small / (1.0 + small).square()
    return labels * wrong, curvature


def _search(
    model: _Primal | _Dual,
    labels: Tensor,
    start: tuple[Tensor, Tensor],
    direction: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Halves each problem's step until the objective falls enough; `moved` says if it ever did."""
    (coef, bias), (step, bias_step) = start, direction
    images = _times(model.matrix, coef, step)  # [k, n, 2]
    score = images[:, :, 0] + bias[:, None]
    change = images[:, :, 1] + bias_step[:, None]
    whole = model.metric(coef, images[:, :, 0])
    moved_whole = model.metric(step, images[:, :, 1])
    squares = (_dot(coef, whole), _dot(step, whole), _dot(step, moved_whole))
    pulls, _ = _derivatives(labels, score)
    slope = model.l2 * squares[1] - (pulls * change).mean(1)

    def objective(size: Tensor) -> Tensor:
        margin = labels * (score + size[:, None] * change)
        loss = torch.log1p(torch.exp(-margin.abs())) - margin.clamp_max(0.0)
        penalty = squares[0] + size * (2.0 * squares[1] + size * squares[2])
        return loss.mean(1) + 0.5 * model.l2 * penalty

    size = torch.ones_like(bias)
    now = objective(torch.zeros_like(bias))
    limit = now + _ROUNDING * now.abs()
    moved = objective(size) <= limit + _ARMIJO * size * slope
    for _ in range(_MAX_HALVINGS):
        if not bool((~moved & torch.isfinite(slope)).any()):
            break
        size = torch.where(moved, size, 0.5 * size)
        moved = moved | (objective(size) <= limit + _ARMIJO * size * slope)
    # A problem that cannot move keeps its point exactly (its direction may be NaN).
    coef = torch.where(moved[:, None], coef + size[:, None] * step, coef)
    score = torch.where(moved[:, None], score + size[:, None] * change, score)
    return coef, torch.where(moved, bias + size * bias_step, bias), score, moved


__all__ = ["CHUNK_BYTES", "GRADIENT_TOLERANCE", "MAX_ITERATIONS", "fit_chunks", "score_chunks"]
