"""A Slurm script for a sweep: a job array whose jobs each compute some of the shards."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmcl_fast.errors import ConfigError
from mmcl_fast.files import write_atomically

SCRIPT = "sweep.sbatch"
MARGIN = 2.0  # of the time limit: an estimate may be 0.7 of the time, and nodes are slower or not
STOP_SECONDS = 60  # before its time limit a job is told to stop; parts that are published stay
MEMORY_MARGIN = 1.25
TIME_OPTIONS, MEMORY_OPTIONS = ("--time", "-t"), ("--mem", "--mem-per-cpu", "--mem-per-gpu")


@dataclass(frozen=True)
class JobArray:
    """A job array.

    Attributes:
        jobs: Number of jobs.
        cores: Cores per job.
        seconds: Expected time of a job.
        gpus: Whether a job needs a GPU.
        memory: Expected memory of a job in bytes.
    """

    jobs: int
    cores: int
    seconds: float
    gpus: bool
    memory: int


def write_script(
    command: Sequence[str],
    array: JobArray,
    store: Path,
    options: Sequence[str],
    setup: Sequence[str] = (),
) -> Path:
    """Write `sweep.sbatch` into a store.

    Resubmitting it computes the missing shards: a job skips shards that the store has, so jobs that
    were killed, preempted or cancelled need no bookkeeping.

    Args:
        command: The sweep's command line, without --slurm.
        array: The jobs.
        store: Directory of the store; the script and the logs go there.
        options: Further `#SBATCH` options, such as `--partition=gpu`. One for time or memory
            stands in place of the estimate.
        setup: Lines of shell before the sweep, such as `module load cuda`.

    Returns: The script.
    Raises: ConfigError: an invalid option, or a path with quotes or backslashes.
    """
    for option in options:
        if not re.fullmatch(r"--?[a-zA-Z][\w-]*([= ]\S.*)?", option):
            raise ConfigError(f"sbatch: expected an option such as --partition=cpu, got {option!r}")
    given = {re.split("[= ]", option)[0] for option in options}
    limits = [
        *([] if given & set(TIME_OPTIONS) else [f"--time={_minutes(array)}"]),
        *([] if given & set(MEMORY_OPTIONS) else [f"--mem={_mebibytes(array)}M"]),
    ]
    lines = [
        "#!/bin/bash",
        "#SBATCH --job-name=mmcl-sweep",
        f"#SBATCH --array=1-{array.jobs}",
        f"#SBATCH --cpus-per-task={array.cores}",
        *(f"#SBATCH {limit}" for limit in limits),
        f"#SBATCH --signal=B:TERM@{STOP_SECONDS}",
        f"#SBATCH --output={_log(store)}",
        *(["#SBATCH --gres=gpu:1"] if array.gpus else []),
        *(f"#SBATCH {option}" for option in options),
        "# Resubmit to compute missing shards; existing parts are skipped.",
        "set -eo pipefail",
        f"cd {shlex.quote(str(Path.cwd()))}",
        *setup,
        "set -u",  # not before: scripts of environments read variables that are not set
        f"exec {shlex.join(command)} --workers {array.cores if not array.gpus else 1}"
        f' --shard "$SLURM_ARRAY_TASK_ID/{array.jobs}"',
        "",
    ]
    return write_atomically(
        store / SCRIPT,
        lambda path: path.write_text("\n".join(lines), encoding="utf-8", newline="\n"),
    )


def _minutes(array: JobArray) -> int:
    return max(10, math.ceil(array.seconds * MARGIN / 60))


def _mebibytes(array: JobArray) -> int:
    return math.ceil(array.memory * MEMORY_MARGIN / 2**20)


def _log(store: Path) -> str:
    """File name pattern of the jobs' output, as sbatch reads it: in quotes, % doubled."""
    folder = str(store.resolve())
    if any(c in folder for c in '"\\\n'):
        raise ConfigError(f"out: expected a path without quotes and backslashes, got {folder!r}")
    return '"' + folder.replace("%", "%%") + '/slurm-%A-%a.log"'


__all__ = ["SCRIPT", "JobArray", "write_script"]
