"""Checks of the appendix: against weights and the reference in R^d, and on planted curves."""

import math

import numpy as np
import pytest
import torch

from mmcl_fast import Run, TrainConfig, reference, train
from mmcl_fast.data.signal_noise.sampling import sample
from mmcl_fast.experiments.theory_checks import (
    concentration,
    convergence,
    couplings,
    pairs,
    stage2,
)
from mmcl_fast.experiments.theory_checks.start import Start, start_of

EXPLICIT = TrainConfig(n=12, d=40, m=6, epochs=30, dtype="float64", eta=0.2)


def test_start_and_end_of_a_run_are_those_of_its_weights() -> None:
    run, data, start = train(EXPLICIT), sample(EXPLICIT), start_of(EXPLICIT)
    torch.testing.assert_close(start.noise, data.weights @ data.noise.T)
    torch.testing.assert_close(start.signal, data.weights @ data.mu)
    torch.testing.assert_close(
        start.moved(run), run.weights() @ data.noise.T, rtol=1e-9, atol=1e-12
    )
    assert (start.moved(run) - start.noise).abs().max() > 0.1
    assert start.largest == max(start.noise.abs().max(), start.signal.abs().max())


def test_sums_over_the_other_label() -> None:
    start, labels = start_of(EXPLICIT), sample(EXPLICIT).labels
    for r in range(3):
        for i in range(EXPLICIT.n):
            others = [j for j in range(EXPLICIT.n) if labels[j] != labels[i]]
            total = sum(max(float(start.noise[r, j]), 0.0) for j in others)
            assert float(start.other_label_sums()[r, i]) == pytest.approx(total)
            assert int(start.negatives()[i]) == len(others)


def planted_start() -> Start:
    """Two neurons, four samples; orthogonal noise patches."""
    noise = torch.tensor([[1.0, 2.0, 3.0, -1.0], [-1.0, 4.0, -2.0, 2.0]], dtype=torch.float64)
    return Start(
        labels=torch.tensor([1, 1, -1, -1]),
        signal=torch.zeros(2, dtype=torch.float64),
        noise=noise,
        overlap=torch.eye(4, dtype=torch.float64),
        mu_overlap=torch.zeros(4, dtype=torch.float64),
    )


def test_shares_of_pairs() -> None:
    cfg = TrainConfig(n=4, d=5, m=2, sigma_0=1 / math.sqrt(5))  # unit of the bins: 1
    rho = torch.tensor([[-2.0, 0.0, -9.0, 0.0], [0.5, -1.0, 0.0, -9.0]], dtype=torch.float64)
    nothing = torch.zeros(1)
    run = Run(cfg, *(nothing,) * 4, gamma=torch.zeros(2), rho=rho)
    found = pairs.pair_shares(run, planted_start(), bins=(0.0, 1.5, 3.0, 5.0))
    # Active with label +1: (0, 0), (0, 1), (1, 1); rho < 0 in the first and last; 1 - 2 < 0.
    assert found.fallen == pytest.approx(2 / 3)
    assert found.silenced == pytest.approx(1 / 3)
    # Sums over label -1: 3 for neuron 0, 2 for neuron 1, over M + 1 = 3: 1, 1 and 2/3.
    assert found.above == pytest.approx(2 / 3), "2 > 1 and 4 > 2/3, but 1 is not above 1"
    assert found.meet == 0.0
    assert found.woken == pytest.approx(1 / 3), "(1, 0) of (0, 3), (1, 0), (1, 2)"
    assert found.by_size == pytest.approx((1.0, 0.0, 1.0))


def shares_of(fallen: float, woken: float = 0.0, meet: float = 1.0) -> pairs.PairShares:
    return pairs.PairShares(
        fallen=fallen, silenced=fallen, meet=meet, above=1.0, woken=woken, by_size=(0.0,)
    )


def test_pairs_verdicts() -> None:
    grid = pairs.PairsGrid()
    good, bad = [shares_of(0.0)] * 2, [shares_of(0.02, 0.02, 0.98)] * 2
    for runs, verdict in (((good, good), True), ((good, bad), False)):
        rows = pairs.active_rows(runs, grid)
        assert [row.agrees for row in rows[:2]] == [verdict] * 2
        assert pairs.inactive_row(runs, bad, grid).agrees == verdict
    assert pairs.active_rows((good, bad), grid)[2].agrees
    assert not pairs.active_rows((bad, good), grid)[2].agrees


@pytest.mark.parametrize(("modality", "seed"), [("single", 0), *(("multi", s) for s in range(4))])
def test_softmax_weights_are_those_of_the_reference(modality: str, seed: int) -> None:
    """Four seeds of two directions, either of which may have the extreme weight."""
    cfg = EXPLICIT.replace(
        modality=modality, seed=seed, coefficients_every=1, epochs=5, tau=0.3, eta=0.02, sigma_0=0.1
    )
    run, data = train(cfg), sample(cfg)
    labels = data.labels.double()
    other = reference.other_label(labels)

    def features(side: str, patches: str) -> torch.Tensor:
        weights = run.weights("b" if side else "a")
        signal = reference.signal_patches(labels, getattr(data, f"mu{side}"))
        return reference.features(weights, signal, getattr(data, patches))

    query = features("", "noise")
    if modality == "multi":
        key = features("_b", "noise_b")
        sides = [(query, key, key), (key, query, query)]
    else:
        sides = [(query, query, features("", "augmented"))]
    worst = 1.0
    for queries, keys, positives in sides:
        own = reference.paired_similarity(queries, positives) / cfg.tau_value
        scores = reference.similarity(queries, keys) / cfg.tau_value
        weights = reference.softmax_weights(own, scores, other)
        count = other.sum(1).double() + 1
        ratios = torch.cat([weights[0] * count, (weights[1] * count[:, None])[other]])
        worst = max(worst, float(ratios.max()), float(1 / ratios.min()))
    assert worst > 1.1
    assert couplings.deviation(run, data, 5) == pytest.approx(worst, rel=1e-9)


@pytest.mark.parametrize(("exponent", "agrees"), [(0.0, True), (0.2, False)])
def test_couplings_verdicts(exponent: float, agrees: bool) -> None:
    n = (50, 100, 200)
    found = np.array([[(x / 50) ** exponent] * 2 for x in n])
    row = couplings.judge(n, found, 2 * found, "single")
    assert row.agrees == agrees
    assert row.per_seed == pytest.approx((exponent, exponent), abs=1e-12)


def test_gradient_from_coefficients_is_that_of_autograd() -> None:
    """In R^d: equal up to the cosines of the vectors, which are 1 / sqrt(d)."""
    cfg = TrainConfig(
        n=8, d=40_000, m=4, mu_norm=50.0, sigma_0=0.01, eta=1e-5, epochs=1, dtype="float64"
    )
    run, data = train(cfg.replace(coefficients_every=1)), sample(cfg)
    labels = data.labels.double()
    weights = data.weights.clone().requires_grad_()
    signal = reference.signal_patches(labels, data.mu)
    h, view = (reference.features(weights, signal, x) for x in (data.noise, data.augmented))
    loss = reference.single_modal_loss(h, view, reference.other_label(labels), cfg.tau_value)
    (gradient,) = torch.autograd.grad(loss, weights)
    expected = float(gradient.square().sum() / (cfg.d * loss.detach()))
    (found,) = convergence.gradient_ratio(run)
    assert found == pytest.approx(expected, rel=0.03)


def test_convergence_verdicts() -> None:
    falls = np.array([[4.0, 2.0, 1.0, 1.0 + 1e-8], [4.0, 3.0, 2.0, 1.0]])
    assert convergence.never_rises("single", falls).agrees
    assert not convergence.never_rises("single", falls[:, ::-1]).agrees
    losses, limits = (1.0, 0.1, 0.01), np.array([10.0, 100.0, 1000.0])
    for power, verdict in ((0.5, True), (1.1, False)):
        times = np.array([[10.0 * x**-power] * 2 for x in losses])
        assert convergence.exponent("multi", losses, times).agrees == verdict
        assert convergence.within_limit("multi", losses, times, limits).agrees == verdict
    never = np.array([[1.0, 1.0], [2.0, 2.0], [3.0, math.inf]])
    assert not convergence.within_limit("multi", losses, never, limits).agrees
    assert not convergence.exponent("multi", losses, never).agrees
    assert convergence.gradient_row([np.array([0.5, 0.9])]).agrees
    assert not convergence.gradient_row([np.array([0.5, 0.9]), np.array([1.1])]).agrees


GOOD = stage2.Late(
    gamma=(1.0, 1.5),
    rho=(0.5, 0.6),
    slowest=(2.0, 3.1),
    log_t=(4.0, 8.0),
    initial=0.7,
    bound=1.0,
    falls=0.0,
    rho_curve=np.ones(3),
)


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ({}, set()),
        ({"gamma": (1.0, 3.1), "slowest": (1.0, 4.0), "log_t": (4.0, 40.0)}, {"Lemma C.18"}),
        ({"falls": 0.1}, {"Lemma C.3"}),
        ({"bound": 0.55}, {"Lemma D.15"}),
        ({"slowest": (2.0, 2.6)}, {"section 5.1"}),
        ({"rho": (0.5, 0.9)}, {"section 5.2"}),
        ({"log_t": (4.0, 5.0)}, {"Proposition C.13", "its analogue in appendix D"}),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_second_stage_verdicts(change: dict, broken: set[str]) -> None:
    grid = stage2.Stage2Grid()
    other = stage2.Late(**vars(GOOD) | change)
    rows = stage2.judge({m: [[GOOD, GOOD], [GOOD, other]] for m in ("single", "multi")}, grid)
    assert {row.source for row in rows if not row.agrees} == broken


def test_second_stage_is_read_from_the_curves() -> None:
    kept = torch.arange(5.0, dtype=torch.float64)
    gamma = torch.stack([-kept, torch.tensor([0.0, 2.0, 1.0, 2.0, 2.0])], 1)
    rho = torch.stack([kept[:, None] * torch.tensor([1.0, -2.0, 0.5]), torch.zeros(5, 3)], 1)
    cfg = TrainConfig(n=3, d=50, m=2, epochs=40)
    nothing = torch.zeros(1)
    run = Run(
        cfg,
        *(nothing,) * 4,
        gamma_curve=gamma,
        rho_curve=rho,
        coefficient_epochs=[0, 10, 20, 30, 40],
    )
    late = stage2.summarise(run, t1=11.0)
    assert late.gamma == (2.0, 4.0), "T1 = 11 is read at the next kept epoch, 20"
    assert late.rho == (4.0, 8.0)
    assert late.slowest == (0.0, 0.0), "the second sample's best neuron stays at 0"
    assert late.log_t == (math.log(20), math.log(40))
    assert late.falls == pytest.approx(1.0), "from 2 to 1"
    assert late.bound == pytest.approx(cfg.sigma_0 * math.sqrt(50))
    assert late.initial == start_of(cfg).largest


def test_bounds_on_the_start_hold_and_can_fail() -> None:
    cfg = TrainConfig(n=40, d=2000, m=20, data="reduced")
    found = concentration.shares(cfg, 0.01)
    assert list(found) == list(concentration.STATEMENTS)
    assert max(found.values()) <= 1
    explicit = concentration.shares(cfg.replace(data="explicit"), 0.01)
    assert max(explicit.values()) <= 1
    assert concentration.shares(cfg.replace(d=4, data="explicit"), 0.01)["noise norms"] > 1
    loose, strict = (concentration.shares(cfg, delta) for delta in (1e-9, 0.5))
    for name in ("noise overlaps", "weights and noise", "labels", "active neurons"):
        assert loose[name] < strict[name]
    grid = concentration.ConcentrationGrid()
    for worst, agrees in ((0.9, True), (1.1, False)):
        row = concentration.judge("labels", np.array([[0.5, 0.5], [0.5, worst]]), grid)
        assert row.agrees == agrees
