"""Training by several processes equals training by one, and is the same in every process."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import mmcl_fast
from mmcl_fast import ConfigError, DataError, TrainConfig
from mmcl_fast.data.signal_noise.synthetic import draw_minibatches
from mmcl_fast.distributed import training
from tests.distributed.train_cases import (
    BASE,
    FOUR,
    PROCESS,
    SINGLE_PRECISION,
    TRAIN_CASES,
    WIDE,
    TrainCase,
    tensors_of_run,
)
from tests.engines.test_agreement import widened

pytestmark = pytest.mark.process

Found = list[dict[str, Any]]
REFERENCED = ("single", "multi", "lone_multi", "tiny_tau", "tiny_tau_multi", "minibatches")


def assert_same_run(mine: dict[str, Tensor], one: dict[str, Tensor]) -> None:
    assert mine.keys() == one.keys()
    for name, x in one.items():
        # As between engines: tests/engines/test_agreement.py.
        atol = 1e-12 * max(1.0, float(x.abs().max()))
        torch.testing.assert_close(mine[name], x, rtol=0, atol=atol, msg=name)


@pytest.mark.parametrize("case", [*TRAIN_CASES, *SINGLE_PRECISION[::3]], ids=lambda c: c.id)
def test_every_process_has_the_same_run(case: TrainCase, found: Found) -> None:
    runs = [found[rank][f"train/{case.id}/{case.cfg.seed}"] for rank in case.group]
    for other in runs[1:]:
        assert other.keys() == runs[0].keys()
        for name, x in runs[0].items():
            assert torch.equal(x, other[name]), name


@pytest.mark.parametrize("case", [c for c in TRAIN_CASES if c.repeat], ids=lambda c: c.id)
def test_same_bits_again(case: TrainCase, found: Found) -> None:
    mine = found[case.group[0]]
    first, again = (mine[f"train/{case.id}/{k}"] for k in (case.cfg.seed, "again"))
    assert all(torch.equal(x, again[name]) for name, x in first.items())


@pytest.mark.parametrize("case", TRAIN_CASES, ids=lambda c: c.id)
def test_equals_one_process(case: TrainCase, found: Found) -> None:
    one = tensors_of_run(mmcl_fast.train(case.cfg))
    assert_same_run(found[case.group[0]][f"train/{case.id}/{case.cfg.seed}"], one)
    assert one["loss"][-1] < one["loss"][0]


@pytest.mark.parametrize("name", REFERENCED)
def test_equals_the_reference(name: str, found: Found) -> None:
    case = next(c for c in TRAIN_CASES if c.id == name)
    cfg = case.cfg.replace(engine="reference", data="explicit")
    exact = tensors_of_run(mmcl_fast.train(cfg))
    assert_same_run(found[case.group[0]][f"train/{case.id}/{case.cfg.seed}"], exact)


@pytest.mark.parametrize("case", FOUR, ids=lambda c: c.id)
def test_four_processes(case: TrainCase, found_by_four: Found) -> None:
    runs = [of_rank[f"train/{case.id}/{case.cfg.seed}"] for of_rank in found_by_four]
    assert_same_run(runs[0], tensors_of_run(mmcl_fast.train(case.cfg)))
    for other in runs[1:]:
        assert all(torch.equal(x, other[name]) for name, x in runs[0].items())


def test_the_cases_are_what_they_say() -> None:
    """Scores that overflow; a rank without a sample of a minibatch; a rank with one label."""
    for case in TRAIN_CASES:
        data, ends = mmcl_fast.data.sample(case.cfg), torch.tensor(case.samples or (1,)).cumsum(0)
        if case.id.startswith("tiny_tau"):
            h = (data.noise @ data.weights.T).clamp(min=0)
            assert (h @ h.T).max() / (case.cfg.m * case.cfg.tau_value) > 2 * math.log(1e308)
        if case.id.startswith("lone"):
            shares = data.labels.tensor_split(ends[:-1])
            assert any(len(share.unique()) == 1 for share in shares)
        if case.id.startswith("minibatches"):
            batches = draw_minibatches(case.cfg, 0)
            owners = [torch.bucketize(batch, ends, right=True).unique() for batch in batches]
            assert any(len(ranks) < len(case.group) for ranks in owners)


def test_an_error_in_one_process_ends_the_others(found_by_four: Found) -> None:
    for rank, mine in enumerate(found_by_four):
        message, seconds = mine["error"]
        assert message.startswith("RuntimeError: "), message
        assert ("of this rank alone" in message) == (rank == 1)
        assert seconds < 30  # of a group whose timeout is 2 s


@pytest.mark.parametrize("modality", ["single", "multi"])
def test_float32_is_as_close_to_float64_as_one_process_is(modality: str, found: Found) -> None:
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
    "reduced": "data: expected explicit or streamed in training by several processes, got reduced",
    "orthogonal": "data: expected explicit or streamed in training by several processes, got ortho",
    "engine": "engine: expected auto or primal in training by several processes, got gram",
    "one rank's engine": "engine primal: precision tf32: it has ieee, bf16; use triton",
    "drawn": "negatives_per_sample: expected None in training by several processes, got 3",
    "shares": "samples: expected 3 numbers >= 1 that add up to n = 30, got [10, 10, 11]",
}


@pytest.mark.parametrize("name", MESSAGES)
def test_refusals_on_every_rank(name: str, found: Found) -> None:
    for rank in range(3):
        message = found[rank][f"train/refusal/{name}"]
        assert message.startswith(("ConfigError: ", "EngineRefusedError: "))
        assert MESSAGES[name] in message


def test_model_variants_are_refused() -> None:
    message = "negatives: expected other_label, the paper's model, in training by several processes"
    with pytest.raises(ConfigError, match=f"{message}, got all; take mmcl_fast.train"):
        training._resolve(TrainConfig(**BASE | {"negatives": "all"}))


def test_without_a_group_there_is_nothing_to_train_with() -> None:
    with pytest.raises(RuntimeError, match="group: expected torch"):
        training.train(TrainConfig(**BASE))


@pytest.mark.parametrize(
    ("backends", "device", "refused"),
    [
        ("cpu:gloo,cuda:gloo", "cpu", None),
        ("cpu:gloo,cuda:nccl", "cuda", None),
        ("cpu:gloo,cuda:gloo", "cuda", "got cuda with backend gloo"),
        ("cuda:nccl", "cpu", "got cpu with backend none"),
    ],
)
def test_a_group_that_cannot_send_is_refused(
    backends: str, device: str, refused: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training.dist, "get_backend_config", lambda group: backends)
    cfg = TrainConfig(**BASE | {"device": device})
    if refused is None:
        training._check_group(cfg, None)  # type: ignore[arg-type]
        return
    with pytest.raises(ConfigError, match=f"device: expected .*{refused}"):
        training._check_group(cfg, None)  # type: ignore[arg-type]


def test_memory_of_a_share_is_predicted() -> None:
    large = TrainConfig(**BASE | {"n": 10**6, "d": 10**6, "m": 2})
    with pytest.raises(
        DataError, match=r"memory: expected a share of .* for 500000 of n = 1000000"
    ):
        training._check_memory(large, [500_000, 500_000])
    training._check_memory(large.replace(data="streamed", d=10**4), [500_000, 500_000])


def test_what_processes_need_beside_their_shares() -> None:
    base = TrainConfig(**BASE | {"optimizer": "adam", "evaluate_every": 0, "n_test": 2})
    alone = training.share_bytes(base.replace(n=10), [10])
    keys, sums, everyone = 10 * 11 * 8, 11 * 50 * 8, 30 * 11 * 8

    def added(*shares: int, **settings: Any) -> int:
        return training.share_bytes(base.replace(**settings), shares) - alone

    assert added(10, 10, 10) == added(10, 10, 5, 5) == 2 * keys + sums
    assert added(10, 10, n=20) == keys + sums
    assert added(10, 10, 10, n=3000, optimizer="gd") == 100 * 2 * everyone
    assert added(10, 10, 10, evaluate_every=1) == 8 * everyone
    # A minibatch may be larger than a share, and stored coefficients are everyone's.
    several = TrainConfig(**BASE | {"optimizer": "sgd", "batch_size": 25})
    plain = training.share_bytes(several, [10, 10, 10])
    stored = training.share_bytes(several.replace(coefficients_every=1), [10, 10, 10])
    assert stored - plain == 13 * 11 * (30 + 1) * 8


def test_the_hint_is_of_use() -> None:
    large = TrainConfig(**BASE | {"n": 10**9, "m": 2, "evaluate_every": 0, "data": "streamed"})
    with pytest.raises(DataError, match=r"take more processes$"):
        training._check_memory(large, [5 * 10**8] * 2)
    with pytest.raises(DataError, match=r"take more processes or evaluate_every = 0$"):
        training._check_memory(large.replace(evaluate_every=1), [5 * 10**8] * 2)


@pytest.mark.skipif(not PROCESS.exists(), reason="peak memory is read there")
def test_a_step_holds_two_blocks_of_keys_beside_its_own_samples(found_by_four: Found) -> None:
    block = WIDE.n // 4 * WIDE.m * 4
    for mine in found_by_four:
        peaks = mine["peaks"]
        assert block < peaks["step"] - peaks["share"] < 2.3 * block


@pytest.mark.skipif(not PROCESS.exists(), reason="peak memory is read there")
def test_peak_memory_is_within_the_prediction(found_by_four: Found) -> None:
    for mine in found_by_four:
        for name, optimizer in (("step", "adam"), ("coefficients", "gd")):
            cfg = WIDE.replace(optimizer=optimizer)
            assert 0.5 < mine["peaks"][name] / training.share_bytes(cfg, [2000] * 4) <= 1.1
