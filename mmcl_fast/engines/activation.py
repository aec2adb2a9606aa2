"""The activation max(0, z)^q and its derivative, with powers by multiplications.

torch's general power rounds an element by its place in the tensor, so a run would depend on its
batch from q = 4 on; products are rounded alike everywhere.
"""

from __future__ import annotations

import torch
from torch import Tensor


def activate(z: Tensor, q: int, out: Tensor | None = None) -> Tensor:
    """`max(0, z)^q`, any shape; written to `out` if given."""
    return raised(torch.clamp_min(z, 0.0, out=out), q)


def activate_backward(gradient: Tensor, z: Tensor, q: int) -> Tensor:
    """`gradient q max(0, z)^(q - 1)`, 0 at z = 0, any shape."""
    if q == 1:
        return torch.ops.aten.threshold_backward(gradient, z, 0.0)  # type: ignore[no-any-return]
    return raised(torch.relu(z), q - 1).mul_(gradient).mul_(q)


def signal_gradient(gradient: Tensor, z: Tensor, q: int) -> Tensor:
    """Gradient with respect to <w_r, mu> from those of its two features, [R, m, 2] to [R, m, 1].

    Args:
        gradient: With respect to act(<w_r, mu>) and act(-<w_r, mu>), [R, m, 2].
        z: <w_r, mu> and -<w_r, mu>, [R, m, 2].
        q: Power of the activation.
    """
    both = activate_backward(gradient, z, q)
    return both[:, :, :1] - both[:, :, 1:]


def raised(x: Tensor, power: int) -> Tensor:
    """`x^power` for power >= 1, in place; powers of two are squared, the others multiplied."""
    if power == 1:
        return x
    factor = x.clone() if power % 2 else None
    raised(x, power // 2)
    x.mul_(x)
    return x if factor is None else x.mul_(factor)


__all__ = ["activate", "activate_backward", "raised", "signal_gradient"]
