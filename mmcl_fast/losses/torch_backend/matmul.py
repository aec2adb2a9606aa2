"""The matrix products of the losses, and which library computes them: chosen here and nowhere else.

On a CPU torch's own float32 product is MKL's; oneDNN's is reachable as the operation behind
Inductor's fused linear layers. On AMD processors oneDNN is much the faster, on Intel's the two are
alike: `python -m bench.cpu.primal` and `python -m bench.cpu.choices` time both. Where the operation
is absent, and on every other device and dtype, torch's own product is used.

oneDNN is quickest for x @ w.T with w in rows, or w.T in rows if it is the larger factor, so the
factors are laid out such that each product has that form.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

# A call of oneDNN has a cost of its own: below so many multiplications MKL is done by then
# (`python -m bench.cpu.choices`).
_WORTH = 4_000_000
_THIN = 32  # rows, columns or features below which it is slow


def product(x: Tensor, w: Tensor) -> Tensor:
    """The product x @ w.T of x [a, k] and w [b, k] in any strides; a new tensor [a, b].

    Precision: float32 or float64 throughout, whatever autocast says; on a CPU as far as
    `torch.set_float32_matmul_precision` and the backends' own switches are left at their defaults.
    """
    if _suits_onednn(x, w):
        if not (w.is_contiguous() or w.T.is_contiguous()):
            w = w.contiguous()  # other strides take a path that is slower by far
        result: Tensor = torch.ops.mkldnn._linear_pointwise(x, w, None, "none", [], "")
        return result
    # With `out=` autocast leaves the product alone.
    return torch.mm(x, w.T, out=x.new_empty(len(x), len(w)))


def bfloat16_product(x: Tensor, w: Tensor) -> Tensor:
    """The product x @ w.T with factors and result rounded to bfloat16, as float32, [a, b].

    Sums are float32. An element is off by up to 2^-7 sum_k |x_ik w_jk| from the factors and 2^-8 of
    itself from the result; the errors of the factors' elements have no common sign. Faster than
    `product` where the processor has bfloat16 instructions (`python -m bench.cpu.primal`).
    """
    return (x.to(torch.bfloat16) @ w.to(torch.bfloat16).T).to(torch.float32)


PRODUCTS = {"ieee": product, "bf16": bfloat16_product}
"""By a run's precision."""


def _suits_onednn(x: Tensor, w: Tensor) -> bool:
    return (
        x.dtype == torch.float32
        and x.device.type == "cpu"
        and min(len(x), len(w), x.shape[1]) >= _THIN
        and x.numel() * len(w) >= _WORTH
        and has_onednn()
    )


@cache
def has_onednn() -> bool:
    """Whether this torch has oneDNN's product, and it computes what is meant."""
    if not torch.backends.mkldnn.is_available():
        return False
    try:
        operation = torch.ops.mkldnn._linear_pointwise
    except AttributeError:
        return False
    x, w = torch.eye(2), torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    try:
        return torch.equal(operation(x, w, None, "none", [], ""), w.T)
    except (RuntimeError, TypeError):  # another torch, another signature
        return False


__all__ = ["PRODUCTS", "bfloat16_product", "has_onednn", "product"]
