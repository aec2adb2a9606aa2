"""Table 1: the pieces by formula, and the whole on a tiny set of digits that the test makes."""

from __future__ import annotations

import dataclasses
import json
import math
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn.functional import log_softmax, normalize

from mmcl_fast.data.mnist.files import Digits, load_digits
from mmcl_fast.errors import ConfigError, DataError
from mmcl_fast.experiments.table1.accounting import percent_right, percent_right_on_tied
from mmcl_fast.experiments.table1.arms import make_arm, minibatches, train_arm
from mmcl_fast.experiments.table1.encoders import make_encoder
from mmcl_fast.experiments.table1.experiment import (
    MAIN_READOUT,
    ZERO_ONE_READOUT,
    run_job,
    run_table1,
)
from mmcl_fast.experiments.table1.protocol import ARMS, PAPER, SETS, Table1Config, quick
from mmcl_fast.experiments.table1.readout import confusion_by_colour, fit_probe
from mmcl_fast.experiments.table1.report import to_json, to_markdown
from mmcl_fast.experiments.table1.resume import PartialResults
from mmcl_fast.experiments.table1.sets import make_sets
from tests.support.digits import write_digits

CPU = torch.device("cpu")
ENDS = ("train", "rev")
TINY = Table1Config(
    images=300, epochs=2, batch=50, pixels="every_second", few_labels=60, probe_iterations=15
)


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Digits:
    return load_digits(write_digits(tmp_path_factory.mktemp("digits"), 1500, 300), "none")


MISTAKES = {
    "images": (0, "images: expected an integer in 1 .. 60000, got 0"),
    "epochs": (0, "epochs: expected an integer in 1 .. 16777215, got 0"),
    "batch": (301, "batch: expected at most images = 300, got 301"),
    "few_labels": (301, "few_labels: expected at most images = 300, got 301"),
    "learning_rate": (0.0, "learning_rate: expected a finite number > 0, got 0.0"),
    "multi_temperature": (math.inf, "multi_temperature: expected a finite number > 0, got inf"),
    "probe_l2": (-1.0, "probe_l2: expected a finite number >= 0, got -1.0"),
    "encoder": ("vit", "encoder: expected one of cnn, mlp, got 'vit'"),
    "caption": ("colour", "caption: expected one of label, digit, got 'colour'"),
    "label_noise": (2.0, r"label_noise: expected a number in \[0, 1\], got 2.0"),
    "jitter": (-1.0, r"jitter: expected a number in \[0, 1.25\], got -1.0"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_impossible_settings_are_refused(name: str) -> None:
    value, message = MISTAKES[name]
    with pytest.raises(ConfigError, match=message):
        TINY.replace(**{name: value})


def test_settings_are_flat_and_replaceable() -> None:
    changed = TINY.replace(jitter=0.25, tied="first_two", epochs=7)
    differences = {k: v for k, v in changed.to_dict().items() if TINY.to_dict()[k] != v}
    assert differences == {"jitter": 0.25, "tied": "first_two", "epochs": 7}
    assert changed.steps == 7 * 6
    with pytest.raises(TypeError):
        TINY.replace(jiter=0.25)


def test_a_quick_table_is_no_longer_than_asked() -> None:
    assert (quick(Table1Config()).images, quick(Table1Config()).epochs) == (6000, 3)
    assert quick(TINY) == TINY


def test_sets_are_those_of_the_protocol(digits: Digits) -> None:
    sets = make_sets(digits, TINY, 5)
    assert tuple(sets) == SETS
    assert [len(data) for data in sets.values()] == [300, 300, 300, 300]
    for kind in ("id", "rand", "rev"):
        assert np.array_equal(sets[kind].digits.numpy(), digits.test_labels)
        assert np.array_equal(sets[kind].grey.numpy(), digits.test_images[:, ::2, ::2])
    again = make_sets(digits, TINY, 5)
    for kind, data in sets.items():
        for field in dataclasses.fields(data):
            assert torch.equal(getattr(again[kind], field.name), getattr(data, field.name))


def test_a_split_of_the_training_file(digits: Digits) -> None:
    cfg = TINY.replace(test_from="split", pixels="all", images=1250)
    sets = make_sets(digits, cfg, 0)
    assert np.array_equal(sets["rev"].grey.numpy(), digits.train_images[1250:])
    assert np.array_equal(sets["train"].grey.numpy(), digits.train_images[:1250])
    with pytest.raises(DataError, match="images: expected at most the 1250 training images"):
        make_sets(digits, cfg.replace(images=1251), 0)


@pytest.mark.parametrize("kind", ["cnn", "mlp"])
@pytest.mark.parametrize("pixels", ["all", "every_second"])
def test_encoders_start_as_their_seed_says(kind: str, pixels: str) -> None:
    cfg = TINY.replace(encoder=kind, pixels=pixels, hidden=40)
    state = torch.get_rng_state()
    encoder = make_encoder(cfg, 3, CPU)
    assert torch.equal(torch.get_rng_state(), state), "the user's generator is left alone"
    torch.manual_seed(1)
    again, other = make_encoder(cfg, 3, CPU), make_encoder(cfg, 4, CPU)
    images = torch.rand(5, 3, cfg.side, cfg.side)
    features = encoder(images)
    assert features.shape == (5, encoder.width)
    assert torch.equal(again(images), features)
    assert not torch.equal(other(images), features)
    largest = 0.0
    for layer in encoder.modules():
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d):
            scaled = layer.weight.detach() * math.sqrt(layer.weight[0].numel())
            largest = max(largest, scaled.abs().max().item())
            # Uniform in [-1, 1]: the mean square of k draws is 1/3 with deviation 0.3 / sqrt(k).
            off = scaled.double().square().mean().item() - 1 / 3
            assert abs(off) < 5 * math.sqrt(4 / 45 / scaled.numel())
    assert 0.99 < largest <= 1.0


def outputs_of(arm, index: torch.Tensor) -> torch.Tensor:
    return arm.head(arm.encoder(arm.data.images(index))).double()


@pytest.mark.parametrize("caption", ["label", "digit"])
@pytest.mark.parametrize("same_caption", ["negative", "ignored"])
def test_the_multi_modal_loss(caption: str, same_caption: str, digits: Digits) -> None:
    cfg = TINY.replace(caption=caption, same_caption=same_caption)
    data = make_sets(digits, cfg, 0)["train"]
    arm, index = make_arm("multi", cfg, data, 0), torch.arange(100, 220)
    shown = (data.labels if caption == "label" else data.digits)[index]
    captions = torch.zeros(120, 20, dtype=torch.float64)
    captions[torch.arange(120), data.colours[index]] = math.sqrt(0.5)
    captions[torch.arange(120), 10 + shown] = math.sqrt(0.5)
    scores = normalize(outputs_of(arm, index)) @ captions.T / 0.1
    if same_caption == "ignored":
        same = (captions @ captions.T > 0.99).fill_diagonal_(False)
        assert same.any()
        scores = scores.masked_fill(same, -math.inf)
    both = log_softmax(scores, 1).diagonal() + log_softmax(scores, 0).diagonal()
    assert arm.loss(index).item() == pytest.approx(-both.mean().item() / 2, rel=1e-5)


def test_the_losses_of_the_controls(digits: Digits) -> None:
    data, index = make_sets(digits, TINY, 0)["train"], torch.arange(40)
    supervised = make_arm("supervised", TINY, data, 0)
    rows = log_softmax(outputs_of(supervised, index), 1)[torch.arange(40), data.labels[index]]
    assert supervised.loss(index).item() == pytest.approx(-rows.mean().item(), rel=1e-5)
    two = make_arm("two_head", TINY, data, 0)
    outputs = outputs_of(two, index)
    colour = log_softmax(outputs[:, :10], 1)[torch.arange(40), data.colours[index]]
    digit = log_softmax(outputs[:, 10:], 1)[torch.arange(40), data.labels[index]]
    assert two.loss(index).item() == pytest.approx(-(colour + digit).mean().item(), rel=1e-5)


def test_the_single_modal_loss_is_nt_xent(digits: Digits) -> None:
    from mmcl_fast.experiments.table1.views import draw_views, make_views

    data, index = make_sets(digits, TINY, 0)["train"], torch.arange(30, 60)
    arm = make_arm("single", TINY, data, 9)
    arm.start_epoch(4)
    views = [
        make_views(
            data.images(index),
            draw_views(TINY.views, 300, 14, seed=9, epoch=4, view=v, device=CPU)[index],
            TINY.views,
        )
        for v in (0, 1)
    ]
    rows = normalize(arm.head(arm.encoder(torch.cat(views))).double())
    scores = (rows @ rows.T / 0.5).fill_diagonal_(-math.inf)
    partner = torch.arange(60).roll(30)
    wanted = -log_softmax(scores, 1)[torch.arange(60), partner].mean().item()
    assert arm.loss(index).item() == pytest.approx(wanted, rel=1e-5)


def test_the_single_modal_arm_sees_no_label(digits: Digits) -> None:
    data = make_sets(digits, TINY, 0)["train"]
    blind = dataclasses.replace(data, labels=data.labels * 0, digits=data.digits * 0)
    found = []
    for shown in (data, blind):
        arm = make_arm("single", TINY, shown, 0)
        train_arm(arm, lambda: None)
        found.append(arm.encoder.state_dict())
    for name, value in found[0].items():
        assert torch.equal(value, found[1][name]), name


def test_minibatches_are_a_permutation_without_the_short_one() -> None:
    batches = list(minibatches(107, 25, seed=1, epoch=0))
    assert [len(b) for b in batches] == [25] * 4
    together = torch.cat(batches)
    assert len(together.unique()) == 100
    assert not torch.equal(together, together.sort().values)
    assert torch.equal(torch.cat(list(minibatches(107, 25, seed=1, epoch=0))), together)
    assert not torch.equal(torch.cat(list(minibatches(107, 25, seed=1, epoch=1))), together)
    assert not torch.equal(torch.cat(list(minibatches(107, 25, seed=2, epoch=0))), together)


@pytest.mark.parametrize("l2", [1e-2, 1e-4])
def test_the_probe_is_scikit_learns(l2: float) -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(10, 6))
    targets = rng.integers(0, 10, 800)
    features = 3.0 + 5.0 * (centres[targets] + rng.normal(size=(800, 6)))
    features[:, 4] = 2.5  # a dead feature
    probe = fit_probe(torch.from_numpy(features), torch.from_numpy(targets), l2=l2, iterations=500)
    assert probe.gradient < 1e-6
    scaled = (features - features.mean(0)) / np.where(features.std(0) > 0, features.std(0), 1)
    # scikit-learn minimises C sum(loss) + |W|^2 / 2.
    other = LogisticRegression(C=1 / (2 * l2 * 800), tol=1e-10, max_iter=5000)
    other.fit(scaled, targets)
    np.testing.assert_allclose(probe.weight.numpy(), other.coef_.T, atol=2e-3)
    seen = probe.predict(torch.from_numpy(features))
    np.testing.assert_array_equal(seen.numpy(), other.predict(scaled))


def test_the_probe_stops_where_it_is_told() -> None:
    features = torch.randn(100, 5, generator=torch.manual_seed(0))
    probe = fit_probe(features, (features[:, 0] > 0).long(), l2=0.0, iterations=7)
    assert probe.iterations == 7
    assert probe.gradient > 1e-6


def test_accuracy_and_confusion_by_hand() -> None:
    predicted = torch.tensor([0, 1, 1, 9])
    assert percent_right({"a": predicted}, {"a": torch.tensor([0, 1, 2, 8])}) == {"a": 50.0}
    labels = torch.tensor([0, 0, 1, 9, 5])  # the last has no prediction
    assert percent_right({"a": predicted}, {"a": labels}) == {"a": 75.0}
    tied = percent_right_on_tied({"a": predicted}, {"a": labels})
    assert tied == {"a_tied": pytest.approx(200 / 3)}
    found = np.array(confusion_by_colour(predicted, torch.tensor([3, 3, 3, 5])))
    assert found.sum() == 4
    assert (found[3, 0], found[3, 1], found[5, 9]) == (1, 2, 1)


def test_it_shows_what_the_paper_shows_in_small(digits: Digits) -> None:
    """Ten patterns that any encoder can tell apart; label and colour as in the table."""
    cfg = TINY.replace(images=1000, epochs=5)
    table = run_table1(digits, cfg, [0], ["multi", "single"])
    found = to_json(table)
    multi, single = found["multi"]["zero_shot"], found["single"]["probe"]
    assert multi["train"]["mean"] > 80
    assert multi["rev"]["mean"] > 75
    assert single["train"]["mean"] > 70
    assert multi["rev"]["mean"] - single["rev"]["mean"] > 40


@pytest.fixture(scope="module")
def whole(digits: Digits):
    return run_table1(digits, TINY, [4, 2], ARMS)


def test_the_json_contract(whole) -> None:
    found = json.loads(json.dumps(to_json(whole), allow_nan=False))
    assert set(found) == {"config", "environment", "colour_only", *ARMS}
    assert found["config"]["seeds"] == [4, 2]
    assert found["config"]["paper"] == {k: dict(v) for k, v in PAPER.items()}
    assert found["config"]["images"] == 300
    assert {"torch", "cpu", "device"} <= set(found["environment"])
    ten_alone = {"probe_few_labels", "digit_probe"}
    probes = ten_alone | {"probe", "probe_no_l2", "centroids", "probe_few_epochs"}
    both = {*SETS, *(f"{kind}_0_vs_1" for kind in SETS)}
    for arm in ARMS:
        assert set(found[arm]) == probes | {MAIN_READOUT[arm]}
        assert next(iter(found[arm])) == MAIN_READOUT[arm]
        assert ZERO_ONE_READOUT[arm] in found[arm]
        for readout, sets in found[arm].items():
            assert set(sets) == (set(SETS) if readout in ten_alone else both)
            for value in sets.values():
                assert set(value) == {"mean", "sd", "per_seed"}
                assert len(value["per_seed"]) == 2
                assert all(0 <= v <= 100 for v in value["per_seed"])
                assert value["mean"] == pytest.approx(np.mean(value["per_seed"]), rel=1e-12)
                spread = np.std(value["per_seed"], ddof=1)
                assert value["sd"] == pytest.approx(spread, rel=1e-9, abs=1e-12)


def test_one_seed_has_no_spread_and_seeds_are_in_order(digits: Digits, whole) -> None:
    alone = to_json(run_table1(digits, TINY, [2], ["two_head"]))["two_head"]
    both = to_json(whole)["two_head"]
    for readout, sets in alone.items():
        for kind, value in sets.items():
            assert value["sd"] == 0.0
            assert value["per_seed"] == both[readout][kind]["per_seed"][1:]


def test_the_page_has_every_readout_and_the_papers_numbers(whole) -> None:
    found = to_json(whole)
    page = to_markdown(whole, found)
    for number in ("87.77", "82.13", "88.43", "12.68"):
        assert number in page
    first_table, _, second = page.partition("Accuracy by what it counts")
    rows = [line for line in first_table.splitlines() if " ± " in line and line.startswith("|")]
    assert len(rows) == sum(len(found[arm]) for arm in ARMS)
    short = found["single"]["probe_few_epochs"]
    cells = (
        " / ".join(f"{short[k + s]['mean']:.2f} ± {short[k + s]['sd']:.2f}" for k in ENDS)
        for s in ("", "_0_vs_1")
    )
    title = "single-modal, NT-Xent, chosen views | linear probe of unit features, 5 epochs"
    assert f"| {title} | {' | '.join(cells)} |" in second
    law = found["colour_only"]["law"]
    assert f"in law | {law['train']:.2f} / {law['rev']:.2f} | {law['train_0_vs_1']:.2f}" in second
    counted = [line for line in second.splitlines() if " / " in line and line.startswith("|")]
    assert len(counted) == sum(len(found[arm]) - 2 for arm in ARMS) + 2
    first = found["multi"]["zero_shot"]["rev"]
    assert f"{first['mean']:.2f} ± {first['sd']:.2f} |" in rows[0]


@pytest.mark.parametrize("threads", [1, 3])
def test_results_do_not_depend_on_the_number_of_threads(
    threads: int, digits: Digits, whole
) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        found = run_table1(digits, TINY, [4], ["single_full", "multi"])
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    for job, result in found.results.items():
        assert result == whole.results[job], job


def test_two_tied_classes_are_also_scored_alone(digits: Digits) -> None:
    table = run_table1(digits, TINY.replace(tied="first_two"), [0], ["supervised"])
    found = to_json(table)
    sets = found["supervised"]["head"]
    cells = (f"{sets[f'{kind}_tied']['mean']:.2f} ± 0.00" for kind in ENDS)
    page = to_markdown(table, found).partition("| ten classes, labelled 0 or 1 |")[2]
    assert f" | {' / '.join(cells)} | " in next(k for k in page.splitlines() if "own head" in k)
    assert "true digit" not in page.partition("\n\nSettings")[0]
    suffixes = ("", "_tied", "_0_vs_1")
    assert set(sets) == {kind + suffix for kind in SETS for suffix in suffixes}
    assert set(found["supervised"]["digit_probe"]) == set(SETS)


def test_steps_are_told(digits: Digits) -> None:
    told = []
    run_table1(digits, TINY, [4], ["multi"], on_step=lambda arm, seed: told.append((arm, seed)))
    assert told == [("multi", 4)] * TINY.steps


def test_a_diverged_run_is_refused(digits: Digits) -> None:
    with pytest.raises(ConfigError, match="learning_rate: expected finite features"):
        run_job(digits, TINY.replace(learning_rate=1e30), ("multi", 0), CPU, lambda: None)


def test_a_failing_job_stops_the_one_beside_it(digits: Digits) -> None:
    cfg = TINY.replace(epochs=100)
    told: list[str] = []

    def fail(arm: str, seed: int) -> None:
        told.append(arm)
        if arm == "supervised":
            raise RuntimeError("broken")

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with pytest.raises(RuntimeError, match="broken"):
            run_table1(digits, cfg, [0], ["two_head", "supervised", "multi"], on_step=fail)
    finally:
        torch.set_num_threads(before)
    assert set(told) <= {"two_head", "supervised"}
    assert len(told) < cfg.steps


def test_an_interrupted_run_goes_on_with_what_is_done(
    digits: Digits, whole, tmp_path: Path
) -> None:
    path, settings = tmp_path / "partial.json", TINY.to_dict()
    told: list[tuple[str, int]] = []
    lock = threading.Lock()

    def interrupt(arm: str, seed: int) -> None:
        with lock:
            told.append((arm, seed))
            if len(told) > 2.5 * TINY.steps:
                raise KeyboardInterrupt

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        with pytest.raises(KeyboardInterrupt):
            run_table1(
                digits, TINY, [4, 2], ARMS, store=PartialResults(path, settings),
                on_step=interrupt,
            )  # fmt: skip
    finally:
        torch.set_num_threads(before)
    partial = PartialResults(path, settings)
    assert list(partial.jobs) == [("multi", 4), ("single", 4)]
    assert partial.jobs["multi", 4] == whole.results["multi", 4]
    again: set[tuple[str, int]] = set()
    found = run_table1(
        digits, TINY, [4, 2], ARMS, store=partial, on_step=lambda *job: again.add(job)
    )
    assert again == set(whole.results) - {("multi", 4), ("single", 4)}
    assert found.results == whole.results
