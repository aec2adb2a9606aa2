"""Encoders of ColoredMNIST and the linear maps on top, with weights from the project's stream."""

from __future__ import annotations

import itertools
import math
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from mmcl_fast.data.stream.generate import words
from mmcl_fast.experiments.table1.protocol import Table1Config

CHANNELS = (32, 64, 128)
WIDTH = 128
Module = TypeVar("Module", bound=nn.Module)


class ConvEncoder(nn.Sequential):
    """Images [B, 3, S, S] to features [B, 128]: three 3 x 3 convolutions of stride 2, a linear map.

    Each convolution is followed by batch normalisation and a ReLU, the linear map by a ReLU.

    Args:
        side: Pixels S along a side.
    """

    def __init__(self, side: int) -> None:
        layers: list[nn.Module] = []
        before = 3
        for after in CHANNELS:
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1)]
            layers += [nn.BatchNorm2d(after), nn.ReLU()]
            before, side = after, math.ceil(side / 2)
        super().__init__(*layers, nn.Flatten(), nn.Linear(before * side * side, WIDTH), nn.ReLU())
        self.width = WIDTH


class DenseEncoder(nn.Sequential):
    """Images [B, 3, S, S] to features [B, hidden] by two layers with ReLU.

    Args:
        side: Pixels S along a side.
        hidden: Width of both layers.
    """

    def __init__(self, side: int, hidden: int) -> None:
        super().__init__(
            *(nn.Flatten(), nn.Linear(3 * side * side, hidden), nn.ReLU()),
            *(nn.Linear(hidden, hidden), nn.ReLU()),
        )
        self.width = hidden


Encoder = ConvEncoder | DenseEncoder


def make_encoder(cfg: Table1Config, seed: int, device: torch.device) -> Encoder:
    """The encoder of a run at its start; equal for every arm of a seed."""
    with torch.device("meta"):
        encoder: Encoder = (
            ConvEncoder(cfg.side) if cfg.encoder == "cnn" else DenseEncoder(cfg.side, cfg.hidden)
        )
    encoder = initialise(encoder, seed, "init").to(device)
    # On a CPU a training step of the CNN takes less time in this layout: `python -m
    # bench.cpu.choices`.
    for parameter in encoder.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return encoder


def make_head(sizes: tuple[int, ...], seed: int, device: torch.device) -> nn.Sequential:
    """Linear maps between `sizes`, ReLU between them, at their start."""
    with torch.device("meta"):
        layers: list[nn.Module] = [nn.Linear(sizes[0], sizes[1])]
        for before, after in itertools.pairwise(sizes[1:]):
            layers += [nn.ReLU(), nn.Linear(before, after)]
        head = nn.Sequential(*layers)
    return initialise(head, seed, "init_b").to(device)


def initialise(module: Module, seed: int, stream: str) -> Module:
    """Fill a module made on the meta device, on the CPU; torch's global generator is not used.

    Weights and biases are uniform in +-1 / sqrt(inputs of a unit), the law of torch's own layers:
    entry j of parameter k, counted in order, is `words` at [0, k, j] of the stream.
    """
    module.to_empty(device="cpu")
    index = 0
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_parameters()
        elif isinstance(layer, nn.Conv2d | nn.Linear):
            bound = 1.0 / math.sqrt(layer.weight[0].numel())
            for parameter in layer.parameters():
                with torch.no_grad():
                    parameter.copy_(_uniform(seed, stream, index, parameter.shape, bound))
                index += 1
    return module


def _uniform(seed: int, stream: str, index: int, shape: torch.Size, bound: float) -> Tensor:
    word = words(seed, stream, (1, 1, shape.numel()), start=(0, index, 0))
    unit = (word.reshape(shape).astype(np.float64) + 0.5) * 2.0**-32
    return torch.from_numpy((2.0 * unit - 1.0) * bound).to(torch.float32)


__all__ = ["ConvEncoder", "DenseEncoder", "Encoder", "initialise", "make_encoder", "make_head"]
