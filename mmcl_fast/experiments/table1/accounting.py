"""Which images and which classes an accuracy counts; percent right under each accounting.

ten classes               all images, the class of the largest score
ten classes, tied         images labelled 0 or 1, the class of the largest score
0 against 1               images labelled 0 or 1, the larger of the scores of 0 and 1
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor


def tied_name(name: str) -> str:
    """Key of a set's accuracy in ten classes on the images labelled 0 or 1."""
    return f"{name}_tied"


def zero_one_name(name: str) -> str:
    """Key of a set's accuracy 0 against 1."""
    return f"{name}_0_vs_1"


def percent_right(
    predicted: Mapping[str, Tensor], labels_of: Mapping[str, Tensor]
) -> dict[str, float]:
    """Accuracy in percent on each set; predictions for its first images alone count those."""
    return {
        name: 100.0 * (classes == labels_of[name][: len(classes)]).double().mean().item()
        for name, classes in predicted.items()
    }


def percent_right_on_tied(
    predicted: Mapping[str, Tensor], labels_of: Mapping[str, Tensor]
) -> dict[str, float]:
    """The same for the images labelled 0 or 1 alone, by `tied_name`."""
    return _on_first_two(predicted, labels_of, tied_name)


def percent_right_0_vs_1(
    scores: Mapping[str, Tensor], labels_of: Mapping[str, Tensor]
) -> dict[str, float]:
    """Accuracy 0 against 1 in percent, by `zero_one_name`.

    Args:
        scores: Of the classes, [n, 2] or more columns, by set; columns beyond 1 are not looked at.
        labels_of: Labels [n], by set.
    """
    predicted = {name: values[:, :2].argmax(1) for name, values in scores.items()}
    return _on_first_two(predicted, labels_of, zero_one_name)


def _on_first_two(
    predicted: Mapping[str, Tensor],
    labels_of: Mapping[str, Tensor],
    rename: Callable[[str], str],
) -> dict[str, float]:
    percents: dict[str, float] = {}
    for name, classes in predicted.items():
        labels = labels_of[name][: len(classes)]
        counted, key = labels < 2, rename(name)
        percents |= percent_right({key: classes[counted]}, {key: labels[counted]})
    return percents


__all__ = [
    "percent_right",
    "percent_right_0_vs_1",
    "percent_right_on_tied",
    "tied_name",
    "zero_one_name",
]
