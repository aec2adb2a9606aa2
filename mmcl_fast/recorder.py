"""Curves of R runs while they train: filled epoch by epoch, read out once at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from mmcl_fast.config import TrainConfig
from mmcl_fast.data.rows import HeldRows, SampleRows, StreamedRows
from mmcl_fast.data.synthetic import SignalNoiseData
from mmcl_fast.engines import drawing_device
from mmcl_fast.engines.protocol import Coefficients, Engine, Measured
from mmcl_fast.probe import ood_accuracy
from mmcl_fast.run import Run

CURVES = ("loss", "ood_accuracy", "signal", "noise")
# Heads that wait to be fitted together: enough for any number of threads. More only costs memory
# that is not in the cache any more.
HELD_HEADS = 64
HELD_BYTES = 1 << 24
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
        self._norms = _norms(configs, data)
        self._looked = -1

    def observe(self, epoch: int, engine: Engine) -> None:
        """Keep what needs the weights of this epoch: embeddings, coefficients."""
        cfg = self._cfg
        if _due(epoch, cfg.evaluate_every, cfg.epochs):
            self._waiting.append((epoch, *engine.embeddings()))
            held = sum(t.nbytes + s.nbytes for _, t, s in self._waiting)
            if held > HELD_BYTES or len(self._waiting) * len(self._configs) >= HELD_HEADS:
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
        train, test = (_joined(parts) for parts in list(zip(*self._waiting, strict=True))[1:])
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
        curves = {name: curve.cpu() for name, curve in self.curves.items()}
        diverged_at = _first_bad(curves["loss"])
        for r, epoch in diverged_at.items():
            for curve in curves.values():
                curve[r, epoch:] = torch.nan
        last = None if self._last is None else _on_cpu(self._last)
        lemmas = [self._lemma(k, c) for k, c in enumerate(last or ())]
        stored = [
            [self._lemma(k, c) for k, c in enumerate(_on_cpu(sides))] for _, sides in self._stored
        ]
        found = []
        for r, mine in enumerate(data):
            pairs = [(gamma[r], rho[r]) for gamma, rho in lemmas]
            run = Run(
                config=self._configs[r],
                **{name: curve[r] for name, curve in curves.items()},
                **_named(pairs),
                coefficient_epochs=[epoch for epoch, _ in self._stored],
                **_stored_curves([[(g[r], rho[r]) for g, rho in sides] for sides in stored]),
                status="diverged" if r in diverged_at else "finished",
                diverged_at=diverged_at.get(r),
                _span=None if last is None else tuple(_pick(c, r) for c in last),
                _weights=self._weights and tuple(w[r].cpu() for w in self._weights),
                _data=mine,
            )
            found.append(run)
        return found

    def _lemma(self, side: int, c: Coefficients) -> tuple[Tensor, Tensor]:
        """Gamma [R, m] and rho [R, m, n] of the decomposition (11)."""
        mu, noise = self._norms[side]
        return c.mu * mu[:, None], c.noise * noise[:, None, :]


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return (torch.cat(list(parts)) if len(parts) > 1 else parts[0]).cpu()


def _first_bad(loss: Tensor) -> dict[int, int]:
    """First epoch whose loss is not finite, of the runs [R, epochs + 1] that have one."""
    bad = ~loss.isfinite()
    first = bad.int().argmax(1).tolist()  # of equal values the first
    return {r: first[r] for r in bad.any(1).nonzero().flatten().tolist()}


def _on_cpu(sides: tuple[Coefficients, ...]) -> tuple[Coefficients, ...]:
    return tuple(
        Coefficients(initial=c.initial.cpu(), mu=c.mu.cpu(), noise=c.noise.cpu()) for c in sides
    )


def _named(pairs: Sequence[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """Gamma and rho of each modality, by the names of `Run`'s fields."""
    found = {}
    for suffix, (gamma, rho) in zip(("", "_b"), pairs, strict=False):
        found[f"gamma{suffix}"], found[f"rho{suffix}"] = gamma, rho
    return found


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
    return Coefficients(initial=c.initial[r], mu=c.mu[r], noise=c.noise[r])


def _norms(
    configs: Sequence[TrainConfig], data: Sequence[SignalNoiseData]
) -> list[tuple[Tensor, Tensor]]:
    """|mu|^2 [R] and |xi_i|^2 [R, n] of each modality."""
    kinds: list[tuple[str, Literal["a", "b"]]] = [("", "a"), ("_b", "b")]
    found = []
    for suffix, kind in kinds[: 1 + configs[0].is_multi]:
        signals = [getattr(x, f"mu{suffix}") for x in data]
        noise = [getattr(x, f"noise{suffix}") for x in data]
        if device := drawing_device(configs[0]):
            from mmcl_fast.data.device_runs import square_norms

            of_mu = square_norms([mu[None] for mu in signals], device)[:, 0]
            found.append((of_mu, square_norms(noise, device)))
            continue
        of_mu = torch.stack([mu.square().sum() for mu in signals])
        of_noise = [_squares(cfg, x, kind) for cfg, x in zip(configs, noise, strict=True)]
        found.append((of_mu, torch.stack(of_noise)))
    return found


def _squares(cfg: TrainConfig, noise: Tensor | None, kind: Literal["a", "b"]) -> Tensor:
    """|xi_i|^2 of the rows of a modality, [n]."""
    rows: SampleRows
    rows = StreamedRows(cfg, kind, torch.device("cpu")) if noise is None else HeldRows(noise)
    norms = [torch.linalg.vector_norm(x, dim=1) for _, x in rows.pieces(None)]
    return torch.cat(norms).square_()


__all__ = ["CURVES", "Recorder"]
