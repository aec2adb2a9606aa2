"""Figure 1: what is run, what is written, and whether it shows what the paper shows."""

import json
import math

import pytest
import torch

from mmcl_fast import TrainConfig, train
from mmcl_fast.experiments.figure1 import MODALITIES, run_figure1

CURVES = ("loss", "ood_accuracy", "signal", "noise")
TINY = TrainConfig(n=20, d=50, m=6, n_test=10, epochs=5)
START = TrainConfig(epochs=0, evaluate_every=0)  # Figure 1's settings, without its training


def test_it_shows_what_the_paper_shows() -> None:
    """The acceptance of the project, at the default settings; the seeds are fixed."""
    result = run_figure1(seeds=range(3))
    first = {(m, c): result.curve(m, c)[:, 0].mean().item() for m in MODALITIES for c in CURVES}
    last = {(m, c): result.curve(m, c)[:, -1].mean().item() for m in MODALITIES for c in CURVES}
    assert result.curve("multi", "loss").shape == (3, 201)
    assert last["multi", "ood_accuracy"] >= 0.93
    assert last["single", "ood_accuracy"] <= 0.62
    assert 0.6 <= last["multi", "signal"] <= 1.2
    assert 0.08 <= last["single", "signal"] <= 0.25
    assert 2.7 <= last["single", "noise"] <= 3.6
    assert 1.0 <= last["multi", "noise"] <= 1.8
    # log(1 + n/2), and twice that, less what the unbalanced labels of a draw take away.
    assert first["single", "loss"] == pytest.approx(3.88, abs=0.1)
    assert first["multi", "loss"] == pytest.approx(7.83, abs=0.1)
    assert max(last["single", "loss"], last["multi", "loss"]) < 0.01


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_curve_is_that_of_a_run_alone(modality: str) -> None:
    base = TINY.replace(coefficients_every=2)
    result = run_figure1(base, seeds=[7, 3])
    assert result.seeds == (7, 3)
    assert [r.config.seed for r in result.runs[modality]] == [7, 3]
    assert {r.config.modality for r in result.runs[modality]} == {modality}
    for k, seed in enumerate([7, 3]):
        alone = train(base.replace(seed=seed, modality=modality))
        for name in CURVES:
            assert torch.equal(result.curve(modality, name)[k], getattr(alone, name)), name


def test_the_modalities_share_data_and_weights() -> None:
    # At the start only the loss differs: the encoder of modality A has not moved.
    result = run_figure1(TINY, seeds=[7])
    single, multi = (result.runs[m][0] for m in ("single", "multi"))
    for name in ("ood_accuracy", "signal", "noise"):
        assert getattr(single, name)[0] == getattr(multi, name)[0], name
    assert multi.loss[0].item() == pytest.approx(2 * single.loss[0].item(), rel=0.01)
    assert not torch.equal(single.signal, multi.signal)


def test_the_head_of_section_3_3() -> None:
    """Its accuracy is that of runs alone, and the file says what is then inferred."""
    base = TINY.replace(probe_on="ood", probe_samples=16)
    result, plain = run_figure1(base, [3]), run_figure1(TINY, [3])
    for modality in MODALITIES:
        alone = train(base.replace(seed=3, modality=modality))
        assert torch.equal(result.curve(modality, "ood_accuracy")[0], alone.ood_accuracy)
        assert torch.equal(result.curve(modality, "loss"), plain.curve(modality, "loss"))
    told = [x.to_json()["config"] for x in (result, plain)]
    assert [x["probe_on"] for x in told] == ["ood", "train"]
    assert told[0]["inferred"]["head"].startswith("head fitted on 16 OOD samples, as section 3.3")
    assert "fitted on the training embeddings" in told[1]["inferred"]["head"]


def test_progress_counts_run_epochs() -> None:
    told: list[tuple[str, int]] = []
    run_figure1(TINY, [0, 1, 4], lambda modality, done: told.append((modality, done)))
    per_modality = 3 * (TINY.epochs + 1)
    counts = [done for _, done in told]
    assert counts == sorted(set(counts)), "each call reports something new"
    assert [d for m, d in told if m == "single"][-1] == per_modality
    assert told[-1] == ("multi", 2 * per_modality)


def test_t1_is_that_of_the_lemmas() -> None:
    t1 = run_figure1(START, seeds=[0]).t1
    assert t1 == {"single": pytest.approx(34.7, abs=0.05), "multi": pytest.approx(27.0, abs=0.05)}
    # All of what they depend on, away from the values at which factors are 1.
    cfg = START.replace(
        n=50, d=500, m=20, sigma_xi=1.5, sigma_0=0.003, tau=0.1, eta=0.02, mu_norm=4, mu_b_norm=10
    )
    rates = {
        "single": 0.96 * 0.02 * 1.5**2 * 500 / (50 * 20 * 0.1),
        "multi": 0.48 * 2.5 * 0.02 * 4.0**2 / (20 * 0.1),
    }
    starts = {"single": 0.003 * 1.5 * math.sqrt(500), "multi": 0.003 * 4.0}
    for modality, found in run_figure1(cfg, seeds=[0]).t1.items():
        wanted = math.log(20 / starts[modality]) / math.log(1 + rates[modality])
        assert found == pytest.approx(wanted, rel=1e-12), modality


NOT_STATED = [{"q": 2}, {"mu_norm": 0.0}, {"mu_b_norm": 0.0}, {"negatives": "all"}]


@pytest.mark.parametrize("changes", NOT_STATED, ids=str)
def test_t1_is_left_out_where_the_lemmas_do_not_state_it(changes: dict) -> None:
    result = run_figure1(TINY.replace(epochs=0, **changes), seeds=[0])
    assert result.t1 == {"single": None, "multi": None}
    assert result.to_json()["config"]["t1"] == result.t1


def test_the_json_contract() -> None:
    base = TINY.replace(evaluate_every=2)
    result = run_figure1(base, seeds=[5, 2, 8])
    found = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert set(found) == {"config", "epochs", "single", "multi", "environment"}
    assert found["epochs"] == [0, 1, 2, 3, 4, 5]
    settings = found["config"]
    assert settings["seeds"] == [5, 2, 8]
    assert settings["tau"] == pytest.approx(1 / 6)
    assert settings["engine"] in ("native", "gram", "primal")
    assert settings["device"] in ("cpu", "cuda")
    assert settings["inferred"]["sigma_0"]
    assert settings["t1"] == result.t1
    assert settings["n"] == 20
    for modality in MODALITIES:
        assert set(found[modality]) == set(CURVES)
        for name, curve in found[modality].items():
            assert set(curve) == {"mean", "sd", "per_seed"}
            for k, seed in enumerate([5, 2, 8]):
                alone = getattr(train(base.replace(seed=seed, modality=modality)), name)
                wanted = [v if math.isfinite(v) else None for v in alone.tolist()]
                assert curve["per_seed"][k] == wanted, (modality, name)
            for epoch, (mean, sd) in enumerate(zip(curve["mean"], curve["sd"], strict=True)):
                values = [seed[epoch] for seed in curve["per_seed"]]
                if None in values:
                    assert (name, epoch % 2, mean, sd) == ("ood_accuracy", 1, None, None)
                    continue
                assert mean == pytest.approx(sum(values) / 3, rel=1e-12)
                square = sum((v - mean) ** 2 for v in values) / 2
                assert sd == pytest.approx(math.sqrt(square), rel=1e-9, abs=1e-12)


def test_one_seed_has_no_spread() -> None:
    found = run_figure1(TINY, seeds=[0]).to_json()
    assert found["multi"]["loss"]["sd"] == [0.0] * 6
