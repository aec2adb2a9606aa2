"""Recording of R runs in training: curves per epoch, converted to `Run`s at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor

from mmcl_fast.config import TrainConfig
from mmcl_fast.config_checks import ROTATED
from mmcl_fast.data.signal_noise.run_batches import SignalNoiseBatch
from mmcl_fast.data.signal_noise.synthetic import SignalNoiseData
from mmcl_fast.engines.optimizers import nest, unnest
from mmcl_fast.engines.protocol import Coefficients, Engine, Measured
from mmcl_fast.training import decomposition
from mmcl_fast.training.class_probe import probe_accuracy
from mmcl_fast.training.decomposition import Terms
from mmcl_fast.training.run import Run
from mmcl_fast.training.stopping import StoppedRun, cut_stored_curves, stopped_run

CURVES = ("loss", "ood_accuracy", "signal", "noise")
MEASURED = ("loss", "signal", "noise")  # on the device; accuracies are on the CPU
# Linear probes fitted in one call: enough for any number of threads. More would leave the cache.
PENDING_PROBES = 64
PENDING_BYTES = 1 << 24
DIVERGENCE_EVERY = 16  # epochs between checks of the loss, which synchronise a GPU


class Recorder:
    """Curves, stored coefficients, and embeddings pending for the linear probe, of R runs.

    A GPU computes asynchronously. There the host fits linear probes only after the next epochs are
    launched (`keep_up`), and waits for the last results in `runs`.

    Args:
        configs: Resolved settings of the runs (`resolve.resolve`).
        data: Their data, for labels and norms.
        metrics: Names of further curves.
    """

    def __init__(
        self,
        configs: Sequence[TrainConfig],
        data: Sequence[SignalNoiseData],
        metrics: Sequence[str] = (),
    ) -> None:
        self._configs, self._cfg = configs, configs[0]
        learned = ("tau",) if self._cfg.eta_tau else ()
        self._names, self._measured = (*CURVES, *learned), (*MEASURED, *learned)
        self._device = torch.device(self._cfg.device)
        self._is_asynchronous = _is_asynchronous(self._device)
        batch = SignalNoiseBatch.of(data)
        on_ood = self._cfg.probe_on == "ood"
        self._fitted_labels = batch.stacked("probe_labels" if on_ood else "labels")
        self._test_labels = batch.stacked("test_labels")
        dtype = self._test_labels.dtype
        shape = (len(configs), self._cfg.epochs + 1)
        self.curves = {
            name: torch.full(
                shape,
                torch.nan,
                dtype=dtype,
                device=self._device if name in self._measured else "cpu",
            )
            for name in self._names
        }
        self.metrics = {name: torch.full(shape, torch.nan, dtype=torch.float64) for name in metrics}
        self._stopped: dict[int, StoppedRun] = {}
        self._pending: list[_Evaluation] = []
        self._labels_checked = False  # the labels are valid for the linear probe
        self._stored: list[tuple[int, tuple[Coefficients, ...]]] = []
        self._last: tuple[Coefficients, ...] | None = None
        self._weights: tuple[Tensor, ...] | None = None
        self._norms = decomposition.square_norms(configs, batch)
        self._checked_period = -1
        self._copied: _CopyEvent | None = None
        self._engine: Engine | None = None

    def observe(self, epoch: int, engine: Engine) -> None:
        """Store what depends on the weights of this epoch: embeddings, coefficients."""
        cfg = self._cfg
        if _due(epoch, cfg.evaluate_every, cfg.epochs):
            embeddings = engine.embeddings()
            fitted, test = (_copy_to_host(x) for x in (embeddings.fitted, embeddings.test))
            copied = _CopyEvent() if self._is_asynchronous else None
            self._pending.append(_Evaluation(epoch, fitted, test, copied))
            if not self._is_asynchronous:
                self.keep_up()
        if cfg.coefficients_every and _due(epoch, cfg.coefficients_every, cfg.epochs):
            coefficients = engine.coefficients()
            if coefficients is not None:
                self._stored.append((epoch, coefficients))

    def keep_up(self) -> None:
        """Fit linear probes if enough are pending."""
        pending_bytes = sum(x.fitted.nbytes + x.test.nbytes for x in self._pending)
        probes = len(self._pending) * len(self._configs)
        if pending_bytes > PENDING_BYTES or probes >= PENDING_PROBES:
            self.evaluate()

    def record(self, epoch: int, measured: Measured) -> None:
        """Write measurements into the curves, from an epoch on."""
        stop = epoch + measured.loss.shape[1]
        for name in self._measured:
            self.curves[name][:, epoch:stop] = getattr(measured, name)

    def record_metric(self, name: str, epoch: int, values: Sequence[float]) -> None:
        """Write a metric of each run at an epoch."""
        self.metrics[name][:, epoch] = torch.tensor(values, dtype=torch.float64)

    def stop(self, runs: Sequence[int], epoch: int, engine: Engine) -> None:
        """End runs at an epoch, whose weights the engine has."""
        cfg = self._cfg
        self.evaluate()
        evaluates = cfg.evaluate_every and not _due(epoch, cfg.evaluate_every, cfg.epochs)
        embeddings = engine.embeddings() if evaluates else None
        for r in runs:
            self._stopped[r] = stopped_run(r, epoch, engine)
            if embeddings is not None:
                own = slice(r, r + 1)
                fitted, test = (x[own].cpu() for x in (embeddings.fitted, embeddings.test))
                labels, test_labels = self._fitted_labels[own], self._test_labels[own]
                accuracy = probe_accuracy(cfg, fitted, labels, test, test_labels)
                self.curves["ood_accuracy"][r, epoch] = accuracy[0]

    def has_stopped(self, run: int) -> bool:
        """Whether a run was ended by `stop`."""
        return run in self._stopped

    @property
    def all_stopped(self) -> bool:
        """Whether every run was ended by `stop`."""
        return len(self._stopped) == len(self._configs)

    def all_diverged(self, epoch: int) -> bool:
        """Whether the loss of every run is non-finite after an epoch; checked now and then."""
        due, last = epoch // DIVERGENCE_EVERY, self._cfg.epochs
        if due == self._checked_period or epoch == last:
            return False
        if self._is_asynchronous and epoch == last - 1 and not self._cfg.coefficients_every:
            return False  # the last measurement takes less time than the synchronisation
        self._checked_period = due
        return not bool(self.curves["loss"][:, epoch].isfinite().any())

    def evaluate(self) -> None:
        """Fit all pending linear probes in one batch."""
        if not self._pending:
            return
        evaluations, k = self._pending, len(self._pending)
        if evaluations[-1].copied:
            evaluations[-1].copied.wait()  # earlier copies are complete, too
        epochs = [evaluation.epoch for evaluation in evaluations]
        fitted = _concatenated([evaluation.fitted for evaluation in evaluations])
        test = _concatenated([evaluation.test for evaluation in evaluations])
        labels, test_labels = (x.repeat(k, 1) for x in (self._fitted_labels, self._test_labels))
        accuracy = probe_accuracy(
            self._cfg, fitted, labels, test, test_labels, checked=self._labels_checked
        )
        self._labels_checked = True
        curve = self.curves["ood_accuracy"]
        curve[:, epochs] = accuracy.view(k, -1).T.to(curve)
        self._pending.clear()

    def finish(self, engine: Engine) -> None:
        """Store final coefficients and weights, and evaluate pending probes (see `Recorder`)."""
        if not self._is_asynchronous:
            self.evaluate()
        self._last = engine.coefficients()
        self._weights = engine.weights()
        if self._is_asynchronous:
            self._last = self._last and _copies_on_host(self._last)
            self._stored = [
                (epoch, _copies_on_host(modalities)) for epoch, modalities in self._stored
            ]
            self.curves |= {name: _copy_to_host(self.curves[name]) for name in self._measured}
            self._norms = [
                {name: _copy_to_host(x) for name, x in norms.items()} for norms in self._norms
            ]
            # The engine's memory may be reused only after the copies.
            self._copied, self._engine = _CopyEvent(), engine

    def state(self) -> dict[str, Tensor]:
        """Curves and stored coefficients, for a checkpoint."""
        self.evaluate()
        out = self.curves | nest("metric", self.metrics)
        for epoch, modalities in self._stored:
            for k, c in enumerate(modalities):
                held = {name: x for name, x in vars(c).items() if x is not None}
                out |= nest(f"stored.{epoch}.{k}", held)
        return out

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue from `state()`."""
        for name in self._names:
            _copy_common(self.curves[name], state[name])
        for name, curve in unnest("metric", state).items():
            _copy_common(self.metrics[name], curve)
        epochs = sorted({int(k.split(".")[1]) for k in state if k.startswith("stored.")})
        for epoch in epochs:
            modalities = tuple(
                Coefficients(
                    initial=state[f"stored.{epoch}.{k}.initial"],
                    mu=state[f"stored.{epoch}.{k}.mu"],
                    noise=state[f"stored.{epoch}.{k}.noise"],
                    spurious=state.get(f"stored.{epoch}.{k}.spurious"),
                    views=state.get(f"stored.{epoch}.{k}.views"),
                )
                for k in range(len(self._norms))
            )
            self._stored.append((epoch, modalities))

    def runs(self, data: Sequence[SignalNoiseData | None]) -> list[Run]:
        """One `Run` each, with the user-supplied data if any."""
        self.evaluate()
        if self._copied:
            self._copied.wait()
            self._copied = self._engine = None
        curves = {name: self._pageable(curve) for name, curve in self.curves.items()}
        loss = curves["loss"]
        if "tau" in curves:  # of an infinite temperature the loss is finite, and its gradient 0
            loss = loss.where(curves["tau"].isfinite(), torch.nan)
        if self._stopped:
            loss = loss.clone()
            for r, stopped in self._stopped.items():
                loss[r, stopped.epoch + 1 :] = 0.0  # a run cannot diverge after its end
        diverged_at = _divergence_epochs(loss)
        for r, epoch in diverged_at.items():
            for curve in (*curves.values(), *self.metrics.values()):
                curve[r, epoch:] = torch.nan
        runs, epochs = range(len(data)), [epoch for epoch, _ in self._stored]
        stored = [
            [self.terms(k, c) for k, c in enumerate(_on_cpu(modalities))]
            for _, modalities in self._stored
        ]
        # Each field of all runs at once: unbinding a tensor is faster than indexing.
        fields: dict[str, Sequence[Any]] = {
            "config": self._configs,
            **{name: curve.unbind() for name, curve in curves.items()},
            "coefficient_epochs": [list(epochs) for _ in runs],
            **decomposition.stored_curves(stored),
            "status": ["diverged" if r in diverged_at else "finished" for r in runs],
            "diverged_at": [diverged_at.get(r) for r in runs],
            "metrics": [{name: x[r] for name, x in self.metrics.items()} for r in runs],
            "_data": data,
        }
        if self._last is not None:
            last = [self.terms(k, c) for k, c in enumerate(self._last)]
            fields |= decomposition.final_fields(last)
            if self._cfg.data not in ROTATED:  # others have no weights in R^d
                fields["_span"] = list(zip(*map(self._of_each, self._last), strict=True))
        if self._weights is not None:
            weights = (w.cpu().unbind() for w in self._weights)
            fields["_weights"] = list(zip(*weights, strict=True))
        by_run = [
            dict(zip(fields, values, strict=True)) for values in zip(*fields.values(), strict=True)
        ]
        for r, stopped in self._stopped.items():
            self._end(by_run[r], r, stopped)
        return [Run(**fields_of_run) for fields_of_run in by_run]

    def _end(self, fields: dict[str, Any], run: int, stopped: StoppedRun) -> None:
        """Put the results of a stopped run in place of those of the last epoch."""
        stop = stopped.epoch + 1
        for name in self._names:
            fields[name] = fields[name][:stop].clone()
        fields["metrics"] = {name: x[:stop].clone() for name, x in fields["metrics"].items()}
        fields["stopped_at"] = stopped.epoch
        if fields["diverged_at"] is None:
            fields["status"] = "stopped"
        if stopped.coefficients is not None:
            own = slice(run, run + 1)
            norms = [{name: x[own].cpu() for name, x in of.items()} for of in self._norms]
            last = [*map(decomposition.terms, stopped.coefficients, norms)]
            final = {name: x[0] for name, x in decomposition.final_fields(last).items()}
            fields.update(final)
            cut_stored_curves(fields, stopped.epoch, final)
            if self._cfg.data not in ROTATED:
                fields["_span"] = tuple(c.mapped(itemgetter(0)) for c in stopped.coefficients)
        if stopped.weights is not None:
            fields["_weights"] = stopped.weights

    def _pageable(self, tensor: Tensor) -> Tensor:
        """A copy in pageable memory of a tensor from a GPU, whose copies are pinned."""
        return tensor.clone() if self._is_asynchronous else tensor

    def _of_each(self, c: Coefficients) -> list[Coefficients]:
        """Coefficients of each run."""
        held = {name: self._pageable(x) for name, x in vars(c).items() if x is not None}
        parts = (x.unbind() for x in held.values())
        return [
            Coefficients(**dict(zip(held, of_run, strict=True)))
            for of_run in zip(*parts, strict=True)
        ]

    def terms(self, modality: int, c: Coefficients) -> Terms:
        """Coefficients of the decomposition (11) of a modality, by symbol."""
        return decomposition.terms(c, self._norms[modality])


@dataclass(frozen=True)
class _Evaluation:
    """Embeddings of an epoch; from a GPU as asynchronous copies, complete after `copied`."""

    epoch: int
    fitted: Tensor
    test: Tensor
    copied: _CopyEvent | None


class _CopyEvent:
    """A CUDA event after all copies to the host that were issued before it was made."""

    def __init__(self) -> None:
        self._event = torch.cuda.Event()
        self._event.record()

    def wait(self) -> None:
        """Wait for the copies."""
        self._event.synchronize()


def _is_asynchronous(device: torch.device) -> bool:
    """Whether the device may still compute when a call returns."""
    return device.type == "cuda"


def _copy_to_host(tensor: Tensor) -> Tensor:
    """The tensor on the CPU; from a GPU an asynchronous copy, valid after a later `_CopyEvent`."""
    return tensor.to("cpu", non_blocking=True)


def _copies_on_host(modalities: tuple[Coefficients, ...]) -> tuple[Coefficients, ...]:
    return tuple(c.mapped(_copy_to_host) for c in modalities)


def _on_cpu(modalities: tuple[Coefficients, ...]) -> tuple[Coefficients, ...]:
    return tuple(c.mapped(Tensor.cpu) for c in modalities)


def _concatenated(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(parts)) if len(parts) > 1 else parts[0]


def _divergence_epochs(loss: Tensor) -> dict[int, int]:
    """First epoch whose loss is not finite, of the runs [R, epochs + 1] that have one."""
    not_finite = ~loss.isfinite()
    first = not_finite.int().argmax(1).tolist()  # the first of equal values
    return {r: first[r] for r in not_finite.any(1).nonzero().flatten().tolist()}


def _copy_common(curve: Tensor, stored: Tensor) -> None:
    """Copy the epochs that both have; a checkpoint may be of a run of fewer or more epochs."""
    stop = min(curve.shape[1], stored.shape[1])
    curve[:, :stop] = stored[:, :stop]


def _due(epoch: int, every: int, last: int) -> bool:
    return every > 0 and (epoch % every == 0 or epoch == last)


__all__ = ["CURVES", "Recorder"]
