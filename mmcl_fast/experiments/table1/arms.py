"""The arms of the table, one class per training objective, and their training loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize, one_hot

from mmcl_fast.data.mnist.colored_mnist import CLASSES, ColouredDigits
from mmcl_fast.data.stream.generate import words
from mmcl_fast.experiments.table1.encoders import Encoder, make_encoder, make_head
from mmcl_fast.experiments.table1.protocol import FULL_VIEWS, ArmName, Table1Config, Views
from mmcl_fast.experiments.table1.views import ViewDraws, draw_views, make_views
from mmcl_fast.losses import info_nce, nt_xent

PROJECTION = 64  # outputs of SimCLR's projection head


class Arm(ABC):
    """A training objective for the encoder.

    Attributes:
        encoder: Images to features.
        head: Module on top of the encoder during training.
    """

    sizes: tuple[int, ...]

    def __init__(self, cfg: Table1Config, data: ColouredDigits, seed: int) -> None:
        self.cfg, self.data, self.seed = cfg, data, seed
        self.device = data.grey.device
        self.encoder: Encoder = make_encoder(cfg, seed, self.device)
        self.head: nn.Sequential = make_head((self.encoder.width, *self.sizes), seed, self.device)

    def start_epoch(self, epoch: int) -> None:
        """Draw the random choices of an epoch."""
        del epoch

    @abstractmethod
    def loss(self, index: Tensor) -> Tensor:
        """The loss on the training images at `index` [B]."""

    def scores(self, features: Tensor) -> Tensor | None:
        """Scores [n, 10] of the digits if the arm itself says a class, else None."""
        del features
        return None

    def _outputs(self, index: Tensor) -> Tensor:
        return self.head(self.encoder(self.data.images(index)))  # type: ignore[no-any-return]

    def _caption_digits(self) -> Tensor:
        return self.data.labels if self.cfg.caption == "label" else self.data.digits


class MultiModal(Arm):
    """Images against captions [one-hot colour, one-hot digit], both of length 1, by InfoNCE.

    The caption encoder is the paper's ideal one: fixed. Zero-shot: the digit of the best caption.
    As a caption is the sum of its two parts, that is the digit entry with the largest score.
    """

    sizes = (2 * CLASSES,)

    def loss(self, index: Tensor) -> Tensor:
        """Both directions, all other pairs of the batch as negatives."""
        colours, digits = self.data.colours[index], self._caption_digits()[index]
        parts = (one_hot(colours, CLASSES), one_hot(digits, CLASSES))
        ignored = self.cfg.same_caption == "ignored"
        return info_nce(
            normalize(self._outputs(index)),
            normalize(torch.cat(parts, dim=1).to(torch.float32)),
            temperature=self.cfg.multi_temperature,
            symmetric=True,
            labels=colours * CLASSES + digits if ignored else None,
            negatives="other_label" if ignored else "all",
        )

    def scores(self, features: Tensor) -> Tensor:
        """The digit entries of the embedding."""
        return self.head(features)[:, CLASSES:]  # type: ignore[no-any-return]


class TwoHead(MultiModal):
    """Cross-entropy of a colour head and a digit head on one encoder.

    It stands in for contrastive learning with an ideal caption encoder in equation (10) of
    arXiv 2403.11497, the experiment that the paper follows.
    """

    def loss(self, index: Tensor) -> Tensor:
        """The sum of both cross-entropies."""
        outputs = self._outputs(index)
        return cross_entropy(outputs[:, :CLASSES], self.data.colours[index]) + cross_entropy(
            outputs[:, CLASSES:], self._caption_digits()[index]
        )


class Supervised(Arm):
    """Cross-entropy with the noisy labels: empirical risk minimisation, as a control."""

    sizes = (CLASSES,)

    def loss(self, index: Tensor) -> Tensor:
        """Cross-entropy."""
        return cross_entropy(self._outputs(index), self.data.labels[index])

    def scores(self, features: Tensor) -> Tensor:
        """The logits."""
        return self.head(features)  # type: ignore[no-any-return]


class SingleModal(Arm):
    """SimCLR: NT-Xent between two views of an image; labels and captions are not seen."""

    def __init__(self, cfg: Table1Config, data: ColouredDigits, seed: int, rule: Views) -> None:
        width = 128 if cfg.encoder == "cnn" else cfg.hidden
        self.sizes = (width, PROJECTION)
        super().__init__(cfg, data, seed)
        self._rule = rule
        self._draws: tuple[ViewDraws, ...] = ()

    def start_epoch(self, epoch: int) -> None:
        """New views of every image."""
        self._draws = tuple(
            draw_views(
                self._rule,
                len(self.data),
                self.data.grey.shape[-1],
                seed=self.seed,
                epoch=epoch,
                view=view,
                device=self.device,
            )
            for view in (0, 1)
        )

    def loss(self, index: Tensor) -> Tensor:
        """NT-Xent of two views of each image."""
        images = self.data.images(index)
        views = [make_views(images, draws[index], self._rule) for draws in self._draws]
        first, second = normalize(self.head(self.encoder(torch.cat(views)))).chunk(2)
        return nt_xent(first, second, temperature=self.cfg.single_temperature)


def make_arm(name: ArmName, cfg: Table1Config, data: ColouredDigits, seed: int) -> Arm:
    """An arm at its start.

    Args:
        name: Which one.
        cfg: Settings.
        data: Training images, on the device to train on.
        seed: Key of weights, minibatches and views.
    """
    if name in ("single", "single_full"):
        return SingleModal(cfg, data, seed, cfg.views if name == "single" else FULL_VIEWS)
    kinds = {"multi": MultiModal, "two_head": TwoHead, "supervised": Supervised}
    return kinds[name](cfg, data, seed)


def train_arm(arm: Arm, on_step: Callable[[], None]) -> None:
    """Adam over minibatches, in an order drawn anew each epoch; in place.

    Args:
        arm: What to train.
        on_step: Called after each step; an exception of it ends the training.
    """
    cfg = arm.cfg
    parameters = [*arm.encoder.parameters(), *arm.head.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=cfg.learning_rate)
    arm.encoder.train()
    for epoch in range(cfg.epochs):
        arm.start_epoch(epoch)
        for index in minibatches(len(arm.data), cfg.batch, seed=arm.seed, epoch=epoch):
            optimizer.zero_grad()
            arm.loss(index.to(arm.device)).backward()
            optimizer.step()
            on_step()
    arm.encoder.eval()


def minibatches(count: int, size: int, *, seed: int, epoch: int, run: int = 0) -> Iterator[Tensor]:
    """Index tensors [size] of an epoch; a last short batch is dropped.

    Args:
        count: Images.
        size: Of a minibatch, at most `count`.
        seed: Key of stream `minibatch`.
        epoch: Counted from 0.
        run: Place in the stream; 0: training of an arm, 1: the short probe.
    """
    key = words(seed, "minibatch", (1, 1, count), start=(run, 0, 0), epoch=epoch)[0, 0]
    order = torch.from_numpy(np.argsort(key, kind="stable"))  # ties to the smaller index
    return iter(order[: count // size * size].split(size))


__all__ = ["Arm", "make_arm", "minibatches", "train_arm"]
