"""`TrainConfig`: every setting of a run, validated; free of torch, so the command line starts fast.

The symbols are those of Huang et al. (NeurIPS 2024); defaults are the reading of its Figure 1 that
fits the printed panels (`docs/claims.md` says what the paper states and what is inferred).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, get_type_hints

from mmcl_fast.config_checks import ROTATED, check_combinations, check_magnitudes, magnitudes
from mmcl_fast.config_values import RANGES, check_range, kind_of
from mmcl_fast.config_variants import (
    DEFAULT_COSINE_TAU,
    DEFAULTS,
    SPURIOUS_NORMS,
    VARIANT_FIELDS,
    VariantSettings,
    variant_of,
)
from mmcl_fast.derived import DERIVED, check_derived, derived, settings_of
from mmcl_fast.errors import ConfigError
from mmcl_fast.names import suggestion
from mmcl_fast.stream_tags import MAX_SEED

Modality = Literal["single", "multi"]
ModalityName = Literal["a", "b", "c"]
SUFFIXES: Mapping[ModalityName, str] = MappingProxyType({"a": "", "b": "_b", "c": "_c"})
"""Ends of the names of fields, streams and results of each modality."""
Augment = Literal["fixed", "per_epoch"]
DataMode = Literal["explicit", "reduced", "orthogonal", "streamed"]
Optimizer = Literal["gd", "momentum", "sgd", "adam"]
EngineName = Literal["auto", "triton", "native", "gram", "primal", "reference"]
Device = Literal["auto", "cpu", "cuda"]
DType = Literal["float32", "float64"]
Precision = Literal["ieee", "tf32x3", "tf32", "bf16"]
ProbeOn = Literal["train", "ood"]

DEFAULT_MOMENTUM = 0.9
DEFAULT_PROBE_SAMPLES = 100  # as many as Figure 1 has training samples


@dataclass(frozen=True, kw_only=True)
class TrainConfig(VariantSettings):
    """Settings of one training run; frozen and validated. `cfg.replace(...)` gives a changed copy.

    Raises:
        ConfigError: A value is out of its range or cannot be combined with another.
    """

    n: int = 100
    """Training samples, n in the paper. At least 2."""
    d: int = 2000
    """Dimension of a patch of modality A, d. 1 to 2^34, with reduced data to 2^53."""
    d_b: int | None = None
    """Dimension of a patch of modality B, d~. As d; default: d."""
    m: int = 50
    """Neurons (width) of each encoder, m. At least 1."""
    q: int = 1
    """Power of the activation max(0, z)^q (the paper's theory has q = 1). 1 to 16."""
    modality: Modality = "single"
    """Contrastive learning of modality A with its augmentation, or of the pair A, B."""
    mu_norm: float = 5.0
    """Signal strength |mu| of modality A. Finite, >= 0."""
    mu_b_norm: float = 15.0
    """Signal strength |mu~| of modality B; C_mu = |mu~| / |mu|. Finite, >= 0."""
    nu_norm: float = 2.0
    """Signal strength |nu| of the out-of-distribution test data. Finite, >= 0."""
    sigma_xi: float = 1.0
    """Standard deviation of the noise patch of modality A, sigma_xi. > 0."""
    sigma_xi_b: float | None = None
    """Standard deviation of the noise patch of modality B, sigma_xi~. > 0; default: sigma_xi."""
    sigma_eps: float = 0.1
    """Standard deviation of the augmentation noise, sigma_eps. >= 0."""
    sigma_0: float = 0.001
    """Standard deviation of the initial weights, sigma_0 (inferred; the paper states none). > 0."""
    tau: float | None = None
    """Temperature, tau. > 0; default: 1 / m (inferred); 0.1 of cosines, 1 of objective logistic."""
    eta: float = 0.01
    """Learning rate, eta. > 0."""
    epochs: int = 200
    """Epochs of training. 0 to 2^24 - 1."""
    n_test: int = 200
    """Out-of-distribution test samples. At least 1."""
    # The default fits the printed Figure 1; the head that the paper's section 3.3 states is "ood".
    probe_on: ProbeOn = "train"
    """Fit of the linear probe: training data (as the printed Figure 1), OOD data (section 3.3)."""
    probe_samples: int | None = None
    """OOD samples of the fit, of probe_on ood alone. At least 2; default: 100."""
    probe_penalty: float | None = None
    """The probe's lambda in mean loss + lambda/2 |w|^2. > 0; default: 1 / its samples."""
    negatives_per_sample: int | None = None
    """Negatives of each sample, M, drawn from the other label without replacement. Default: all."""
    negatives_draw: Augment = "fixed"
    """Draw the M negatives once, or anew in each epoch (with negatives_per_sample only)."""
    augment: Augment = "fixed"
    """One augmented view for the whole run, or a fresh one in each epoch (modality single)."""
    data: DataMode = "explicit"
    """Vectors in R^d, reduced ones of equal law, their limit d = infinity, or drawn when needed."""
    optimizer: Optimizer = "gd"
    """Full-batch gradient descent (the paper), heavy-ball momentum, minibatch SGD, or Adam."""
    momentum: float | None = None
    """Momentum coefficient of optimizer momentum; refused by the others. [0, 1); default: 0.9."""
    batch_size: int | None = None
    """Samples of a minibatch; needed by optimizer sgd, refused by the others. 2 to n."""
    weight_decay: float = 0.0
    """L2 coefficient lambda: lambda w is added to the gradient. >= 0."""
    engine: EngineName = "auto"
    """How: triton (GPU), native (C++), gram (coefficients), primal (weights), reference, auto."""
    device: Device = "auto"
    """Where to train; auto takes CUDA when there is one."""
    dtype: DType = "float32"
    """Floating-point type of data, weights and losses."""
    precision: Precision = "ieee"
    """Of matrix products: ieee (that of dtype); tf32x3, tf32 (engine triton); bf16 (primal)."""
    seed: int = 0
    """Seed of everything random. 0 to 2^64 - 1."""
    data_seed: int | None = None
    """Seed of data, augmentation, negatives and minibatches. Default: seed."""
    init_seed: int | None = None
    """Seed of the initial weights. Default: seed."""
    evaluate_every: int = 1
    """Epochs between evaluations of OOD accuracy (the last epoch always counts). 0: never."""
    coefficients_every: int = 0
    """Epochs between stored coefficients (gamma, rho). 0: only the final ones."""

    def __new__(cls, *positional: object, **settings: object) -> TrainConfig:
        """An instance, whose fields `__init__` fills; refuses what is no setting by its name."""
        if positional:
            raise ConfigError(
                f"TrainConfig: expected settings by name, such as n=100, got {positional[0]!r}"
            )
        for name in settings:
            if name in DERIVED:
                raise ConfigError(
                    f"{name}: expected {DERIVED[name]}, which it determines, or "
                    f"TrainConfig(...).replace({name}=...), got {name}"
                )
            if name not in _KINDS:
                raise ConfigError(unknown_setting(name))
        return object.__new__(cls)

    def __post_init__(self) -> None:
        for name, kind in _KINDS.items():
            value = getattr(self, name)
            if type(value) is kind.exact and (not kind.words or value in kind.words):
                continue
            # Numbers of NumPy and the like become plain: configs are compared, hashed, written.
            object.__setattr__(self, name, plain_value(name, value))
        for name in RANGES:
            check_range(name, getattr(self, name))
        check_combinations(self)
        check_magnitudes(self, MAGNITUDES)

    def replace(self, **changes: Any) -> TrainConfig:
        """A copy with some fields changed, validated again.

        `snr`, `n_snr2` (both set mu_norm), `c_mu` = |mu~| / |mu| (sets mu_b_norm), `noise_rate` and
        `noise_start` may be given in place of the settings that they determine, as in sweeps; they
        are applied after the other changes.
        """
        if changes.keys() <= SEEDS:
            return self._reseeded(changes)
        unknown = sorted(set(changes) - set(FIELD_NAMES) - set(DERIVED))
        if unknown:
            raise ConfigError(unknown_setting(unknown[0]))
        asked = {name: changes.pop(name) for name in DERIVED if name in changes}
        cfg = dataclasses.replace(self, **changes)
        if not asked:
            return cfg
        check_derived(asked, changes)
        changed: dict[str, Any] = {**settings_of(asked, cfg.to_dict() | {"tau": cfg.tau_value})}
        return dataclasses.replace(cfg, **changed)

    @classmethod
    def of_valid(cls, settings: Mapping[str, Any]) -> TrainConfig:
        """A config of plain values that are known to be valid together; nothing is checked.

        A sweep checks 10^6 settings column by column.

        Args:
            settings: A value of every field.
        """
        cfg = object.__new__(cls)
        vars(cfg).update(settings)
        return cfg

    @property
    def snr(self) -> float:
        """Signal-to-noise ratio |mu| / (sigma_xi sqrt(d))."""
        return derived(self)["snr"]

    @property
    def n_snr2(self) -> float:
        """The product n SNR^2."""
        return derived(self)["n_snr2"]

    @property
    def c_mu(self) -> float:
        """The ratio |mu~| / |mu| of the signals; NaN without a signal in modality A."""
        return derived(self)["c_mu"]

    def _reseeded(self, seeds: Mapping[str, Any]) -> TrainConfig:
        # A seed enters no other field's check, so only its own is made: sweeps do this per run.
        copy = object.__new__(TrainConfig)
        fields = vars(copy)
        fields.update(vars(self))
        for name, value in seeds.items():
            if value is not fields[name]:  # as it is, it was checked
                plain = type(value) is int and 0 <= value <= MAX_SEED
                fields[name] = value if plain else checked_value(name, value)
        return copy

    @property
    def tau_value(self) -> float:
        """The temperature in use; where it is learned, at the start."""
        if self.tau is not None:
            return self.tau
        if self.objective == "logistic":
            return 1.0
        return DEFAULT_COSINE_TAU if self.similarity == "cosine" else 1.0 / self.m

    @property
    def has_spurious(self) -> bool:
        """Whether samples have a patch of a spurious attribute."""
        return any(getattr(self, name) > 0 for name in SPURIOUS_NORMS)

    @property
    def axes(self) -> int:
        """Dimensions that the signals of a modality span: mu, or one a class, and the spurious."""
        return (self.classes or 1) + self.has_spurious

    @property
    def is_variant(self) -> bool:
        """Whether the model is another than the paper's (`VariantSettings`)."""
        return variant_of(self) is not None

    @property
    def trains_keys(self) -> bool:
        """Whether the gradient also flows through keys and positives."""
        return self.stop_gradient == "none" and self.objective == "contrastive"

    @property
    def d_b_value(self) -> int:
        """The dimension of modality B in use."""
        return self.d if self.d_b is None else self.d_b

    @property
    def d_c_value(self) -> int:
        """The dimension of modality C in use."""
        return self.d if self.d_c is None else self.d_c

    @property
    def modalities(self) -> tuple[ModalityName, ...]:
        """The modalities that are trained, a first."""
        if self.modality == "single":
            return ("a",)
        return ("a", "b") if self.mu_c_norm is None else ("a", "b", "c")

    @property
    def suffixes(self) -> tuple[str, ...]:
        """`SUFFIXES` of the modalities that are trained."""
        return tuple(SUFFIXES[x] for x in self.modalities)

    @property
    def positive_suffixes(self) -> tuple[str, ...]:
        """Ends of the names of fields of positives: of views or modality B, and of modality C."""
        return ("", "_c") if "c" in self.modalities else ("",)

    @property
    def dimensions(self) -> dict[ModalityName, int]:
        """Dimension of a patch of each modality."""
        of_all = self.d, self.d_b_value, self.d_c_value
        return dict(zip(self.modalities, of_all, strict=False))

    @property
    def columns(self) -> int:
        """Coordinates that a patch of modality A is stored in: d, or fewer with reduced data."""
        return self._stored(self.d)

    @property
    def columns_b(self) -> int:
        """The same of modality B."""
        return self._stored(self.d_b_value)

    @property
    def widths(self) -> dict[ModalityName, int]:
        """Coordinates that a patch of each modality is stored in."""
        return {modality: self._stored(d) for modality, d in self.dimensions.items()}

    def _stored(self, d: int) -> int:
        if self.data not in ROTATED:
            return d
        rows = self.n + self.m
        if self.trains_keys and not self.is_multi:  # the views' noise enters the span
            rows += self.n
        return self.axes + (rows if self.data == "orthogonal" else min(rows, d - self.axes))

    @property
    def sigma_xi_b_value(self) -> float:
        """The noise level of modality B in use."""
        return self.sigma_xi if self.sigma_xi_b is None else self.sigma_xi_b

    @property
    def sigma_xi_c_value(self) -> float:
        """The noise level of modality C in use."""
        return self.sigma_xi if self.sigma_xi_c is None else self.sigma_xi_c

    @property
    def data_key(self) -> int:
        """Key of the data streams."""
        return self.seed if self.data_seed is None else self.data_seed

    @property
    def init_key(self) -> int:
        """Key of the weight streams."""
        return self.seed if self.init_seed is None else self.init_seed

    @property
    def momentum_value(self) -> float:
        """The momentum coefficient in use; 0 unless the optimizer is momentum."""
        if self.optimizer != "momentum":
            return 0.0
        return DEFAULT_MOMENTUM if self.momentum is None else self.momentum

    @property
    def probe_samples_value(self) -> int:
        """OOD samples that the linear probe is fitted on; 0 with probe_on train."""
        if self.probe_on == "train":
            return 0
        return DEFAULT_PROBE_SAMPLES if self.probe_samples is None else self.probe_samples

    @property
    def is_multi(self) -> bool:
        """True for multi-modal training."""
        return self.modality == "multi"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, in the order of the fields, for JSON."""
        return {name: getattr(self, name) for name in FIELD_NAMES}  # asdict copies deeply


_OWN = (f.name for f in dataclasses.fields(TrainConfig) if f.name not in DEFAULTS)
FIELD_NAMES = (*_OWN, *VARIANT_FIELDS)
SEEDS = frozenset({"seed", "data_seed", "init_seed"})
# Settings that the first files did not have, and their values in those files.
LATER_FIELDS: Mapping[str, str | float | None] = MappingProxyType(
    {"probe_on": "train", "probe_samples": None, "probe_penalty": None, **DEFAULTS}
)


def unknown_setting(name: str, others: Sequence[str] = ()) -> str:
    """The message for a setting that does not exist, with the nearest ones that do.

    Args:
        name: The name.
        others: Names that are accepted beside the settings.
    """
    listed = "mmcl train --help lists all"
    if others:
        listed += f", beside {', '.join(others)}"
    return f"{name}: unknown setting; {suggestion(name, [*FIELD_NAMES, *others], listed)}"


_KINDS = {name: kind_of(hint) for name, hint in get_type_hints(TrainConfig).items()}
MAGNITUDES = magnitudes([name for name, kind in _KINDS.items() if kind.exact is float])
"""Numbers that have to be finite in the dtype of a run."""


def plain_value(name: str, value: object) -> str | int | float | None:
    """A setting's value as str, int or float, whichever its field holds; None where it may be.

    Raises: ConfigError: it is none of them.
    """
    return _KINDS[name].plain(name, value)


def checked_value(name: str, value: object) -> str | int | float | None:
    """`plain_value`, checked to be in the setting's range.

    Raises: ConfigError: it is not, or no value of the setting at all.
    """
    found = plain_value(name, value)
    if name in RANGES:
        check_range(name, found)
    return found


__all__ = [
    "FIELD_NAMES",
    "LATER_FIELDS",
    "MAGNITUDES",
    "SEEDS",
    "SUFFIXES",
    "TrainConfig",
    "checked_value",
    "plain_value",
    "unknown_setting",
]
