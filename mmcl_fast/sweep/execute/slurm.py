"""A Slurm script for a sweep: an array of jobs, each with its part of the shards."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmcl_fast.errors import ConfigError
from mmcl_fast.files import write_atomically

SCRIPT = "sweep.sbatch"
MARGIN = 2.0  # a time limit that is too short only costs the shard in hand, but costs it each time


@dataclass(frozen=True)
class Array:
    """A job array.

    Attributes:
        jobs: Number of jobs.
        cores: Cores of each.
        seconds: Expected time of each.
        gpus: Whether each needs a GPU.
    """

    jobs: int
    cores: int
    seconds: float
    gpus: bool


def write_script(command: Sequence[str], array: Array, store: Path, options: Sequence[str]) -> Path:
    """Write `sweep.sbatch` into a store.

    Submitting it again finishes what is missing: a job looks at the store and skips what is done,
    so jobs that were killed, preempted or cancelled need no bookkeeping.

    Args:
        command: The sweep's command line, without --slurm.
        array: The jobs.
        store: Directory of the store; the script and the logs go there.
        options: Further `#SBATCH` options, such as `--partition=gpu`.

    Returns: The script.
    Raises: ConfigError: an option that is none, or a path that the script cannot hold.
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
        "# Submit again to finish what was killed: parts that are there are skipped.",
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


__all__ = ["SCRIPT", "Array", "write_script"]
