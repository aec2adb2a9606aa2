"""Checkpoint of a single long run: one safetensors file, no pickles, written atomically.

A resumed run is bit-identical to an uninterrupted one, and may have more epochs to go: the file has
all tensors that training changes, and all others (data, inner products) are pure functions of the
config and the given data.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from mmcl_fast.config import LATER_FIELDS, TrainConfig
from mmcl_fast.content_digest import damaged
from mmcl_fast.data.signal_noise.synthetic import SignalNoiseData
from mmcl_fast.engines.optimizers import nest, unnest
from mmcl_fast.engines.protocol import Engine
from mmcl_fast.errors import ConfigError, DamagedFileError, OutputError
from mmcl_fast.training.recorder import CURVES, Recorder
from mmcl_fast.training.tensor_file import read_tensors, write_tensors

FORMAT = "mmcl-checkpoint-1"
REMEDY = "remove it, and the run starts from its beginning"
SECONDS_BETWEEN_WRITES = 60.0


class Checkpoint:
    """The file of one run.

    Args:
        path: An existing file to resume from, or the file to write.
        cfg: Resolved settings; a file of other settings is refused, naming the first difference.
        data: The run's data; a file of other data is refused.
        every: Epochs between writes; None: a minute between them.
        metrics: Names of the metrics; a file of a run with others is refused.
    """

    def __init__(
        self,
        path: Path,
        cfg: TrainConfig,
        data: SignalNoiseData,
        every: int | None,
        *,
        metrics: Sequence[str] = (),
    ) -> None:
        if every is not None and (not isinstance(every, int) or every < 1):
            raise ConfigError(f"checkpoint_every: expected an integer >= 1, got {every}")
        if not path.parent.is_dir():
            raise OutputError(
                f"checkpoint: expected an existing directory, got {str(path.parent)!r}"
            )
        self._path, self.every = path, every
        self._config, self._data, self._metrics = cfg, data, sorted(metrics)
        self._written = time.monotonic()
        self._resumed = self._read() if path.exists() else None

    def resume(self, engine: Engine, recorder: Recorder) -> int:
        """Load the file into engine and recorder; return the epoch to resume at (0: no file).

        Raises: DamagedFileError: tensors are missing, or of another shape or type.
        """
        if self._resumed is None:
            return 0
        epoch, saved_epochs, state = self._resumed
        of_engine, of_recorder = (unnest(name, state) for name in ("engine", "recorder"))
        try:
            _check_tensors(of_engine, engine.state())
            _check_curves(of_recorder, (*CURVES, *nest("metric", recorder.metrics)), saved_epochs)
            engine.load_state(of_engine)
            recorder.load_state(of_recorder)
        except (KeyError, ValueError, IndexError) as error:
            raise damaged(self._path, error, REMEDY) from error
        return epoch

    def maybe_write(self, epoch: int, engine: Engine, recorder: Recorder) -> None:
        """Write the state before `epoch`, if one is due."""
        if not self._is_due(epoch):
            return
        state = nest("engine", engine.state()) | nest("recorder", recorder.state())
        write_tensors(state, self._path, self._metadata | {"epoch": str(epoch)})
        self._written = time.monotonic()

    def _is_due(self, epoch: int) -> bool:
        if self.every is None:
            return time.monotonic() - self._written >= SECONDS_BETWEEN_WRITES
        return epoch % self.every == 0

    @cached_property
    def _metadata(self) -> dict[str, str]:
        """What the run must agree in; the data are read for it, so not before it is needed."""
        return {
            "format": FORMAT,
            "config": json.dumps(self._config.to_dict()),
            "data": _fingerprint(self._data),
            "metrics": json.dumps(self._metrics),
        }

    def _read(self) -> tuple[int, int, dict[str, Tensor]]:
        """The epoch, the epochs of the run that wrote it, and its tensors."""
        try:
            metadata, state = read_tensors(self._path, REMEDY)
        except DamagedFileError:
            raise
        except OSError as error:
            raise OutputError(
                "checkpoint: expected a readable file of this program, "
                f"got {str(self._path)!r} ({error})"
            ) from error
        if metadata.get("format") != FORMAT:
            raise OutputError(
                f"checkpoint: expected format {FORMAT}, got {metadata.get('format')!r}"
            )
        try:
            epoch, saved = _parsed(metadata)
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise damaged(self._path, error, REMEDY) from error
        self._check_run(epoch, saved, metadata)
        return epoch, int(saved["epochs"]), state

    def _check_run(self, epoch: int, saved: dict[str, Any], metadata: dict[str, str]) -> None:
        """Raise ConfigError where the file is of another run."""
        current = json.loads(self._metadata["config"])
        if epoch > current["epochs"]:
            raise ConfigError(
                f"checkpoint: expected a run of at most epochs = {current['epochs']}, got one at "
                f"epoch {epoch} in {str(self._path)!r}; take another file or remove it"
            )
        for name in (current | saved).keys() - {"epochs"}:
            if current.get(name) != saved.get(name):
                raise ConfigError(
                    f"checkpoint: expected {name} = {current.get(name)!r}, got a run with "
                    f"{saved.get(name)!r} in {str(self._path)!r}; take another file or remove it"
                )
        if metadata["data"] != self._metadata["data"]:
            raise ConfigError(
                f"checkpoint: expected a run on the same data, got other data in "
                f"{str(self._path)!r}; take another file or remove it"
            )
        names, expected = metadata.get("metrics", "[]"), self._metadata["metrics"]
        if names != expected:
            raise ConfigError(
                f"checkpoint: expected a run with metrics {expected}, got one with {names} in "
                f"{str(self._path)!r}; take another file or remove it"
            )


def _parsed(metadata: dict[str, str]) -> tuple[int, dict[str, Any]]:
    """Epoch and settings in a checkpoint's metadata.

    Raises: KeyError, TypeError, ValueError: an entry is missing or impossible.
    """
    epoch, saved = int(metadata["epoch"]), {**LATER_FIELDS, **json.loads(metadata["config"])}
    if not 1 <= epoch <= saved["epochs"]:
        raise ValueError(f"epoch {epoch} of {saved['epochs']}")
    if "data" not in metadata:
        raise KeyError("data")
    return epoch, saved


def _check_tensors(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Raise where a tensor is missing (ValueError) or does not fit the engine's (OutputError).

    A fresh optimizer has fewer tensors than a used one, so further ones are no error.
    """
    for name, like in expected.items():
        if name not in found:
            raise ValueError(f"no tensor {name}")
        ours, theirs = ((str(x.dtype), list(x.shape)) for x in (like, found[name]))
        if ours != theirs:
            raise OutputError(
                f"checkpoint: expected {name} of {ours[0]} {ours[1]}, got {theirs[0]} {theirs[1]}, "
                "as another kind of GPU or version pads it; begin anew"
            )


def _check_curves(found: dict[str, Tensor], names: Sequence[str], epochs: int) -> None:
    """Raise ValueError where a curve is missing or is not of the epochs that the file states."""
    for name in names:
        if name not in found:
            raise ValueError(f"no curve {name}")
        if list(found[name].shape) != [1, epochs + 1]:
            raise ValueError(f"{name} has shape {list(found[name].shape)}, not {[1, epochs + 1]}")


def _fingerprint(data: SignalNoiseData) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(vars(data).items()):
        if tensor is not None:
            digest.update(name.encode())
            digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


__all__ = ["Checkpoint"]
