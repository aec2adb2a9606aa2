"""SimCLR's views for batches of RGB images, on the images' device, without torchvision.

T. Chen, S. Kornblith, M. Norouzi, G. Hinton, "A simple framework for contrastive learning of visual
representations", ICML 2020, appendix A: random resized crop, flip, colour jitter, grey. The jitter
follows torchvision's formulas (brightness, contrast, saturation, hue; values clamped to [0, 1] as
it does), always in this order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmcl_fast.data.stream.generate import words
from mmcl_fast.experiments.table1.protocol import Views

ASPECT = 4.0 / 3.0  # of a crop: width / height between 3/4 and 4/3
JITTER_CHANCE = 0.8
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in torchvision
COLUMNS = 11  # uniform draws per view


@dataclass(frozen=True)
class ViewDraws:
    """Random choices of n views; float32 tensors on one device.

    Attributes:
        boxes: Top, left, height, width of the crop in pixels of the image, [n, 4].
        flips: 1 where flipped, [n].
        factors: Brightness, contrast, saturation (1: none) and turns of hue (0: none), [n, 4].
        greys: 1 where grey, [n].
    """

    boxes: Tensor
    flips: Tensor
    factors: Tensor
    greys: Tensor

    def __getitem__(self, index: Tensor) -> ViewDraws:
        return ViewDraws(**{name: tensor[index] for name, tensor in vars(self).items()})


def draw_views(
    rule: Views, count: int, side: int, *, seed: int, epoch: int, view: int, device: torch.device
) -> ViewDraws:
    """The choices for images 0 .. count - 1 in an epoch: a function of (seed, epoch, view, image).

    Args:
        rule: Which augmentations, how strong.
        count: Images.
        side: Pixels along a side.
        seed: Key of stream `augment`.
        epoch: Counted from 0.
        view: 0 or 1.
        device: Where the views will be made.
    """
    word = words(seed, "augment", (1, count, COLUMNS), start=(1 + view, 0, 0), epoch=epoch)[0]
    u = (word.astype(np.float64) + 0.5) * 2.0**-32  # [count, COLUMNS]
    area = rule.min_area + (1.0 - rule.min_area) * u[:, 0]
    # Log-uniform aspect; with the whole area the box is the image itself.
    aspect = np.exp((2.0 * u[:, 1] - 1.0) * math.log(ASPECT)) if rule.min_area < 1.0 else 1.0
    height = np.minimum(side * np.sqrt(area / aspect), side)
    width = np.minimum(side * np.sqrt(area * aspect), side)
    boxes = np.stack(((side - height) * u[:, 2], (side - width) * u[:, 3], height, width), axis=1)
    spread = np.array((0.8, 0.8, 0.8, 0.2)) * rule.jitter
    centre = np.array((1.0, 1.0, 1.0, 0.0))
    jittered = (u[:, 6:7] < JITTER_CHANCE) * (2.0 * u[:, 7:11] - 1.0) * spread
    arrays = (boxes, u[:, 4] < rule.flip, centre + jittered, u[:, 5] < rule.grey)
    return ViewDraws(*(torch.from_numpy(a.astype(np.float32)).to(device) for a in arrays))


def make_views(images: Tensor, draws: ViewDraws, rule: Views) -> Tensor:
    """One view of each image.

    Args:
        images: [B, 3, S, S] floating, in [0, 1].
        draws: The choices for these B images.
        rule: As given to `draw_views`; augmentations that are off are skipped.

    Returns: [B, 3, S, S] in [0, 1] to rounding, of the images' dtype and device.
    """
    seen = crop(images, draws.boxes) if rule.min_area < 1.0 else images
    if rule.flip > 0.0:
        seen = torch.where(draws.flips[:, None, None, None] > 0, seen.flip(3), seen)
    if rule.jitter > 0.0:
        seen = jitter(seen, draws.factors)
    if rule.grey > 0.0:
        luma = grey_of(seen).expand_as(seen)
        seen = torch.where(draws.greys[:, None, None, None] > 0, luma, seen)
    return seen


def crop(images: Tensor, boxes: Tensor) -> Tensor:
    """Crops resized to the whole image, bilinear between pixel centres, edges repeated.

    Args:
        images: [B, C, S, S].
        boxes: Top, left, height, width in pixels, [B, 4].

    Returns: [B, C, S, S]. The box (0, 0, S, S) gives the image itself, bit for bit.
    """
    side = images.shape[-1]
    rows = _interpolation(boxes[:, 0], boxes[:, 2], side)  # [B, S, S]
    columns = _interpolation(boxes[:, 1], boxes[:, 3], side)
    return rows.unsqueeze(1) @ images @ columns.mT.unsqueeze(1)


def _interpolation(start: Tensor, length: Tensor, side: int) -> Tensor:
    """Weights [B, S, S] of the S pixels of a line in each of the S pixels of its crop."""
    pixel = torch.arange(side, device=start.device, dtype=start.dtype)
    # Pixel k covers k .. k + 1, so its centre lies at k + 1/2.
    source = start[:, None] + (pixel + 0.5) * (length[:, None] / side) - 0.5
    source = source.clamp(0.0, side - 1.0)
    return (1.0 - (source[:, :, None] - pixel).abs()).clamp_min(0.0)


def jitter(images: Tensor, factors: Tensor) -> Tensor:
    """Brightness, contrast, saturation and hue of [B, 3, S, S] changed by `factors` [B, 4]."""
    brightness, contrast, saturation, hue = factors[:, :, None, None, None].unbind(1)
    seen = (images * brightness).clamp(0.0, 1.0)
    mean = grey_of(seen).mean((2, 3), keepdim=True)
    seen = (mean + contrast * (seen - mean)).clamp(0.0, 1.0)
    luma = grey_of(seen)
    seen = (luma + saturation * (seen - luma)).clamp(0.0, 1.0)
    return turn_hue(seen, hue)


def grey_of(images: Tensor) -> Tensor:
    """Luma [B, 1, S, S] of RGB images."""
    red, green, blue = images.unbind(1)
    return (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue).unsqueeze(1)


def turn_hue(images: Tensor, turns: Tensor) -> Tensor:
    """HSV hue moved by `turns` (1: once around) of RGB images [B, 3, S, S]; value, chroma stay."""
    red, green, blue = images.unbind(1)
    largest, smallest = images.amax(1), images.amin(1)
    chroma = largest - smallest
    unit = torch.where(chroma > 0, chroma, 1.0)  # grey pixels have chroma 0 and any hue
    sixth = torch.where(
        largest == red,
        (green - blue) / unit,
        torch.where(largest == green, 2.0 + (blue - red) / unit, 4.0 + (red - green) / unit),
    )
    sixth = sixth.unsqueeze(1) + 6.0 * turns  # [B, 1, S, S]
    # A channel is 1 within one sixth of its centre hue and 0 beyond two (Smith, SIGGRAPH 1978).
    centres = torch.tensor((0.0, 2.0, 4.0), device=images.device, dtype=images.dtype)
    away = (torch.remainder(sixth - centres[:, None, None] + 3.0, 6.0) - 3.0).abs()
    share = (2.0 - away).clamp(0.0, 1.0)
    return smallest.unsqueeze(1) + chroma.unsqueeze(1) * share


__all__ = ["ViewDraws", "crop", "draw_views", "grey_of", "jitter", "make_views", "turn_hue"]
