"""`VariantSettings`: settings of models beside the paper's, with its values as defaults.

`docs/variants.md` says whose models these are; `docs/mathematics.md`, why they stay in the span.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from mmcl_fast.errors import ConfigError

if TYPE_CHECKING:
    from mmcl_fast.config import TrainConfig

Objective = Literal["contrastive", "logistic"]
NegativeLabels = Literal["other_label", "all"]
StopGradient = Literal["key", "none"]
Similarity = Literal["inner", "cosine"]
Draw = Literal["fixed", "per_epoch"]

DEFAULT_COSINE_TAU = 0.1
SPURIOUS_NORMS = "spurious_norm", "spurious_b_norm", "spurious_c_norm"
SPURIOUS = (*SPURIOUS_NORMS, "spurious_correlation", "spurious_correlation_test")
THIRD = "d_c", "sigma_xi_c", "spurious_c_norm"  # settings of modality C, besides its signal


@dataclass(frozen=True, kw_only=True)
class VariantSettings:
    """Settings of models beside the paper's."""

    objective: Objective = "contrastive"
    """Contrastive loss (6), (9), or the logistic loss of the same network, trained on labels."""
    negatives: NegativeLabels = "other_label"
    """N(i): samples of the other labels (the paper), or all other samples (SimCLR, CLIP)."""
    pair_noise: float = 0.0
    """Share of samples whose positive is that of another sample. 0 to 1."""
    stop_gradient: StopGradient = "key"
    """Stop the gradient at keys and positives (4), or nowhere."""
    similarity: Similarity = "inner"
    """Inner product over m (4), or the cosine of the features."""
    eta_tau: float | None = None
    """Learning rate of log(1 / tau), tau being its first value. > 0; default: tau is fixed."""
    classes: int | None = None
    """Classes with orthogonal signals. 2 to 1024; default: labels +1 and -1, signals +-mu."""
    prior_exponent: float = 0.0
    """Class k = 1, 2, ... has probability proportional to k^-prior_exponent, with classes. >= 0."""
    spurious_norm: float = 0.0
    """Strength of a second signal in modality A, of a spurious attribute +-1. Finite, >= 0."""
    spurious_b_norm: float = 0.0
    """The same of modality B."""
    spurious_correlation: float = 0.8
    """Correlation of the attribute with the label (classes: +1, -1, +1, ...). -1 to 1."""
    spurious_correlation_test: float | None = None
    """The same in the OOD data. -1 to 1; default: minus that of training."""
    label_noise: float = 0.0
    """Probability that objective logistic is told the wrong label of a sample. 0 to 1."""
    label_noise_draw: Draw = "fixed"
    """Draw the wrong labels once, or anew in each epoch (label-noise gradient descent)."""
    view_scale: float = 1.0
    """Factor of xi in the view's noise patch, view_scale xi + eps. Finite, >= 0."""
    view_mask: float = 0.0
    """Probability that a coordinate of the view's noise patch is set to 0. [0, 1)."""
    mu_c_norm: float | None = None
    """Signal strength of a third modality C, >= 0: the loss is summed over pairs. Default: none."""
    d_c: int | None = None
    """Dimension of a patch of modality C. As d; default: d."""
    sigma_xi_c: float | None = None
    """Standard deviation of the noise patch of modality C. > 0; default: sigma_xi."""
    spurious_c_norm: float = 0.0
    """As spurious_b_norm, of modality C."""


def variant_of(cfg: TrainConfig) -> str | None:
    """The first setting by which a config leaves the paper's model, or None."""
    for name, default in DEFAULTS.items():
        if name in SPURIOUS and not cfg.has_spurious:
            continue
        if getattr(cfg, name) != default:
            return name
    return None


def test_correlation(cfg: TrainConfig) -> float | None:
    """Correlation of the spurious attribute with the label in the OOD data; None without one."""
    given = cfg.spurious_correlation_test
    return -cfg.spurious_correlation if given is None and cfg.has_spurious else given


def check_variants(cfg: TrainConfig) -> None:
    """Refuse settings of variants that exclude one another, or other settings.

    Raises: ConfigError: naming one of them.
    """
    _check_unused(cfg)
    if cfg.objective == "logistic":
        _check_logistic(cfg)
    if cfg.negatives == "all" and cfg.negatives_per_sample is not None:
        raise ConfigError(
            "negatives_per_sample: expected None with negatives all, got "
            f"{cfg.negatives_per_sample}"
        )
    if cfg.negatives_per_sample is not None and (cfg.classes or cfg.pair_noise):
        name = "classes" if cfg.classes else "pair_noise"
        raise ConfigError(
            f"negatives_per_sample: expected None with {name}, got {cfg.negatives_per_sample}"
        )
    if cfg.view_mask and cfg.data != "explicit":
        raise ConfigError(
            f"view_mask: expected 0 with data {cfg.data}, whose coordinates are not those of R^d, "
            f"got {cfg.view_mask}; take data explicit"
        )
    if cfg.trains_keys and cfg.augment == "per_epoch" and cfg.data != "explicit":
        raise ConfigError(
            f"augment: expected fixed with stop_gradient none and data {cfg.data}, which has no "
            "coordinates for views of later epochs, got per_epoch; take data explicit"
        )
    for name in ("view_scale", "view_mask"):
        if cfg.is_multi and getattr(cfg, name) != DEFAULTS[name]:
            raise ConfigError(
                f"{name}: expected {DEFAULTS[name]} with modality multi (it has no view), got "
                f"{getattr(cfg, name)}"
            )
    for name in ("spurious_b_norm", "mu_c_norm"):
        if not cfg.is_multi and (value := getattr(cfg, name)) != DEFAULTS[name]:
            raise ConfigError(
                f"{name}: expected {DEFAULTS[name]} with modality single, got {value}"
            )
    for name, d in zip(("d", "d_b", "d_c"), cfg.dimensions.values(), strict=False):
        if cfg.axes > 1 and d <= cfg.axes:
            raise ConfigError(f"{name}: expected more than {cfg.axes}, the signals, got {d}")
    if cfg.data == "streamed" and (setting := variant_of(cfg)):
        raise ConfigError(
            f"data: expected explicit, reduced or orthogonal with {setting} = "
            f"{getattr(cfg, setting)}, got streamed"
        )


def _check_unused(cfg: TrainConfig) -> None:
    """Refuse settings that nothing would read."""
    if cfg.prior_exponent and cfg.classes is None:
        raise ConfigError(
            f"prior_exponent: expected 0 without classes, got {cfg.prior_exponent}; take "
            "classes = 2 or more"
        )
    if cfg.mu_c_norm is None:
        for name in THIRD:
            if (value := getattr(cfg, name)) != DEFAULTS[name]:
                raise ConfigError(
                    f"{name}: expected {DEFAULTS[name]} without modality C, got {value}; give its "
                    "signal strength mu_c_norm"
                )
    if not cfg.has_spurious:
        for name in SPURIOUS[len(SPURIOUS_NORMS) :]:
            if getattr(cfg, name) != DEFAULTS[name]:
                raise ConfigError(
                    f"{name}: expected {DEFAULTS[name]} without spurious_norm, got "
                    f"{getattr(cfg, name)}"
                )
    if cfg.label_noise and cfg.objective != "logistic":
        raise ConfigError(
            f"label_noise: expected 0 with objective {cfg.objective}, got {cfg.label_noise}; take "
            "objective logistic"
        )
    if cfg.label_noise_draw == "per_epoch" and not cfg.label_noise:
        raise ConfigError("label_noise_draw: expected fixed without label_noise, got per_epoch")


_NOT_LOGISTIC = (
    "negatives", "pair_noise", "stop_gradient", "similarity", "eta_tau", "classes", "view_scale",
    "view_mask",
)  # fmt: skip


def _check_logistic(cfg: TrainConfig) -> None:
    for name in _NOT_LOGISTIC:
        if (value := getattr(cfg, name)) != DEFAULTS[name]:
            raise ConfigError(
                f"{name}: expected {DEFAULTS[name]} with objective logistic, got {value}"
            )
    if cfg.is_multi:
        raise ConfigError("modality: expected single with objective logistic, got multi")
    if cfg.m % 2:
        raise ConfigError(
            "m: expected an even number with objective logistic (half of the neurons for each "
            f"label), got {cfg.m}"
        )
    if cfg.negatives_per_sample is not None:
        raise ConfigError(
            f"negatives_per_sample: expected None with objective logistic, got "
            f"{cfg.negatives_per_sample}"
        )
    if cfg.augment == "per_epoch":
        raise ConfigError("augment: expected fixed with objective logistic (it has no views)")


DEFAULTS: dict[str, Any] = {
    name: VariantSettings.__dict__[name] for name in VariantSettings.__annotations__
}
VARIANT_FIELDS = tuple(DEFAULTS)

__all__ = [
    "DEFAULTS",
    "DEFAULT_COSINE_TAU",
    "SPURIOUS",
    "SPURIOUS_NORMS",
    "VARIANT_FIELDS",
    "VariantSettings",
    "check_variants",
    "test_correlation",
    "variant_of",
]
