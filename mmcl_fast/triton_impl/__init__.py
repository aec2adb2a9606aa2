"""The contrastive losses on the kernels of `mmcl_fast.kernels`; the only importer of Triton here."""

from mmcl_fast.triton_impl.contrastive import contrast_backward, contrast_forward

__all__ = ["contrast_backward", "contrast_forward"]
