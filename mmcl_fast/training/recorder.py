"""Curves of R runs while they train: filled epoch by epoch, read out once at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from mmcl_fast.config import TrainConfig
from mmcl_fast.data.signal_noise.rows import HeldRows, SampleRows, StreamedRows
from mmcl_fast.data.signal_noise.run_batches import SignalNoiseBatch
from mmcl_fast.data.signal_noise.synthetic import SignalNoiseData
from mmcl_fast.engines import drawing_device
from mmcl_fast.engines.protocol import Coefficients, Engine, Measured
from mmcl_fast.training.linear_probe import ood_accuracy
from mmcl_fast.training.run import Run

CURVES = ("loss", "ood_accuracy", "signal", "noise")
MEASURED = ("loss", "signal", "noise")  # where training is; heads are fitted on the CPU
# Heads that wait to be fitted together: enough for any number of threads. More only costs memory
# that is not in the cache any more.
HELD_HEADS = 64
HELD_BYTES = 1 << 24
DIVERGENCE_EVERY = 16  # epochs between looks at the losses: a look is a synchronisation on a GPU


class Recorder:
    """Curves, stored coefficients and embeddings waiting for the head, of R runs.

    A GPU computes what it was told while the host goes on. So there the host fits heads only when
    the next epochs are on their way (`keep_up`), and waits for the last results in `runs`.

    Args:
        configs: Resolved settings of the runs (`resolve.resolve`).
        data: Their data (for the labels).
    """

    def __init__(self, configs: Sequence[TrainConfig], data: Sequence[SignalNoiseData]) -> None:
        self._configs, self._cfg = configs, configs[0]
        self._device = torch.device(self._cfg.device)
        self._lags = _lags(self._device)
        batch = SignalNoiseBatch.of(data)
        self._labels, self._test_labels = batch.stacked("labels"), batch.stacked("test_labels")
        dtype = self._labels.dtype
        shape = (len(configs), self._cfg.epochs + 1)
        self.curves = {
            name: torch.full(
                shape, torch.nan, dtype=dtype, device=self._device if name in MEASURED else "cpu"
            )
            for name in CURVES
        }
        self._waiting: list[_Look] = []
        self._checked = False  # whether labels are fit for heads
        self._stored: list[tuple[int, tuple[Coefficients, ...]]] = []
        self._last: tuple[Coefficients, ...] | None = None
        self._weights: tuple[Tensor, ...] | None = None
        self._norms = _norms(configs, batch)
        self._looked = -1
        self._arrival: _Arrival | None = None
        self._engine: Engine | None = None

    def observe(self, epoch: int, engine: Engine) -> None:
        """Keep what needs the weights of this epoch: embeddings, coefficients."""
        cfg = self._cfg
        if _due(epoch, cfg.evaluate_every, cfg.epochs):
            train, test = (_on_its_way(x) for x in engine.embeddings())
            self._waiting.append(_Look(epoch, train, test, _Arrival() if self._lags else None))
            if not self._lags:
                self.keep_up()
        if cfg.coefficients_every and _due(epoch, cfg.coefficients_every, cfg.epochs):
            found = engine.coefficients()
            if found is not None:
                self._stored.append((epoch, found))

    def keep_up(self) -> None:
        """Fit heads if enough wait."""
        held = sum(look.train.nbytes + look.test.nbytes for look in self._waiting)
        if held > HELD_BYTES or len(self._waiting) * len(self._configs) >= HELD_HEADS:
            self.evaluate()

    def record(self, epoch: int, measured: Measured) -> None:
        """Enter what was measured from an epoch on."""
        stop = epoch + measured.loss.shape[1]
        for name in MEASURED:
            self.curves[name][:, epoch:stop] = getattr(measured, name)

    def all_diverged(self, epoch: int) -> bool:
        """True if no run is worth going on with after an epoch."""
        due, last = epoch // DIVERGENCE_EVERY, self._cfg.epochs
        if due == self._looked or epoch == last:
            return False
        if self._lags and epoch == last - 1 and not self._cfg.coefficients_every:
            return False  # to measure once more is quicker than to wait, and no run shows it
        self._looked = due
        return not bool(self.curves["loss"][:, epoch].isfinite().any())

    def evaluate(self) -> None:
        """Fit the head for every epoch and run that waits, in one batch."""
        if not self._waiting:
            return
        looks, k = self._waiting, len(self._waiting)
        if looks[-1].arrival:
            looks[-1].arrival.wait()  # and so did all before it
        epochs = [look.epoch for look in looks]
        train = _joined([look.train for look in looks])
        test = _joined([look.test for look in looks])
        labels, test_labels = (x.repeat(k, 1) for x in (self._labels, self._test_labels))
        accuracy = ood_accuracy(train, labels, test, test_labels, checked=self._checked)
        self._checked = True
        curve = self.curves["ood_accuracy"]
        curve[:, epochs] = accuracy.view(k, -1).T.to(curve)
        self._waiting.clear()

    def finish(self, engine: Engine) -> None:
        """Take the final coefficients and weights, and evaluate what waits (see `Recorder`)."""
        if not self._lags:
            self.evaluate()
        self._last = engine.coefficients()
        self._weights = engine.weights()
        if self._lags:
            self._last = self._last and _on_their_way(self._last)
            self._stored = [(epoch, _on_their_way(sides)) for epoch, sides in self._stored]
            self.curves |= {name: _on_its_way(self.curves[name]) for name in MEASURED}
            self._norms = [(_on_its_way(mu), _on_its_way(noise)) for mu, noise in self._norms]
            # Its memory may be given to others only when nothing of it is still to be read.
            self._arrival, self._engine = _Arrival(), engine

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
        self.evaluate()
        if self._arrival:
            self._arrival.wait()
            self._arrival = self._engine = None
        curves = {name: self._kept(curve) for name, curve in self.curves.items()}
        diverged_at = _first_bad(curves["loss"])
        for r, epoch in diverged_at.items():
            for curve in curves.values():
                curve[r, epoch:] = torch.nan
        runs, epochs = range(len(data)), [epoch for epoch, _ in self._stored]
        stored = [
            [self._lemma(k, c) for k, c in enumerate(_on_cpu(sides))] for _, sides in self._stored
        ]
        # Each field of all runs at once: to take a tensor apart costs less than to index it.
        fields: dict[str, Sequence[Any]] = {
            "config": self._configs,
            **{name: curve.unbind() for name, curve in curves.items()},
            "coefficient_epochs": [list(epochs) for _ in runs],
            **_stored_curves(stored),
            "status": ["diverged" if r in diverged_at else "finished" for r in runs],
            "diverged_at": [diverged_at.get(r) for r in runs],
            "_data": data,
        }
        if self._last is not None:
            fields |= _named([self._lemma(k, c) for k, c in enumerate(self._last)])
            if self._cfg.data != "reduced":  # else there are no weights in R^d to ask for
                fields["_span"] = list(zip(*map(self._of_each, self._last), strict=True))
        if self._weights is not None:
            weights = (w.cpu().unbind() for w in self._weights)
            fields["_weights"] = list(zip(*weights, strict=True))
        return [
            Run(**dict(zip(fields, values, strict=True)))
            for values in zip(*fields.values(), strict=True)
        ]

    def _kept(self, tensor: Tensor) -> Tensor:
        """As a run may keep it: what came from a GPU is in memory that the system cannot move."""
        return tensor.clone() if self._lags else tensor

    def _of_each(self, c: Coefficients) -> list[Coefficients]:
        """Those of each run."""
        parts = (self._kept(x).unbind() for x in (c.initial, c.mu, c.noise))
        return [Coefficients(*mine) for mine in zip(*parts, strict=True)]

    def _lemma(self, side: int, c: Coefficients) -> tuple[Tensor, Tensor]:
        """Gamma [R, m] and rho [R, m, n] of the decomposition (11)."""
        mu, noise = self._norms[side]
        return c.mu * mu[:, None], c.noise * noise[:, None, :]


@dataclass(frozen=True)
class _Look:
    """Embeddings of an epoch; on a GPU on their way to the host."""

    epoch: int
    train: Tensor
    test: Tensor
    arrival: _Arrival | None


class _Arrival:
    """When all is there that was on its way from the GPU at the time this was made."""

    def __init__(self) -> None:
        self._event = torch.cuda.Event()
        self._event.record()

    def wait(self) -> None:
        """Wait for it."""
        self._event.synchronize()


def _lags(device: torch.device) -> bool:
    """Whether what was asked of a device may not be done yet."""
    return device.type == "cuda"


def _on_its_way(tensor: Tensor) -> Tensor:
    """A tensor on the CPU, or the copy of a GPU's: to be read after an `_Arrival` made later."""
    return tensor.to("cpu", non_blocking=True)


def _on_their_way(sides: tuple[Coefficients, ...]) -> tuple[Coefficients, ...]:
    return tuple(Coefficients(*(_on_its_way(x) for x in (c.initial, c.mu, c.noise))) for c in sides)


def _on_cpu(sides: tuple[Coefficients, ...]) -> tuple[Coefficients, ...]:
    return tuple(Coefficients(*(x.cpu() for x in (c.initial, c.mu, c.noise))) for c in sides)


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(parts)) if len(parts) > 1 else parts[0]


def _first_bad(loss: Tensor) -> dict[int, int]:
    """First epoch whose loss is not finite, of the runs [R, epochs + 1] that have one."""
    bad = ~loss.isfinite()
    first = bad.int().argmax(1).tolist()  # of equal values the first
    return {r: first[r] for r in bad.any(1).nonzero().flatten().tolist()}


def _named(pairs: Sequence[tuple[Tensor, Tensor]]) -> dict[str, Sequence[Tensor]]:
    """Gamma and rho of each modality and run, by the names of `Run`'s fields."""
    found: dict[str, Sequence[Tensor]] = {}
    for suffix, (gamma, rho) in zip(("", "_b"), pairs, strict=False):
        found[f"gamma{suffix}"], found[f"rho{suffix}"] = gamma.unbind(), rho.unbind()
    return found


def _stored_curves(
    stored: Sequence[Sequence[tuple[Tensor, Tensor]]],
) -> dict[str, Sequence[Tensor]]:
    """Stored gamma and rho of each modality and run, by the names of `Run`'s fields."""
    found: dict[str, Sequence[Tensor]] = {}
    for suffix, looks in zip(("", "_b"), zip(*stored, strict=True), strict=False):
        gamma, rho = zip(*looks, strict=True)
        found[f"gamma{suffix}_curve"] = torch.stack(gamma, dim=1).unbind()
        found[f"rho{suffix}_curve"] = torch.stack(rho, dim=1).unbind()
    return found


def _due(epoch: int, every: int, last: int) -> bool:
    return every > 0 and (epoch % every == 0 or epoch == last)


def _norms(configs: Sequence[TrainConfig], batch: SignalNoiseBatch) -> list[tuple[Tensor, Tensor]]:
    """|mu|^2 [R] and |xi_i|^2 [R, n] of each modality."""
    kinds: list[tuple[str, Literal["a", "b"]]] = [("", "a"), ("_b", "b")]
    norms = []
    for suffix, kind in kinds[: 1 + configs[0].is_multi]:
        if device := drawing_device(configs[0]):
            from mmcl_fast.data.signal_noise.gpu import square_norms

            fields = (
                [getattr(x, f"{name}{suffix}") for x in batch.blocks] for name in ("mu", "noise")
            )
            of_mu, of_noise = (square_norms(field, device) for field in fields)
        else:
            of_mu = torch.stack([getattr(x, f"mu{suffix}").square().sum() for x in batch])
            noise = [getattr(x, f"noise{suffix}") for x in batch]
            squares = [_squares(cfg, x, kind) for cfg, x in zip(configs, noise, strict=True)]
            of_noise = torch.stack(squares)
        norms.append((of_mu, of_noise))
    return norms


def _squares(cfg: TrainConfig, noise: Tensor | None, kind: Literal["a", "b"]) -> Tensor:
    """|xi_i|^2 of the rows of a modality, [n]."""
    rows: SampleRows
    rows = StreamedRows(cfg, kind, torch.device("cpu")) if noise is None else HeldRows(noise)
    norms = [torch.linalg.vector_norm(x, dim=1) for _, x in rows.pieces(None)]
    return torch.cat(norms).square_()


__all__ = ["CURVES", "Recorder"]
