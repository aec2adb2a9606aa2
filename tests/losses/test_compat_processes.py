"""The drop-in modules in two processes, against those of the other libraries."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import normalize

from tests.losses.compat_worker import FLAGS, METRIC_LEARNING, WORLD, D, N, inputs
from tests.support.peers import require

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[2]
OF_OPEN_CLIP = [
    f"{what}, with_grad={with_grad}, local={local}"
    for what in ("loss", "logits")
    for with_grad, local in FLAGS
]
OF_LIGHTLY = ["NTXentLoss", "DCLLoss", "DCLLoss, weighted", "DCLWLoss"]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("compat")
    command = [sys.executable, "-m", "tests.losses.compat_worker"]
    rendezvous = (folder / "rendezvous").as_uri()
    processes = [
        subprocess.Popen(
            [*command, str(rank), rendezvous, str(folder)],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(WORLD)
    ]
    try:
        outputs = [process.communicate(timeout=200)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    for rank, (process, output) in enumerate(zip(processes, outputs, strict=True)):
        assert process.returncode == 0, f"rank {rank}:\n{output}"
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]


def both(found: list[dict[str, Any]], name: str) -> tuple[list[Any], list[Any]]:
    ours = [of_rank[f"{name}/ours"] for of_rank in found]
    return ours, [of_rank[f"{name}/theirs"] for of_rank in found]


def assert_same_on_each_rank(ours: list[Any], theirs: list[Any]) -> None:
    for mine, other in zip(ours, theirs, strict=True):
        for key in ("value", "x", "y"):
            torch.testing.assert_close(mine[key], other[key], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", OF_OPEN_CLIP)
def test_open_clip(found: list[dict[str, Any]], name: str) -> None:
    """Value and features' gradients on each rank; the scale's as DDP averages it."""
    require("open_clip")
    ours, theirs = both(found, name)
    assert_same_on_each_rank(ours, theirs)
    mean = [sum(rank["scale"] for rank in ranks) / WORLD for ranks in (ours, theirs)]
    torch.testing.assert_close(*mean, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", OF_LIGHTLY)
def test_lightly(found: list[dict[str, Any]], name: str) -> None:
    """Theirs returns the loss of a rank's own rows; the mean over ranks is the batch's."""
    require("lightly")
    ours, theirs = both(found, name)
    for mine, other in zip(ours, theirs, strict=True):
        for key in ("x", "y"):
            torch.testing.assert_close(mine[key], other[key], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(
            mine["value"], sum(rank["value"] for rank in theirs) / WORLD, rtol=1e-12, atol=1e-12
        )


@pytest.mark.parametrize("efficient", [False, True])
@pytest.mark.parametrize("name", METRIC_LEARNING)
def test_the_wrapper_of_metric_learning(
    found: list[dict[str, Any]], name: str, efficient: bool
) -> None:
    require("pytorch_metric_learning")
    assert_same_on_each_rank(*both(found, f"{name}, efficient={efficient}"))


@pytest.mark.parametrize("name", ["pairs", "four", "symmetric"])
def test_sentence_transformers_gather(found: list[dict[str, Any]], name: str) -> None:
    require("sentence_transformers")
    assert_same_on_each_rank(*both(found, name))


def test_the_rows_of_all_ranks_enter_the_bank(found: list[dict[str, Any]]) -> None:
    rows = torch.cat([normalize(inputs(rank)["y"], dim=-1) for rank in range(WORLD)])
    for of_rank in found:
        assert of_rank["bank"].shape == (3 * N, D)
        torch.testing.assert_close(
            of_rank["bank"][: WORLD * N].double(), rows, rtol=1e-6, atol=1e-6
        )
