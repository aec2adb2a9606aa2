"""Training by several processes equals training by one, and is the same in every process."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import mmcl_fast
from mmcl_fast import DataError, TrainConfig
from mmcl_fast.distributed import training_run
from tests.distributed.train_cases import (
    BASE,
    SINGLE_PRECISION,
    TRAIN_CASES,
    TrainCase,
    tensors_of_run,
)
from tests.engines.test_agreement import widened


@pytest.mark.parametrize("case", [*TRAIN_CASES, *SINGLE_PRECISION[::3]], ids=lambda c: c.id)
def test_every_process_has_the_same_run(case: TrainCase, found: list[dict[str, Any]]) -> None:
    runs = [found[rank][f"train/{case.id}/{case.cfg.seed}"] for rank in case.group]
    for other in runs[1:]:
        assert other.keys() == runs[0].keys()
        for name, x in runs[0].items():
            assert torch.equal(x, other[name]), name


@pytest.mark.parametrize("case", TRAIN_CASES, ids=lambda c: c.id)
def test_equals_one_process(case: TrainCase, found: list[dict[str, Any]]) -> None:
    mine = found[case.group[0]][f"train/{case.id}/{case.cfg.seed}"]
    one = tensors_of_run(mmcl_fast.train(case.cfg))
    assert mine.keys() == one.keys()
    for name, x in one.items():
        # As between engines: tests/engines/test_agreement.py.
        torch.testing.assert_close(mine[name], x, rtol=0, atol=1e-12, msg=name)
    assert one["loss"][-1] < one["loss"][0]


@pytest.mark.parametrize("modality", ["single", "multi"])
def test_float32_is_as_close_to_float64_as_one_process_is(
    modality: str, found: list[dict[str, Any]]
) -> None:
    curves = ("loss", "signal", "noise")
    worst = {(who, name): 0.0 for who in ("one", "several") for name in curves}
    scale = dict.fromkeys(curves, 0.0)
    for case in (c for c in SINGLE_PRECISION if c.cfg.modality == modality):
        exact_cfg = case.cfg.replace(dtype="float64", engine="reference")
        exact = tensors_of_run(mmcl_fast.train(exact_cfg, data=widened(case.cfg)))
        runs: dict[str, dict[str, Tensor]] = {
            "one": tensors_of_run(mmcl_fast.train(case.cfg)),
            "several": found[0][f"train/{case.id}/{case.cfg.seed}"],
        }
        for name in curves:
            scale[name] = max(scale[name], float(exact[name].abs().max()))
            for who, run in runs.items():
                far = float((run[name].double() - exact[name]).abs().max())
                worst[who, name] = max(worst[who, name], far)
    for name in curves:
        eps = torch.finfo(torch.float32).eps * scale[name]
        assert worst["several", name] <= 2 * (worst["one", name] + eps), name


MESSAGES = {
    "settings": "cfg, samples: expected the same on every rank",
    "few": "n: expected a sample for each of 3 processes, got 2",
    "sgd": "optimizer: expected a full-batch one in training by several processes, got sgd",
    "reduced": "data: expected explicit or streamed in training by several processes, got reduced",
    "engine": "engine: expected auto or primal in training by several processes, got gram",
    "one rank's engine": "engine primal: precision tf32: it has ieee, bf16; use triton",
    "drawn": "negatives_per_sample: expected None in training by several processes, got 3",
    "shares": "samples: expected 3 numbers >= 1 that add up to n = 30, got [10, 10, 11]",
}


@pytest.mark.parametrize("name", MESSAGES)
def test_refusals_on_every_rank(name: str, found: list[dict[str, Any]]) -> None:
    for rank in range(3):
        message = found[rank][f"train/refusal/{name}"]
        assert message.startswith(("ConfigError: ", "EngineRefusedError: "))
        assert MESSAGES[name] in message


def test_without_a_group_there_is_nothing_to_train_with() -> None:
    with pytest.raises(RuntimeError, match="group: expected torch"):
        training_run.train(TrainConfig(**BASE))


def test_memory_of_a_share_is_predicted() -> None:
    large = TrainConfig(**BASE | {"n": 10**6, "d": 10**6, "m": 2})
    with pytest.raises(
        DataError, match=r"memory: expected a share of .* for 500000 of n = 1000000"
    ):
        training_run._check_memory(large, [500_000, 500_000])
    training_run._check_memory(large.replace(data="streamed", d=10**4), [500_000, 500_000])
