"""The file of finished jobs, from which an interrupted run resumes."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmcl_fast.errors import ConfigError, OutputError
from mmcl_fast.files import write_atomically

FORMAT = "mmcl-table1-2"  # 2: readouts 0 against 1


@dataclass(frozen=True)
class JobResult:
    """Result of one arm with one seed.

    Attributes:
        accuracy: Percent, by readout and set.
        confusion: Images of the reversed test set by colour (row) and class (column), by the
            arm's main readout.
    """

    accuracy: dict[str, dict[str, float]]
    confusion: list[list[int]]


class PartialResults:
    """The file of one table.

    Args:
        path: The file, which need not exist yet.
        settings: All that a job's result depends on but arm and seed, flat and in JSON's types; a
            file of other settings is refused, naming the first difference.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self._path, self._lock = path, threading.Lock()
        self._settings = json.loads(json.dumps(settings))
        self.jobs: dict[tuple[Any, int], JobResult] = self._read() if path.exists() else {}

    def add(self, job: tuple[str, int], result: JobResult) -> None:
        """Keep a finished job; may be called from several threads."""
        with self._lock:
            self.jobs[job] = result
            jobs = [{"arm": arm, "seed": seed, **vars(r)} for (arm, seed), r in self.jobs.items()]
            content = {"format": FORMAT, "settings": self._settings, "jobs": jobs}
            text = json.dumps(content, allow_nan=False)
            write_atomically(self._path, lambda path: path.write_text(text, encoding="utf-8"))

    def remove(self) -> None:
        """Delete the file: the table is complete."""
        self._path.unlink(missing_ok=True)

    def _read(self) -> dict[tuple[Any, int], JobResult]:
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
            if content["format"] != FORMAT:
                raise OutputError(
                    f"{self._path.name}: expected format {FORMAT}, got {content['format']!r}; "
                    "take another directory or remove it"
                )
            settings = content["settings"]
            jobs = {
                (job["arm"], int(job["seed"])): JobResult(job["accuracy"], job["confusion"])
                for job in content["jobs"]
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, OutputError):
                raise
            raise OutputError(
                f"{self._path.name}: expected a readable file of this program, got "
                f"{str(self._path)!r} ({type(error).__name__}: {error}); remove it"
            ) from error
        for name in self._settings | settings:
            if self._settings.get(name) != settings.get(name):
                raise ConfigError(
                    f"{self._path.name}: expected {name} = {self._settings.get(name)!r}, got an "
                    f"unfinished run with {settings.get(name)!r} in {str(self._path)!r}; take "
                    "another directory or remove it"
                )
        return jobs


__all__ = ["JobResult", "PartialResults"]
