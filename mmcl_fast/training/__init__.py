"""Training: the loop over epochs, batches of runs, recorded curves, and checkpoints."""

from mmcl_fast.training.batches import train_many as train_many
from mmcl_fast.training.epoch_info import EpochInfo as EpochInfo
from mmcl_fast.training.epoch_info import RunState as RunState
from mmcl_fast.training.loop import train as train
from mmcl_fast.training.run import Run as Run
