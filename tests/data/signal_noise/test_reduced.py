"""Reduced data: the law of explicit data in few coordinates.

Statistical tests have fixed seeds; each refuses at p < 1e-4, so an honest generator would fail one
of the about 25 of them for one choice of seeds in 400.
"""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from mmcl_fast import ConfigError, DataError, TrainConfig, train, train_many
from mmcl_fast.data import normal, sample
from mmcl_fast.data.signal_noise.reduced import chi, reduced_rows
from mmcl_fast.data.stream import chi_numpy
from mmcl_fast.data.stream.generate import normal_runs

P_VALUE = 1e-4


def one_chi(degrees: np.ndarray, first_row: int, seed: int, stream: str) -> np.ndarray:
    return chi(degrees[None], first_row, [seed], stream)[0]


@pytest.mark.parametrize("degrees", [1, 2, 3, 30, 10**6, 10**12])
def test_chi_law(degrees: int) -> None:
    square = one_chi(np.full(20_000, float(degrees)), 0, 11, "chi") ** 2
    if degrees > 10**9:  # scipy's chi2 loses digits there; the law is normal to 1e-5
        p = stats.kstest((square - degrees) / np.sqrt(2 * degrees), stats.norm.cdf).pvalue
    else:
        p = stats.kstest(square, stats.chi2(degrees).cdf).pvalue
    assert p > P_VALUE


def test_native_chi_equals_the_numpy_oracle() -> None:
    degrees = np.concatenate([np.linspace(2, 60, 3000), [2.0, 1e6, 1e12, 2.0**53]])
    rows = np.arange(7, 7 + len(degrees))
    expected = chi_numpy.chi(degrees, rows, 2**63 + 5, "chi_b")
    assert np.array_equal(one_chi(degrees, 7, 2**63 + 5, "chi_b"), expected)
    ones = np.ones(2000)  # pow may round differently in the last place
    np.testing.assert_allclose(
        one_chi(ones, 0, 5, "chi"), chi_numpy.chi(ones, np.arange(2000), 5, "chi"), rtol=1e-15
    )


def test_chi_draws_are_independent_of_their_neighbours() -> None:
    degrees = np.linspace(1, 50, 40)
    whole = one_chi(degrees, 0, 5, "chi")
    assert np.array_equal(whole[7:19], one_chi(degrees[7:19], 7, 5, "chi"))
    assert not np.array_equal(whole, one_chi(degrees, 0, 5, "chi_b"))


def test_chi_draws_of_runs_are_those_of_each() -> None:
    degrees, seeds = np.linspace(1, 90, 3000 * 3).reshape(3, -1), [5, 2**64 - 1, 0]
    many = chi(degrees, 2, seeds, "chi_b")
    for row, seed, ours in zip(degrees, seeds, many, strict=True):
        assert np.array_equal(ours, one_chi(row, 2, seed, "chi_b"))


def test_a_rejected_attempt_is_followed_by_the_next(monkeypatch) -> None:
    degrees, rows = np.full(3000, 3.0), np.arange(3000)
    monkeypatch.setattr(chi_numpy, "ATTEMPTS", 1)
    assert np.array_equal(chi_numpy.chi(degrees, rows, 2, "chi"), one_chi(degrees, 0, 2, "chi"))
    x, u = chi_numpy._attempts(2, "chi", rows, 0)
    rejected = np.isnan(chi_numpy._gamma(np.full((3000, 1), 1.5), x, u)).mean()
    assert 0.015 < rejected < 0.04  # 2.7 % at three degrees of freedom


def test_wrong_chi_arguments_are_refused() -> None:
    for degrees in ([0.5], [np.nan], [-1.0]):
        with pytest.raises(ValueError, match=r"degrees: expected numbers in 1 \.\. 2\^53"):
            one_chi(np.array(degrees), 0, 1, "chi")
    with pytest.raises(ValueError, match="expected contiguous float64"):
        chi(np.ones((2, 4))[:, ::2], 0, [1, 2], "chi")
    with pytest.raises(ValueError, match="a seed for each run"):
        chi(np.ones((2, 4)), 0, [1], "chi")
    with pytest.raises(ValueError, match="sample"):
        one_chi(np.ones(4), 2**32 - 2, 1, "chi")


def test_factor_is_lower_triangular() -> None:
    cfg = TrainConfig(n=5, m=4, d=40, data="reduced")
    noise, weights = (rows[0] for rows in reduced_rows([cfg], "a", normal_runs))
    factor = torch.cat([noise, weights])[:, 1:]
    assert factor.shape == (9, 9)
    assert not factor.triu(1).any()
    assert (factor.diagonal() > 0).all()
    assert factor.tril(-1).count_nonzero() == 36


def inner_products(rows: list[tuple[Tensor, Tensor]]) -> np.ndarray:
    x = torch.stack([torch.cat(r) for r in rows])
    return (x @ x.transpose(1, 2)).numpy()


@pytest.mark.parametrize(("n", "m", "d"), [(3, 2, 12), (4, 3, 5)], ids=["tall", "more_rows_than_d"])
def test_inner_products_have_the_explicit_law(n: int, m: int, d: int) -> None:
    count = 3000
    cfg = TrainConfig(n=n, m=m, d=d, data="reduced")
    rows = reduced_rows([cfg.replace(seed=s) for s in range(count)], "a", normal_runs)
    ours = inner_products(list(zip(*rows, strict=True)))
    z = normal(77, "noise", (count, n + m, d), dtype="float64")
    exact = (z @ z.transpose(1, 2)).numpy()
    last = n + m - 1
    for i, j in ((0, 0), (1, 1), (n, n), (last, last), (0, 1), (1, n), (n - 1, last)):
        assert stats.ks_2samp(ours[:, i, j], exact[:, i, j]).pvalue > P_VALUE, (i, j)
    low, low_exact = (np.linalg.eigvalsh(g)[:, -min(n + m, d)] for g in (ours, exact))
    assert stats.ks_2samp(low, low_exact).pvalue > P_VALUE


@pytest.mark.parametrize("engine", ["gram", "primal"])
@pytest.mark.parametrize("modality", ["single", "multi"])
def test_a_rotated_run_is_the_same_run(modality: str, engine: str) -> None:
    """Explicit vectors, expressed in an orthonormal basis of their span by QR, train equally."""
    explicit = TrainConfig(
        n=12, m=5, d=90, n_test=8, epochs=60, modality=modality, dtype="float64", engine=engine
    )
    reduced = explicit.replace(data="reduced")
    data = {k: v for k, v in vars(sample(explicit)).items() if v is not None}
    given = dict(data)
    for side in ("", "_b") if modality == "multi" else ("",):
        axis = data[f"mu{side}"] / data[f"mu{side}"].norm()
        rest = torch.cat([data[f"noise{side}"], data[f"weights{side}"]])
        rest = rest - torch.outer(rest @ axis, axis)
        basis = torch.linalg.qr(rest.T)[0].T
        basis = torch.cat([axis[None], basis])  # [1 + n + m, d]
        names = ["mu", "noise", "weights"] + ([] if side else ["nu", "test_noise", "augmented"])
        for name in names:
            if f"{name}{side}" in data:
                given[f"{name}{side}"] = data[f"{name}{side}"] @ basis.T
    full, small = train(explicit), train(reduced, data=given)
    for name in ("loss", "signal", "noise", "ood_accuracy"):
        torch.testing.assert_close(getattr(small, name), getattr(full, name), rtol=0, atol=1e-10)
    torch.testing.assert_close(small.rho, full.rho, rtol=0, atol=1e-9)


@pytest.mark.parametrize("modality", ["single", "multi"])
def test_curves_have_the_explicit_law(modality: str) -> None:
    cfg = TrainConfig(
        n=14, m=6, d=60, n_test=30, epochs=40, modality=modality, evaluate_every=40, sigma_0=0.01
    )
    # Other seeds for the other kind of data: the two samples must be independent.
    found = {
        kind: train_many([cfg.replace(data=kind, seed=first + s) for s in range(300)])
        for kind, first in (("explicit", 1000), ("reduced", 2000))
    }
    for name in ("loss", "signal", "noise", "ood_accuracy"):
        ours, exact = (
            [getattr(run, name)[-1].item() for run in found[k]] for k in ("reduced", "explicit")
        )
        assert stats.ks_2samp(ours, exact).pvalue > P_VALUE, name


def test_dimension_is_free() -> None:
    cfg = TrainConfig(n=20, m=5, d=10**12, data="reduced", epochs=3, dtype="float64")
    data = sample(cfg)
    assert data.noise.shape == (20, 26)
    squares = data.noise.square().sum(1) / 1e12 - 1
    assert squares.abs().max() < 6 * np.sqrt(2e-12)
    assert squares.abs().max() > 0
    assert train(cfg).loss.isfinite().all()


def test_fresh_draws_change_no_other() -> None:
    cfg = TrainConfig(n=20, m=5, d=10**6, data="reduced")
    a, b = sample(cfg), sample(cfg.replace(n_test=7, augment="per_epoch", sigma_eps=1.0))
    assert torch.equal(a.noise, b.noise)
    assert torch.equal(a.weights, b.weights)
    assert torch.equal(a.test_noise[:7], b.test_noise)
    c = sample(cfg.replace(init_seed=5))
    assert torch.equal(a.noise, c.noise)
    assert not torch.equal(a.weights, c.weights)


def test_what_reduced_data_cannot_do_is_refused() -> None:
    cfg = TrainConfig(n=20, m=5, d=10**6, data="reduced", epochs=1)
    with pytest.raises(ConfigError, match="data: expected explicit with optimizer adam"):
        cfg.replace(optimizer="adam")
    with pytest.raises(ConfigError, match="weights: expected explicit data, got reduced"):
        train(cfg).encoder()
    with pytest.raises(ConfigError, match=r"d: expected at most 2\^34 with data explicit"):
        cfg.replace(data="explicit", d=2**34 + 1)
    with pytest.raises(DataError, match=r"memory: expected .* GiB .* or data = reduced"):
        train(cfg.replace(data="explicit", d=2**34))


def test_noise_along_the_signals_is_normal() -> None:
    # The diagonal of the factor is not: the signals must lie along the explicit coordinate.
    cfg = TrainConfig(n=2, m=1, d=50, data="reduced", modality="multi", sigma_xi_b=2.0)
    seeds = [s for s in range(1200) if len(set(first_labels(s))) == 2]
    drawn = [sample(cfg.replace(seed=s)) for s in seeds]
    for along in (
        torch.stack([x.noise @ x.mu / cfg.mu_norm for x in drawn]),
        torch.stack([x.noise_b @ x.mu_b / (2 * cfg.mu_b_norm) for x in drawn]),
    ):
        for i in range(cfg.n):
            assert stats.kstest(along[:, i].numpy(), stats.norm.cdf).pvalue > P_VALUE


def first_labels(seed: int) -> list[float]:
    from mmcl_fast.data import labels

    return labels(seed, "labels", (1, 2))[0].tolist()
