"""Exact training of model variants in coefficient space, batched over runs.

As in `engines.gram`, pre-activations are `Z(t) = a(t) Z(0) + A(t) K`. What differs is which vectors
are columns (`layout`) and the loss's gradient with respect to features (`contrastive`, `logistic`);
`docs/mathematics.md` has the argument why the span of the columns is not left. With optimizer sgd
a step computes the pre-activations of its minibatch alone.

Numerics: arithmetic of the config's dtype; a run's bits do not depend on its batch (see
`engines.alignment` and `paper_loss.full_scores`), with any of the options.
Cost of a step per run, in columns c and pre-activations v a neuron (`Layout`): 2 m c v flop and
those of the loss, with orthogonal data O(m v) in place of 2 m c v (`orthogonal`); memory:
`engines.memory_bytes`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmcl_fast.data.signal_noise.synthetic import draw_augmented
from mmcl_fast.engines.optimizers import LinearDescent
from mmcl_fast.engines.paper_loss.full_scores import Workspace
from mmcl_fast.engines.protocol import Coefficients, Embeddings, EngineSpec
from mmcl_fast.engines.variants.columns import SpanVectors, held
from mmcl_fast.engines.variants.contrastive import ContrastiveLoss
from mmcl_fast.engines.variants.features import FeatureMaker, SampleFeatures
from mmcl_fast.engines.variants.layout import Layout
from mmcl_fast.engines.variants.logistic import logistic_loss
from mmcl_fast.engines.variants.loss_gradient import LossGradient
from mmcl_fast.engines.variants.modality import Modality, Preactivations
from mmcl_fast.engines.variants.ood import OodEmbeddings, embed
from mmcl_fast.engines.variants.samples import StepSamples, TrainingSamples
from mmcl_fast.engines.variants.temperature import Temperature


class VariantGramEngine:
    """See the module's documentation and `protocol.Engine`."""

    def __init__(self, spec: EngineSpec) -> None:
        self._spec, self._cfg = spec, spec.cfg
        cfg, workspace = self._cfg, Workspace()
        self._layout = layout = Layout.of(cfg)
        views = held(spec, "augmented") if layout.has_views else None
        self._modalities = [
            Modality(
                SpanVectors.of(spec, layout, suffix),
                views,
                cfg.q,
                picks_samples=cfg.optimizer == "sgd",
                # Minibatches and fresh views read rows and columns of all products.
                is_orthogonal=cfg.data == "orthogonal"
                and cfg.optimizer != "sgd"
                and cfg.augment == "fixed",
            )
            for suffix in cfg.suffixes
        ]
        like = self._modalities[0].z
        self._samples = TrainingSamples(spec, layout)
        self._features = FeatureMaker(
            layout, cfg.q, workspace, is_cosine=cfg.similarity == "cosine"
        )
        self._loss = ContrastiveLoss(cfg, layout, like, workspace)
        self._temperature = Temperature(cfg, len(spec.configs), like)
        self._ood = OodEmbeddings(spec, self._modalities[0], decayed=self._decays)
        # Without weight decay a stays 1 and is no parameter.
        self._descent = LinearDescent(
            cfg,
            [v.padded_coefficients for v in self._modalities]
            + [v.initial_scale for v in self._modalities if self._decays],
        )
        self._view_epoch = 0

    @torch.inference_mode()  # saves a seventh of a single run's time: autograd records nothing
    def train_epoch(self, epoch: int) -> Tensor:
        """See `Engine.train_epoch`."""
        self._renew_views(epoch)
        if self._cfg.optimizer == "sgd":
            loss, _ = self._evaluate_all(epoch, want_gradient=False)
            for samples in self._samples.minibatches(epoch):
                self._step_on(samples)
        else:
            loss, gradient = self._evaluate_all(epoch, want_gradient=True)
            assert gradient is not None
            self._step(gradient, [v.of_all() for v in self._modalities], None)
        for v in self._modalities:
            v.update(decayed=self._decays)
        return loss

    @torch.inference_mode()
    def loss(self, epoch: int) -> Tensor:
        """See `Engine.loss`."""
        self._renew_views(epoch)
        return self._evaluate_all(epoch, want_gradient=False)[0]

    def temperature(self) -> Tensor:
        """See `LearnsTemperature.temperature`."""
        return self._temperature.values()

    def signal_and_noise(self) -> tuple[Tensor, Tensor]:
        """See `Engine.signal_and_noise`."""
        at = self._modalities[0].of_all()
        signals = at.codes[:, :, : self._layout.signal_codes]
        return signals.abs().amax((1, 2)), at.noise[:, : self._cfg.m, : self._cfg.n].amax((1, 2))

    def embeddings(self) -> Embeddings:
        """See `Engine.embeddings`."""
        cfg, at = self._cfg, self._modalities[0].of_all()
        codes = self._samples.all(0).codes[0]
        train = embed(at.noise, at.codes, codes, cfg.q)[:, : cfg.n, : cfg.m]
        return Embeddings(
            train.contiguous(),
            self._ood.of("test"),
            self._ood.of("probe") if cfg.probe_samples_value else None,
        )

    def coefficients(self) -> tuple[Coefficients, ...]:
        """See `Engine.coefficients`."""
        return tuple(v.coefficients() for v in self._modalities)

    def weights(self) -> None:
        """None: weights are not stored; they follow from the coefficients and the data."""
        return

    def state(self) -> dict[str, Tensor]:
        """See `Engine.state`; coefficients are padded to even sizes."""
        learned = self._temperature.log_inverse
        named = {} if learned is None else {"log_inverse_tau": learned}
        return self._descent.state() | named

    @torch.inference_mode()  # the engine's tensors may have been made in it
    def load_state(self, state: dict[str, Tensor]) -> None:
        """See `Engine.load_state`."""
        for name, x in self.state().items():
            x.copy_(state[name])
        for v in self._modalities:
            v.update(decayed=self._decays)

    @property
    def _decays(self) -> bool:
        return self._cfg.weight_decay > 0

    def _evaluate_all(
        self, epoch: int, *, want_gradient: bool
    ) -> tuple[Tensor, LossGradient | None]:
        at = [v.of_all() for v in self._modalities]
        return self._evaluate(at, self._samples.all(epoch), want_gradient=want_gradient)

    def _evaluate(
        self, at: Sequence[Preactivations], samples: StepSamples, *, want_gradient: bool
    ) -> tuple[Tensor, LossGradient | None]:
        """Loss of samples, [R], and its gradient, from their pre-activations."""
        sides = self._sides(at, samples)
        inverse_tau = self._temperature.inverse()
        if self._cfg.objective == "logistic":
            assert isinstance(inverse_tau, float)
            return logistic_loss(sides[0], samples, inverse_tau, want_gradient=want_gradient)
        return self._loss.evaluate(sides, samples, inverse_tau, want_gradient=want_gradient)

    def _sides(self, at: Sequence[Preactivations], samples: StepSamples) -> list[SampleFeatures]:
        """Features of the samples, and of their positives."""
        make, sides = self._features, []
        for name, x, codes in zip(self._cfg.modalities, at, samples.codes, strict=False):
            table = make.table(f"table_{name}", x.codes)
            sides.append(make.of(name, x.noise, codes, table))
            if x.views is not None:
                sides.append(make.of("view", x.views, samples.codes[1], table))
        return sides

    def _step_on(self, samples: StepSamples) -> None:
        """A step on a minibatch."""
        assert samples.indices is not None
        at = [v.of_samples(samples.indices, decayed=self._decays) for v in self._modalities]
        _, gradient = self._evaluate(at, samples, want_gradient=True)
        assert gradient is not None
        self._step(gradient, at, samples.indices)

    def _step(
        self, gradient: LossGradient, at: Sequence[Preactivations], indices: Tensor | None
    ) -> None:
        """A step of all parameters, given the gradient of a step's loss."""
        pairs = list(zip(self._modalities, gradient.modalities, at, strict=True))
        steps = [v.gradient(found, here, indices) for v, found, here in pairs]
        weight = gradient.weight
        if not isinstance(weight, float):
            for step in steps:
                step.mul_(weight)
            weight = 1.0
        if self._decays:
            steps += [torch.zeros_like(v.initial_scale) for v in self._modalities]
        self._descent.step(steps, weight)
        if gradient.log_inverse_tau is not None:
            self._temperature.step(gradient.log_inverse_tau)

    def _renew_views(self, epoch: int) -> None:
        if self._cfg.augment == "fixed" or epoch == self._view_epoch:
            return
        views = [
            draw_augmented(cfg, noise, epoch)
            for cfg, noise in zip(self._spec.configs, held(self._spec, "noise"), strict=True)
        ]
        self._modalities[0].replace_views(views, decayed=self._decays)
        self._view_epoch = epoch


__all__ = ["VariantGramEngine"]
