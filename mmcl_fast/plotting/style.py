"""One look for every picture: symbols, units, colours, dashes, markers, ticks and captions.

- A modality has a colour, a dash and a marker, the same in every picture, single before multi:
  single-modal blue, solid, circles; multi-modal orange, dashed, squares. Filled markers are the
  first quantity of a panel, open ones a second. Black is the theory.
- A mean has a band or bars of one sample standard deviation over seeds, and the caption says so.
- Accuracy has a dotted line at chance, 1/2 or 1/K.
- Settings of model variants are in the caption where they are not the paper's.
- Values in a geometric sequence have a logarithmic axis, with ticks where values are if few.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib import cbook
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.mathtext import MathTextParser
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    LogFormatterMathtext,
    LogLocator,
    NullFormatter,
    NullLocator,
)

from mmcl_fast.config_variants import DEFAULTS
from mmcl_fast.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

MODALITIES = ("single", "multi")
COLOURS = {"single": "#0072B2", "multi": "#D55E00"}  # Okabe and Ito (2008), safe for colour-blind
NAMES = {"single": "single-modal", "multi": "multi-modal"}
DASHES: dict[str, Any] = {"single": "-", "multi": (0, (5, 1.5))}
MARKERS = {"single": "o", "multi": "s"}
HATCHES = {"single": "", "multi": "///"}
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
MORE_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)))
MORE_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
MAP = "cividis"  # even in lightness, and the same to colour-blind eyes
STYLE: dict[RcKeyType, Any] = {
    "pdf.fonttype": 42,
    "mathtext.fontset": "dejavusans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
}
CAPTION = 7.5
LETTERS_AN_INCH = 15  # of a caption
# A setting as the paper writes it, with its unit where it has one.
SYMBOLS = {
    "n": "$n$",
    "d": "$d$",
    "d_b": r"$\tilde{d}$",
    "m": "$m$",
    "q": "$q$",
    "mu_norm": r"$\|\mu\|$",
    "mu_b_norm": r"$\|\tilde{\mu}\|$",
    "nu_norm": r"$\|\nu\|$",
    "sigma_xi": r"$\sigma_\xi$",
    "sigma_xi_b": r"$\sigma_{\tilde{\xi}}$",
    "sigma_eps": r"$\sigma_\epsilon$",
    "sigma_0": r"$\sigma_0$",
    "tau": r"$\tau$",
    "eta": r"$\eta$",
    "epochs": "epochs",
    "negatives_per_sample": "$M$",
    "snr": "SNR",
    "n_snr2": r"$n\,\mathrm{SNR}^2$",
    "c_mu": r"$C_\mu$",
    "nu_share": r"$\|\nu\|/\|\mu\|$",
    "spurious_share": r"spurious signal, $\|s\|/\|\mu\|$",
    "spurious_norm": r"$\|s\|$",
    "spurious_b_norm": r"$\|\tilde{s}\|$",
    "mu_c_norm": r"$\|\hat{\mu}\|$",
    "third_share": r"signal of the third modality, $\|\hat{\mu}\|/\|\mu\|$",
    "d_c": r"$\hat{d}$",
    "sigma_xi_c": r"$\sigma_{\hat{\xi}}$",
    "spurious_c_norm": r"$\|\hat{s}\|$",
    "spurious_correlation": "spurious correlation in training",
    "spurious_correlation_test": "spurious correlation in the test",
    "pair_noise": "share of mismatched pairs",
    "label_noise": "share of flipped labels",
    "classes": "$K$",
    "prior_exponent": "exponent of the prior",
    "eta_tau": r"$\eta_\tau$",
    "noise_rate": r"growth rate of noise, $\eta\sigma_\xi^2 d/(nm\tau)$ per epoch",
    "noise_start": r"initial noise activation, $\sigma_0\sigma_\xi\sqrt{d}$",
}
# What captions say of a run, in this order.
CAPTIONED = (
    *("n", "d", "m", "q", "n_snr2", "c_mu", "mu_norm", "mu_b_norm", "nu_norm"),
    *("sigma_0", "tau", "eta", "epochs"),
    *DEFAULTS,
)
SHORT = {"noise_rate": "noise rate", "noise_start": "noise start"}
MANY_TICKS = 7
LEAST_RATIO = 1.4  # between neighbours of a geometric sequence
WIDE = 20.0  # a positive axis wider than this is logarithmic, whatever its steps
FINE_TICKS = ((2.2, (1.0, 2.0, 5.0)), (4.2, (1.0, 3.0)))  # by decades of the axis


def read_style(path: Path) -> dict[str, Any]:
    """Settings of a matplotlib style file.

    Raises: ConfigError: the file cannot be read, or has a line that matplotlib does not know.
    """
    complaints: list[str] = []
    listener = logging.Handler()
    listener.emit = lambda record: complaints.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("matplotlib")
    logger.addHandler(listener)
    propagate, logger.propagate = logger.propagate, False
    try:
        found = mpl.rc_params_from_file(path, fail_on_error=True, use_default_template=False)
    except (OSError, ValueError) as error:
        complaints.append(str(error))
        found = mpl.RcParams()
    finally:
        logger.propagate = propagate
        logger.removeHandler(listener)
    if complaints:
        reason = complaints[0].strip().partition("\n")[0]
        raise ConfigError(f"style: expected a matplotlib style file, got {str(path)!r} ({reason})")
    return {str(name): value for name, value in found.items()}


def check_text(name: str, text: str) -> None:
    """Raise ConfigError where matplotlib cannot typeset a text, which may have formulas in $...$.

    Args:
        name: What the text is, for the message.
        text: The text.
    """
    for line in text.split("\n"):  # typeset one by one
        if not cbook.is_math_text(line):
            continue
        try:
            MathTextParser("path").parse(line)
        except ValueError as error:
            reason = str(error).strip().rpartition("\n")[2]
            raise ConfigError(
                f"{name}: expected text with formulas that matplotlib knows between dollar signs "
                f"(\\$ is a dollar), got {text!r} ({reason})"
            ) from error


def symbol(name: str) -> str:
    """A setting's name on an axis or in a legend."""
    return SYMBOLS.get(name, name)


def number(value: Any) -> str:
    """A value as captions and ticks print it: 0.001, 2000, 10^9 as a power."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return str(value)
    if value and (abs(value) >= 1e5 or abs(value) < 1e-3):
        exponent = math.floor(math.log10(abs(value)) + 1e-9)
        factor = value / 10.0**exponent
        lead = "" if math.isclose(factor, 1.0, rel_tol=1e-6) else rf"{factor:.3g}\cdot "
        return rf"${lead}10^{{{exponent}}}$"
    return f"{value:.4g}"


def settings_caption(settings: Mapping[str, Any], names: Iterable[str] = CAPTIONED) -> str:
    """What was held fixed, as `n = 100, d = 2000`.

    What is not set is left out, and what is as in the paper of the power q and of model variants.
    """
    usual = {"q": 1, **DEFAULTS}
    if {"n_snr2", "c_mu"} <= settings.keys():  # they say what the norms are
        names = [name for name in names if name not in ("mu_norm", "mu_b_norm")]
    parts = []
    for name in names:
        value = settings.get(name)
        if value is None or (name in usual and value == usual[name]):
            continue
        parts.append(f"{SHORT.get(name, symbol(name))} = {number(value)}")
    return ", ".join(parts)


def caption(figure: Figure, *lines: str) -> None:
    """Put what a band is, and what was held fixed, below a figure, in lines of its width."""
    most = LETTERS_AN_INCH * figure.get_figwidth()
    broken = [part for line in lines if line for part in _broken(line, most)]
    figure.supxlabel("\n".join(broken), fontsize=CAPTION)


def _broken(line: str, most: float) -> list[str]:
    """A line cut after commas and semicolons where it would be longer than `most` letters."""
    found = [""]
    for part in re.split(r"(?<=[,;]) ", line):
        longer = f"{found[-1]} {part}".strip()
        if found[-1] and len(re.sub(r"\\[a-z]+|[${}^_\\]", "", longer)) > most:
            found.append(part)
        else:
            found[-1] = longer
    return found


def seeds_text(count: int) -> str:
    """`mean ± 1 s.d. over 10 seeds`, or `1 seed`."""
    return f"mean ± 1 s.d. over {count} seeds" if count > 1 else "1 seed"


def mark_chance(axis: Axes, classes: int | None = None) -> None:
    """A dotted line at the accuracy of guessing among K classes, or two labels."""
    axis.axhline(1 / (classes or 2), color="0.4", lw=0.9, ls=":", zorder=1)


def accuracy_limits(*, below_half: bool) -> tuple[float, float]:
    """Ends of a scale of accuracies.

    Args:
        below_half: Whether runs may be below 1/2: of more than two classes, or with a spurious
            attribute, whose correlation the test reverses.
    """
    return (0.0 if below_half else 0.5, 1.0)


def look(modality: str, *, second: bool = False) -> dict[str, Any]:
    """Colour, dash and marker of a modality; open markers for a second quantity."""
    colour = COLOURS[modality]
    return {
        "color": colour,
        "ls": DASHES[modality],
        "marker": MARKERS[modality],
        "ms": 4,
        "mfc": "white" if second else colour,
        "mec": colour,
    }


def sparse(seen: Sequence[int] | np.ndarray) -> bool:
    """Whether a curve was evaluated at too few epochs for a line to be read as a curve."""
    return len(seen) < 4


def draw_curve(axis: Axes, seen: np.ndarray, mean: np.ndarray, style: Mapping[str, Any]) -> None:
    """A curve over epochs, with a marker where it was evaluated if that is not every epoch.

    Evaluated at two or three epochs it is points alone: a line between them would show a ramp that
    nobody measured.
    """
    chosen = dict(style)
    gaps = len(seen) > 1 and bool(np.diff(seen).min() > 1)
    if sparse(seen):
        chosen |= {"ls": "", "ms": 5, "clip_on": False}
    elif not gaps:
        chosen["marker"] = None
    else:
        chosen["ms"] = 3
    axis.plot(seen, mean, lw=1.4, **chosen)


def is_logarithmic(values: Sequence[float]) -> bool:
    """Whether an axis of these values is drawn logarithmically: geometric, or wide."""
    found = sorted(set(values))
    if len(found) < 3 or found[0] <= 0:
        return False
    ratios = np.divide(found[1:], found[:-1])
    geometric = ratios.min() >= LEAST_RATIO and ratios.max() <= 1.25 * ratios.min()
    return bool(geometric) or found[-1] >= WIDE * found[0]


def scale_axis(axis: Axes, which: Literal["x", "y"], values: Sequence[float]) -> None:
    """Linear or logarithmic, with ticks that do not run into one another."""
    if not is_logarithmic(values):
        return
    getattr(axis, f"set_{which}scale")("log")
    log_ticks(axis, which, sorted(set(values)))


def log_ticks(axis: Axes, which: Literal["x", "y"], values: Sequence[float]) -> None:
    """Ticks of a logarithmic axis: the values if few, else 1, 2, 5, else powers of ten."""
    ticks = getattr(axis, f"{which}axis")
    decades = math.log10(values[-1] / values[0])
    ticks.set_minor_formatter(NullFormatter())
    spread = decades / max(1, len(values) - 1)
    if len(values) <= MANY_TICKS and spread >= 0.1 and all(len(f"{v:g}") <= 5 for v in values):
        ticks.set_major_locator(FixedLocator([float(v) for v in values]))
        ticks.set_minor_locator(NullLocator())
        ticks.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    else:
        subs = next((subs for most, subs in FINE_TICKS if decades < most), (1.0,))
        ticks.set_major_locator(LogLocator(subs=subs, numticks=8))
        plain = values[0] >= 1e-3 and values[-1] < 1e5
        ticks.set_major_formatter(
            FuncFormatter(lambda v, _: f"{v:g}") if plain else LogFormatterMathtext()
        )


__all__ = [
    "CAPTION",
    "COLOURS",
    "DASHES",
    "HATCHES",
    "MANY_TICKS",
    "MAP",
    "MARKERS",
    "MODALITIES",
    "MORE_DASHES",
    "MORE_MARKERS",
    "NAMES",
    "PALETTE",
    "STYLE",
    "accuracy_limits",
    "caption",
    "check_text",
    "draw_curve",
    "is_logarithmic",
    "log_ticks",
    "look",
    "mark_chance",
    "number",
    "read_style",
    "scale_axis",
    "seeds_text",
    "settings_caption",
    "sparse",
    "symbol",
]
