"""A Slurm script for a sweep: a job array whose jobs each compute some of the shards."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmcl_fast.errors import ConfigError
from mmcl_fast.files import write_atomically

SCRIPT = "sweep.sbatch"
MARGIN = 2.0  # of the time limit; a job that exceeds it loses its current shard


@dataclass(frozen=True)
class JobArray:
    """A job array.

    Attributes:
        jobs: Number of jobs.
        cores: Cores per job.
        seconds: Expected time of a job.
        gpus: Whether a job needs a GPU.
    """

    jobs: int
    cores: int
    seconds: float
    gpus: bool


def write_script(
    command: Sequence[str], array: JobArray, store: Path, options: Sequence[str]
) -> Path:
    """Write `sweep.sbatch` into a store.

    Resubmitting it computes the missing shards: a job skips shards that the store has, so jobs that
    were killed, preempted or cancelled need no bookkeeping.

    Args:
        command: The sweep's command line, without --slurm.
        array: The jobs.
        store: Directory of the store; the script and the logs go there.
        options: Further `#SBATCH` options, such as `--partition=gpu`.

    Returns: The script.
    Raises: ConfigError: an invalid option, or a path with quotes or backslashes.
    """
    for option in options:
        if not re.fullmatch(r"--?[a-zA-Z][\w-]*([= ]\S.*)?", option):
            raise ConfigError(f"sbatch: expected an option such as --partition=cpu, got {option!r}")
    minutes = max(10, round(array.seconds * MARGIN / 60))
    lines = [
        "#!/bin/bash",
        "#SBATCH --job-name=mmcl-sweep",
        f"#SBATCH --array=1-{array.jobs}",
        f"#SBATCH --cpus-per-task={array.cores}",
        f"#SBATCH --time={minutes}",
        f"#SBATCH --output={_log(store)}",
        *(["#SBATCH --gres=gpu:1"] if array.gpus else []),
        *(f"#SBATCH {option}" for option in options),
        "# Resubmit to compute missing shards; existing parts are skipped.",
        "set -euo pipefail",
        f"cd {shlex.quote(str(Path.cwd()))}",
        f"exec {shlex.join(command)} --workers {array.cores if not array.gpus else 1}"
        f' --shard "$SLURM_ARRAY_TASK_ID/{array.jobs}"',
        "",
    ]
    return write_atomically(store / SCRIPT, lambda path: path.write_text("\n".join(lines)))


def _log(store: Path) -> str:
    """File name pattern of the jobs' output, as sbatch reads it: in quotes, % doubled."""
    folder = str(store.resolve())
    if any(c in folder for c in '"\\\n'):
        raise ConfigError(f"out: expected a path without quotes and backslashes, got {folder!r}")
    return '"' + folder.replace("%", "%%") + '/slurm-%A-%a.log"'


__all__ = ["SCRIPT", "JobArray", "write_script"]
