"""The contrastive losses in plain torch with bounded memory: the default on a CPU."""

from mmcl_fast.losses.torch_backend.contrastive import contrast_backward, contrast_forward

__all__ = ["contrast_backward", "contrast_forward"]
