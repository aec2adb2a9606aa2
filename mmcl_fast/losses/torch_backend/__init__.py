"""Portable implementations in plain torch with bounded memory: the default on a CPU."""

from mmcl_fast.losses.torch_backend.contrastive import contrast_backward as contrast_backward
from mmcl_fast.losses.torch_backend.contrastive import contrast_forward as contrast_forward
