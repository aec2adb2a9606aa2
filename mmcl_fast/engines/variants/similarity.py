"""Inner products of features, and the gradient of the division by their lengths."""

from __future__ import annotations

import torch
from torch import Tensor

from mmcl_fast.engines.variants.features import SampleFeatures


def inner_products(side: SampleFeatures, noise: Tensor, codes: Tensor, cross: Tensor) -> Tensor:
    """<u_i, v_i> of a side's rows and vectors given by their rows, [R, b].

    Args:
        side: u.
        noise: Rows of v for the noise patches, [R, even(m), b].
        codes: Its rows for codes, [R, codes, b].
        cross: Products of the codes' activations of the side with those of v, [R, codes, codes].
    """
    return (side.noise * noise).sum(1).add_((side.code_rows * (cross @ codes)).sum(1))


def cosine_backward(side: SampleFeatures, noise: Tensor, products: Tensor) -> Tensor:
    """Turn dL/du into dL/dH for u = H / max(|H|, MIN_NORM).

    Args:
        side: u and 1 / |H|.
        noise: dL/du of the noise patches, [R, even(m), b]; becomes dL/dH.
        products: <u_i, dL/du_i>, [R, b].

    Returns: What the division takes off the gradient with respect to the codes' activations.
    """
    inverse_norm, is_long = side.inverse_norm, side.is_long
    assert inverse_norm is not None
    assert is_long is not None
    share = torch.where(is_long, products.unsqueeze(1), 0.0)  # short ones: by a constant
    noise.addcmul_(side.noise, share, value=-1).mul_(inverse_norm)
    return side.table * (side.code_rows * (share * inverse_norm)).sum(2).unsqueeze(1)


__all__ = ["cosine_backward", "inner_products"]
