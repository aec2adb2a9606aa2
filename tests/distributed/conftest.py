from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.distributed.cases import WORLD

ROOT = Path(__file__).parents[2]


def results_of(job: str, size: int, folder: Path) -> list[dict[str, Any]]:
    """What each of `size` processes found."""
    rendezvous = (folder / "rendezvous").as_uri()
    command = [sys.executable, "-W", "error", "-m", "tests.distributed.worker", job]
    processes = [
        subprocess.Popen(
            [*command, str(rank), str(size), rendezvous, str(folder)],
            cwd=ROOT,
            # Freed blocks are given back, so that peak memory is that of what is held.
            env=os.environ
            | {
                "OMP_NUM_THREADS": "1",
                "PYTHONPATH": str(ROOT),
                "MALLOC_MMAP_THRESHOLD_": "1000000",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(size)
    ]
    try:
        outputs = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    for rank, (process, output) in enumerate(zip(processes, outputs, strict=True)):
        assert process.returncode == 0, f"rank {rank}:\n{output}"
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(size)]


@pytest.fixture(scope="session")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What three processes found; they are started once for all tests."""
    return results_of("gloo", WORLD, tmp_path_factory.mktemp("gloo"))


@pytest.fixture(scope="session")
def found_by_four(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Training runs of four."""
    return results_of("training", 4, tmp_path_factory.mktemp("training"))


@pytest.fixture(scope="session")
def found_on_gpus(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The same of two processes with a GPU each."""
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    return results_of("nccl", 2, tmp_path_factory.mktemp("nccl"))
