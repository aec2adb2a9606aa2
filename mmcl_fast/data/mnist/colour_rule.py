"""`ColourRule`: how ColoredMNIST draws labels and colours; free of torch and NumPy.

Huang et al. (NeurIPS 2024, section 6) leave several choices open; each is an option here.
`docs/table1.md` says which one we take and what the others give.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args, get_type_hints

from mmcl_fast.errors import ConfigError

Tied = Literal["all", "first_two"]
Reversal = Literal["pair", "mirror", "next"]
Palette = Literal["named", "hues"]
# Red, green, blue of class 0 .. 9, in [0, 1].
PALETTES: MappingProxyType[str, tuple[tuple[float, float, float], ...]] = MappingProxyType(
    {
        # red, green, blue, yellow, magenta, cyan, orange, violet, grey, brown
        "named": (
            (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 1.0, 0.0), (1.0, 0.0, 1.0),
            (0.0, 1.0, 1.0), (1.0, 0.5, 0.0), (0.5, 0.0, 1.0), (0.6, 0.6, 0.6), (0.5, 0.25, 0.1),
        ),
        # Saturated hues, 36 degrees apart.
        "hues": (
            (1.0, 0.0, 0.0), (1.0, 0.6, 0.0), (0.8, 1.0, 0.0), (0.2, 1.0, 0.0), (0.0, 1.0, 0.4),
            (0.0, 1.0, 1.0), (0.0, 0.4, 1.0), (0.2, 0.0, 1.0), (0.8, 0.0, 1.0), (1.0, 0.0, 0.6),
        ),
    }
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ColourRule:
    """The distribution of labels and colours. Raises: ConfigError: A value is out of its range."""

    tied: Tied = "all"
    """Classes with a colour of their own: all ten (class k has colour k), or the first two only."""
    colour_from: Literal["label", "digit"] = "label"
    """What the colour is drawn from: the noisy label, or the true digit."""
    reversal: Reversal = "pair"
    """Reversed test colour of class k: that of k XOR 1, of 9 - k, or of k + 1 (9: of 0)."""
    label_noise: float = 0.1
    """Probability that a label is replaced (paper: 0.1). 0 to 1."""
    noise_to: Literal["other", "any"] = "other"
    """A replaced label is one of the 9 others, or any of the 10 classes."""
    colour_noise: float = 0.225
    """Probability that a class does not get its colour (paper: 0.225). 0 to 1."""
    colour_to: Literal["other", "any"] = "other"
    """It then gets one of the 9 other colours, or any of the 10."""
    palette: Palette = "named"
    """The ten colours: named ones, or hues 36 degrees apart."""

    def __post_init__(self) -> None:
        check_choices(self)
        for name in ("label_noise", "colour_noise"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise ConfigError(f"{name}: expected a number in [0, 1], got {value!r}")
        if self.tied == "first_two" and self.reversal != "pair":
            raise ConfigError(
                f"reversal: expected pair with tied first_two (only two colours can be exchanged), "
                f"got {self.reversal!r}"
            )


def check_choices(settings: object) -> None:
    """Raise ConfigError unless every field that names one of several words holds one of them."""
    for name, hint in get_type_hints(type(settings)).items():
        choices = get_args(hint)
        value = getattr(settings, name)
        if choices and all(isinstance(c, str) for c in choices) and value not in choices:
            raise ConfigError(f"{name}: expected one of {', '.join(choices)}, got {value!r}")


__all__ = ["PALETTES", "ColourRule", "check_choices"]
