"""Portable implementations in plain torch with bounded memory: the default on a CPU."""

from mmcl_fast.torch_impl.contrastive import info_nce_op as info_nce_op
