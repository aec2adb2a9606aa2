"""Curves of R runs while they train: filled epoch by epoch, read out once at the end."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmcl_fast.config import TrainConfig
from mmcl_fast.data.synthetic import SignalNoiseData
from mmcl_fast.engines.protocol import Coefficients, Engine, Measured
from mmcl_fast.probe import ood_accuracy
from mmcl_fast.run import Run

CURVES = ("loss", "ood_accuracy", "signal", "noise")
HELD_BYTES = 1 << 24  # embeddings waiting for the batched head; more costs page faults
DIVERGENCE_EVERY = 16  # epochs between looks at the losses: a look is a synchronisation on a GPU


class Recorder:
    """Curves, stored coefficients and embeddings waiting for the head, of R runs.

    Args:
        configs: Resolved settings of the runs (`training.resolve`).
        data: Their data (for the labels).
    """

    def __init__(self, configs: Sequence[TrainConfig], data: Sequence[SignalNoiseData]) -> None:
        self._configs, self._cfg = configs, configs[0]
        self._device = torch.device(self._cfg.device)
        self._labels = torch.stack([x.labels for x in data])
        self._test_labels = torch.stack([x.test_labels for x in data])
        dtype = self._labels.dtype
        shape = (len(configs), self._cfg.epochs + 1)
        self.curves = {
            name: torch.full(shape, torch.nan, dtype=dtype, device=self._device) for name in CURVES
        }
        self._waiting: list[tuple[int, Tensor, Tensor]] = []
        self._stored: list[tuple[int, tuple[Coefficients, ...]]] = []
        self._last: tuple[Coefficients, ...] | None = None
        self._weights: tuple[Tensor, ...] | None = None
        self._norms = _norms(data)
        self._looked = -1

    def observe(self, epoch: int, engine: Engine) -> None:
        """Keep what needs the weights of this epoch: embeddings, coefficients."""
        cfg = self._cfg
        if _due(epoch, cfg.evaluate_every, cfg.epochs):
            self._waiting.append((epoch, *engine.embeddings()))
            if sum(t.nbytes + s.nbytes for _, t, s in self._waiting) > HELD_BYTES:
                self.evaluate()
        if cfg.coefficients_every and _due(epoch, cfg.coefficients_every, cfg.epochs):
            found = engine.coefficients()
            if found is not None:
                self._stored.append((epoch, found))

    def record(self, epoch: int, measured: Measured) -> None:
        """Enter what was measured from an epoch on."""
        stop = epoch + measured.loss.shape[1]
        for name in ("loss", "signal", "noise"):
            self.curves[name][:, epoch:stop] = getattr(measured, name)

    def all_diverged(self, epoch: int) -> bool:
        """True if no run is worth going on with after an epoch."""
        due = epoch // DIVERGENCE_EVERY
        if due == self._looked and epoch != self._cfg.epochs:
            return False
        self._looked = due
        return not bool(self.curves["loss"][:, epoch].isfinite().any())

    def evaluate(self) -> None:
        """Fit the head for every epoch and run that waits, in one batch."""
        if not self._waiting:
            return
        epochs = [epoch for epoch, _, _ in self._waiting]
        train = torch.cat([t for _, t, _ in self._waiting]).cpu()
        test = torch.cat([s for _, _, s in self._waiting]).cpu()
        k = len(epochs)
        accuracy = ood_accuracy(
            train, self._labels.repeat(k, 1), test, self._test_labels.repeat(k, 1)
        )
        columns = accuracy.view(k, -1).T.to(self.curves["loss"])
        self.curves["ood_accuracy"][:, epochs] = columns
        self._waiting.clear()

    def finish(self, engine: Engine) -> None:
        """Evaluate what waits and take the final coefficients and weights."""
        self.evaluate()
        self._last = engine.coefficients()
        self._weights = engine.weights()

    def state(self) -> dict[str, Tensor]:
        """Curves and stored coefficients, for a checkpoint."""
        self.evaluate()
        out = dict(self.curves)
        for epoch, sides in self._stored:
            for k, c in enumerate(sides):
                out[f"stored.{epoch}.{k}.initial"] = c.initial
                out[f"stored.{epoch}.{k}.mu"] = c.mu
                out[f"stored.{epoch}.{k}.noise"] = c.noise
        return out

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue from `state()`."""
        for name in CURVES:
            self.curves[name].copy_(state[name])
        epochs = sorted({int(k.split(".")[1]) for k in state if k.startswith("stored.")})
        for epoch in epochs:
            sides = tuple(
                Coefficients(
                    **{f: state[f"stored.{epoch}.{k}.{f}"] for f in ("initial", "mu", "noise")}
                )
                for k in range(len(self._norms))
            )
            self._stored.append((epoch, sides))

    def runs(self, data: Sequence[SignalNoiseData | None]) -> list[Run]:
        """One `Run` each; `data` is kept where it was given by the user."""
        return [self._run(r, mine) for r, mine in enumerate(data)]

    def _run(self, r: int, data: SignalNoiseData | None) -> Run:
        curves = {name: c[r].cpu() for name, c in self.curves.items()}
        bad = torch.nonzero(~curves["loss"].isfinite()).flatten()
        diverged_at = int(bad[0]) if len(bad) else None
        if diverged_at is not None:
            for curve in curves.values():
                curve[diverged_at:] = torch.nan
        span = None if self._last is None else tuple(_pick(c, r) for c in self._last)
        pairs = [self._lemma(k, c, r) for k, c in enumerate(span or ())]
        stored = [
            [self._lemma(k, _pick(c, r), r) for k, c in enumerate(sides)]
            for _, sides in self._stored
        ]
        return Run(
            config=self._configs[r],
            **curves,
            gamma=pairs[0][0] if pairs else None,
            rho=pairs[0][1] if pairs else None,
            gamma_b=pairs[1][0] if len(pairs) > 1 else None,
            rho_b=pairs[1][1] if len(pairs) > 1 else None,
            coefficient_epochs=[epoch for epoch, _ in self._stored],
            **_stored_curves(stored),
            status="finished" if diverged_at is None else "diverged",
            diverged_at=diverged_at,
            _span=span,
            _weights=None if self._weights is None else tuple(w[r].cpu() for w in self._weights),
            _data=data,
        )

    def _lemma(self, side: int, c: Coefficients, r: int) -> tuple[Tensor, Tensor]:
        """Gamma [m] and rho [m, n] of the decomposition (11)."""
        mu, noise = self._norms[side]
        return c.mu * mu[r], c.noise * noise[r]


def _stored_curves(stored: list[list[tuple[Tensor, Tensor]]]) -> dict[str, Tensor]:
    """Stored gamma and rho of each modality, by the names of `Run`'s fields."""
    found = {}
    for k, suffix in enumerate(("", "_b")):
        if stored and k < len(stored[0]):
            found[f"gamma{suffix}_curve"] = torch.stack([sides[k][0] for sides in stored])
            found[f"rho{suffix}_curve"] = torch.stack([sides[k][1] for sides in stored])
    return found


def _due(epoch: int, every: int, last: int) -> bool:
    return every > 0 and (epoch % every == 0 or epoch == last)


def _pick(c: Coefficients, r: int) -> Coefficients:
    return Coefficients(initial=c.initial[r].cpu(), mu=c.mu[r].cpu(), noise=c.noise[r].cpu())


def _norms(data: Sequence[SignalNoiseData]) -> list[tuple[Tensor, Tensor]]:
    """|mu|^2 [R] and |xi_i|^2 [R, n] of each modality."""
    names = [("mu", "noise")] + ([("mu_b", "noise_b")] if data[0].mu_b is not None else [])
    return [
        (
            torch.stack([getattr(x, mu).square().sum() for x in data]),
            torch.stack([torch.linalg.vector_norm(getattr(x, xi), dim=1) for x in data]).square_(),
        )
        for mu, xi in names
    ]


__all__ = ["CURVES", "Recorder"]
