"""The encoder with its weight gradient as one operation of autograd, on `kernels/encoder.py`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmcl_fast.kernels.encoder import (
    SignalGradient,
    encoder_bwd,
    encoder_fwd,
    encoder_signal_fwd,
)


def encode(
    noise: Tensor, weights: Tensor, mu: Tensor, *, q: int = 1, precision: str = "ieee"
) -> tuple[Tensor, Tensor]:
    """Activations of both patches (3); only the weights have a gradient.

    Args:
        noise: xi, [n, d]: bfloat16 | float16 | float32.
        weights: W, [m, d]: that dtype, or float32 (rounded to it; the gradient is float32 then).
        mu: Signal, [d]; rounded to that dtype.
        q: Power of the activation, >= 1.
        precision: Of products of float32: ieee | tf32x3 | tf32.

    Returns: act(<w_r, xi_i>), [n, m], the noise's dtype; act(<w_r, mu>) and act(-<w_r, mu>), what
        the signal patch has for labels +1 and -1, [2, m], float32.
    Raises: ValueError (shapes, strides, device), TypeError (dtype).
    Numerics: see `kernels/encoder.py`. The gradient of the weights is float32 before it is rounded.
    """
    if noise.requires_grad or mu.requires_grad:
        raise ValueError("noise, mu: expected data without gradient, got requires_grad")
    if weights.dtype not in (noise.dtype, torch.float32):
        raise TypeError(f"weights: expected {noise.dtype} or float32, got {weights.dtype}")
    low = mu.to(noise.dtype)
    return _Encode.apply(noise, weights, low, q, precision)  # type: ignore[no-any-return,no-untyped-call]


class _Encode(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, noise: Tensor, weights: Tensor, mu: Tensor, q: int, precision: str
    ) -> tuple[Tensor, Tensor]:
        w = weights.to(noise.dtype)
        h, signal = encoder_fwd(noise, w, q=q, precision=precision), encoder_signal_fwd(w, mu, q=q)
        ctx.save_for_backward(noise, h, mu, signal)
        ctx.q, ctx.precision, ctx.dtype = q, precision, weights.dtype
        return h, signal

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor, g_signal: Tensor) -> tuple[Tensor | None, ...]:
        noise, h, mu, signal = ctx.saved_tensors
        through = SignalGradient(mu, signal, g_signal.contiguous())
        found = encoder_bwd(noise, h, g.contiguous(), through, q=ctx.q, precision=ctx.precision)
        return None, found.to(ctx.dtype), None, None, None


__all__ = ["encode"]
