"""ColoredMNIST as a seeded generator: label and colour of image i are a pure function of i.

Words of stream `colored_mnist` at [part, image, dim]; part 0 is the file of training images, part 1
that of test images, so a subset, a chunk or another order never changes a draw.

    dim 0, 1      is the label replaced; by which
    dim 2, 3      is the colour replaced; by which     (training and ID test images)
    dim 4, 5      the same for the Rand test set       (only dim 5 is used)
    dim 6, 7      the same for the Rev test set
    dim 8         priority of a training image: a subset is the images of least priority

The three test sets show the same images with the same labels; they differ in colour only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mmcl_fast.data.mnist.colour_rule import PALETTES, ColourRule
from mmcl_fast.data.stream.generate import words

STREAM = "colored_mnist"
Kind = Literal["train", "id", "rand", "rev"]
Part = Literal["train", "test"]
PARTS: dict[Part, int] = {"train": 0, "test": 1}
COLOUR_DIM: dict[Kind, int] = {"train": 2, "id": 2, "rand": 4, "rev": 6}
PRIORITY_DIM = 8
CLASSES = 10
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ColouredDigits:
    """Tinted digits; images are computed on request.

    Attributes:
        grey: Untinted images, uint8 [n, S, S].
        digits: True classes, int64 [n].
        labels: Labels with label noise, int64 [n].
        colours: Index of the colour, int64 [n].
        palette: Red, green, blue in [0, 1], float32 [10, 3].
    """

    grey: Tensor
    digits: Tensor
    labels: Tensor
    colours: Tensor
    palette: Tensor

    def __len__(self) -> int:
        return len(self.grey)

    def images(self, index: Tensor | slice = slice(None)) -> Tensor:
        """Images [k, 3, S, S] float32 in [0, 1]: grey value / 255 times the colour."""
        tint = self.palette[self.colours[index]][:, :, None, None]  # [k, 3, 1, 1]
        return self.grey[index].unsqueeze(1).to(torch.float32).div(255.0) * tint

    def to(self, device: torch.device) -> ColouredDigits:
        """A copy on a device."""
        return ColouredDigits(**{name: tensor.to(device) for name, tensor in vars(self).items()})


def coloured_digits(
    grey: npt.NDArray[np.uint8],
    digits: npt.NDArray[np.uint8],
    kind: Kind,
    *,
    rule: ColourRule,
    seed: int,
    part: Part,
    index: Integers | None = None,
) -> ColouredDigits:
    """Tint images of one of the files.

    Args:
        grey: All images of the file, uint8 [N, S, S].
        digits: True classes, [N].
        kind: "train" and "id": the rule; "rand": uniform colours; "rev": the reversed rule.
        rule: The distribution.
        seed: Key of the stream, 0 .. 2^64 - 1.
        part: The file; equal indices in different files have different draws.
        index: Indices of the images, in order; None: all.

    Returns: The tinted digits, on the CPU.
    """
    index = np.arange(len(grey)) if index is None else index
    shown = digits[index].astype(np.int64)
    labels, colours = draw(shown, kind, rule=rule, seed=seed, part=part, index=index)
    return ColouredDigits(
        grey=torch.from_numpy(np.ascontiguousarray(grey[index])),
        digits=torch.from_numpy(shown),
        labels=torch.from_numpy(labels),
        colours=torch.from_numpy(colours),
        palette=torch.tensor(PALETTES[rule.palette], dtype=torch.float32),
    )


def draw(
    digits: Integers, kind: Kind, *, rule: ColourRule, seed: int, part: Part, index: Integers
) -> tuple[Integers, Integers]:
    """Labels and colours [n] of the images at `index` of a file, of true classes `digits`."""
    if len(index) == 0:
        return digits.copy(), digits.copy()
    first, last = int(index.min()), int(index.max())
    box = (1, last - first + 1, PRIORITY_DIM)
    drawn = words(seed, STREAM, box, start=(PARTS[part], first, 0))[0][index - first]
    labels = _replaced(digits, drawn[:, 0], drawn[:, 1], rule.label_noise, rule.noise_to)
    flag, which = drawn[:, COLOUR_DIM[kind]], drawn[:, COLOUR_DIM[kind] + 1]
    uniform = _below(which, CLASSES)
    if kind == "rand":
        return labels, uniform
    base = labels if rule.colour_from == "label" else digits
    expected = partners(base, rule.reversal) if kind == "rev" else base
    colours = _replaced(expected, flag, which, rule.colour_noise, rule.colour_to)
    if rule.tied == "first_two":
        colours = np.where(base < 2, colours, uniform)
    return labels, colours


def subset(image_count: int, count: int, *, seed: int) -> Integers:
    """Indices of `count` of the training images, ascending; smaller subsets are nested in larger.

    Args:
        image_count: Images in the file.
        count: Images of the subset, 0 .. image_count.
        seed: Key of the stream.
    """
    priority = words(seed, STREAM, (1, image_count, 1), start=(PARTS["train"], 0, PRIORITY_DIM))
    order = np.argsort(priority[0, :, 0], kind="stable")  # ties to the smaller index
    return np.sort(order[:count])


def partners(classes: Integers, reversal: str) -> Integers:
    """The class whose colour a class gets on the reversed test set, of each of `classes`."""
    if reversal == "pair":
        return classes ^ 1
    return 9 - classes if reversal == "mirror" else (classes + 1) % CLASSES


def _below(word: npt.NDArray[np.uint32], count: int) -> Integers:
    """An integer below `count` from a word; no value is likelier by more than 2^-32."""
    return (word.astype(np.uint64) * np.uint64(count) >> np.uint64(32)).astype(np.int64)


def _replaced(
    values: Integers,
    flag: npt.NDArray[np.uint32],
    which: npt.NDArray[np.uint32],
    probability: float,
    to: str,
) -> Integers:
    """Values, each with the probability (to 2^-33) replaced by another class, or by any."""
    is_replaced = flag.astype(np.uint64) < np.uint64(round(probability * 2**32))
    if to == "any":
        return np.where(is_replaced, _below(which, CLASSES), values)
    return np.where(is_replaced, (values + 1 + _below(which, CLASSES - 1)) % CLASSES, values)


__all__ = ["ColouredDigits", "coloured_digits", "draw", "partners", "subset"]
