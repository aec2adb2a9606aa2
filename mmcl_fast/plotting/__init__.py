"""Every picture, one file a command's; matplotlib is imported with the first."""

from mmcl_fast.plotting.curves import figure1 as figure1
from mmcl_fast.plotting.curves import run_curves as run_curves
from mmcl_fast.plotting.curves import save as save
