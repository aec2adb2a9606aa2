"""Training runs: the loop around an engine, what it measures, and what it leaves."""

from mmcl_fast.training.batches import train_many as train_many
from mmcl_fast.training.loop import EpochInfo as EpochInfo
from mmcl_fast.training.loop import train as train
from mmcl_fast.training.run import Run as Run
