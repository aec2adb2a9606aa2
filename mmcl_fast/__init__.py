"""Fast contrastive learning of polynomial-ReLU two-layer networks, and its InfoNCE loss.

Public names load on first use, so that `import mmcl_fast` and `mmcl --help` stay quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmcl_fast import data as data
    from mmcl_fast import distributed as distributed
    from mmcl_fast import losses as losses
    from mmcl_fast import metrics as metrics
    from mmcl_fast import reference as reference
    from mmcl_fast import sweep as sweep
    from mmcl_fast import theory as theory
    from mmcl_fast.config import TrainConfig as TrainConfig
    from mmcl_fast.data.signal_noise.synthetic import SignalNoiseData as SignalNoiseData
    from mmcl_fast.errors import BackendUnavailableError as BackendUnavailableError
    from mmcl_fast.errors import ConfigError as ConfigError
    from mmcl_fast.errors import DamagedFileError as DamagedFileError
    from mmcl_fast.errors import DataError as DataError
    from mmcl_fast.errors import EngineRefusedError as EngineRefusedError
    from mmcl_fast.errors import MmclError as MmclError
    from mmcl_fast.errors import OutputError as OutputError
    from mmcl_fast.losses import InfoNCELoss as InfoNCELoss
    from mmcl_fast.losses import info_nce as info_nce
    from mmcl_fast.model import TwoLayerEncoder as TwoLayerEncoder
    from mmcl_fast.training import EpochInfo as EpochInfo
    from mmcl_fast.training import RunState as RunState
    from mmcl_fast.training import train as train
    from mmcl_fast.training import train_many as train_many
    from mmcl_fast.training.run import Run as Run

__version__ = "0.1.0"

_HOME = {
    "BackendUnavailableError": "errors",
    "ConfigError": "errors",
    "DamagedFileError": "errors",
    "DataError": "errors",
    "EngineRefusedError": "errors",
    "EpochInfo": "training",
    "InfoNCELoss": "losses",
    "MmclError": "errors",
    "OutputError": "errors",
    "Run": "training",
    "RunState": "training",
    "SignalNoiseData": "data",
    "TrainConfig": "config",
    "TwoLayerEncoder": "model",
    "info_nce": "losses",
    "train": "training",
    "train_many": "training",
}
_MODULES = ("data", "distributed", "losses", "metrics", "reference", "sweep", "theory")


if not TYPE_CHECKING:  # a type checker would take any misspelt name for one of `Any`

    def __getattr__(name: str) -> Any:
        if name in _MODULES:
            return import_module(f"{__name__}.{name}")
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return __all__


__all__ = [
    "BackendUnavailableError",
    "ConfigError",
    "DamagedFileError",
    "DataError",
    "EngineRefusedError",
    "EpochInfo",
    "InfoNCELoss",
    "MmclError",
    "OutputError",
    "Run",
    "RunState",
    "SignalNoiseData",
    "TrainConfig",
    "TwoLayerEncoder",
    "__version__",
    "data",
    "distributed",
    "info_nce",
    "losses",
    "metrics",
    "reference",
    "sweep",
    "theory",
    "train",
    "train_many",
]
