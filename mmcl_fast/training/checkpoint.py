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

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mmcl_fast.config import LATER_FIELDS, TrainConfig
from mmcl_fast.data.signal_noise.synthetic import SignalNoiseData
from mmcl_fast.engines.optimizers import nest, unnest
from mmcl_fast.engines.protocol import Engine
from mmcl_fast.errors import ConfigError, OutputError
from mmcl_fast.files import write_atomically
from mmcl_fast.training.recorder import Recorder

FORMAT = "mmcl-checkpoint-1"
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
        """Load the file into engine and recorder; return the epoch to resume at (0: no file)."""
        if self._resumed is None:
            return 0
        epoch, state = self._resumed
        engine.load_state(unnest("engine", state))
        recorder.load_state(unnest("recorder", state))
        return epoch

    def maybe_write(self, epoch: int, engine: Engine, recorder: Recorder) -> None:
        """Write the state before `epoch`, if one is due."""
        if not self._is_due(epoch):
            return
        state = nest("engine", engine.state()) | nest("recorder", recorder.state())
        tensors = {name: t.detach().cpu().contiguous().clone() for name, t in state.items()}
        metadata = self._metadata | {"epoch": str(epoch)}
        write_atomically(self._path, lambda temporary: save_file(tensors, temporary, metadata))
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

    def _read(self) -> tuple[int, dict[str, Tensor]]:
        try:
            with safe_open(self._path, framework="pt") as stream:
                metadata = stream.metadata() or {}
                state = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise OutputError(
                "checkpoint: expected a readable file of this program, "
                f"got {str(self._path)!r} ({error})"
            ) from error
        if metadata.get("format") != FORMAT:
            raise OutputError(
                f"checkpoint: expected format {FORMAT}, got {metadata.get('format')!r}"
            )
        current = json.loads(self._metadata["config"])
        saved = {**LATER_FIELDS, **json.loads(metadata["config"])}
        if (epoch := int(metadata["epoch"])) > current["epochs"]:
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
        return epoch, state


def _fingerprint(data: SignalNoiseData) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(vars(data).items()):
        if tensor is not None:
            digest.update(name.encode())
            digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


__all__ = ["Checkpoint"]
