from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

def fill_normal(
    out: npt.NDArray[np.float32] | npt.NDArray[np.float64] | npt.NDArray[np.uint16],
    *,
    start: Sequence[int],
    seed: int,
    tag: int,
    epoch: int,
    scale: float,
    threads: int,
    target: str = "auto",
) -> None: ...
def fill_words(
    out: npt.NDArray[np.uint32],
    *,
    start: Sequence[int],
    seed: int,
    tag: int,
    epoch: int,
    threads: int,
    target: str = "auto",
) -> None: ...
def fill_normal_runs(
    out: npt.NDArray[np.float32] | npt.NDArray[np.float64] | npt.NDArray[np.uint16],
    *,
    seeds: Sequence[int],
    scales: Sequence[float],
    tag: int,
    epoch: int,
    threads: int,
    target: str = "auto",
) -> None: ...
def fill_word_runs(
    out: npt.NDArray[np.uint32],
    *,
    seeds: Sequence[int],
    tag: int,
    epoch: int,
    threads: int,
    target: str = "auto",
) -> None: ...
def streaming_gram(
    out: npt.NDArray[np.float64],
    *,
    start: Sequence[int],
    dims: int,
    seed: int,
    tag: int,
    epoch: int,
    scale: float,
    threads: int,
    target: str = "auto",
) -> None: ...
def fill_chi(
    out: npt.NDArray[np.float64],
    degrees: npt.NDArray[np.float64],
    *,
    first_row: int,
    seeds: Sequence[int],
    tag: int,
    threads: int,
) -> None: ...
def fit_heads(
    features: npt.NDArray[np.float32] | npt.NDArray[np.float64],
    labels: npt.NDArray[np.float32],
    weight: npt.NDArray[np.float64],
    bias: npt.NDArray[np.float64],
    converged: npt.NDArray[np.bool_],
    steps: npt.NDArray[np.int64],
    *,
    l2: float,
    tolerance: float,
    most_steps: int,
    threads: int,
    target: str = "auto",
) -> None: ...
def score_heads(
    features: npt.NDArray[np.float32] | npt.NDArray[np.float64],
    labels: npt.NDArray[np.float32],
    weight: npt.NDArray[np.float64],
    bias: npt.NDArray[np.float64],
    share: npt.NDArray[np.float64],
    *,
    threads: int,
    target: str = "auto",
) -> None: ...

class DenseContrast:
    """Arrays by their addresses, 0 for none; see csrc/bindings/contrast.cpp."""

    def __init__(
        self,
        sizes: tuple[int, int, int, int],
        scores: int,
        losses: int,
        weight: float | None,
        form: str,
        inverse_temperature: float,
        bias: float,
        smoothing: float,
        hard: int,
        hard_counts: int,
        positive: int,
        query: int,
        positive_key: int,
        labels: int,
        key_labels: int,
        excluded: int,
        extra: int,
        supervised: bool,
        exclude_self: bool,
        symmetric: bool,
        same_rows: bool,
        target: str = "auto",
    ) -> None: ...
    def weights(
        self,
        upstream: float,
        upstream_rows: int,
        rows: bool,
        columns: bool,
        scores: int,
        hard: int,
        positive: int,
        temperature: int,
        temperature_factor: float,
        bias: int,
    ) -> None: ...

def unit_rows(x: int, unit: int, norm: int, n: int, d: int, target: str = "auto") -> None: ...
def unit_rows_gradient(
    unit: int, norm: int, gradient: int, n: int, d: int, target: str = "auto"
) -> None: ...
def softmax_rows(
    scores: npt.NDArray[np.float32],
    terms: npt.NDArray[np.float32] | None,
    top: npt.NDArray[np.float32],
    total: npt.NDArray[np.float32],
    *,
    threads: int,
    target: str = "auto",
) -> None: ...
def softmax_columns(
    scores: npt.NDArray[np.float32],
    terms: npt.NDArray[np.float32] | None,
    top: npt.NDArray[np.float32],
    total: npt.NDArray[np.float32],
    *,
    threads: int,
    target: str = "auto",
) -> None: ...
def softmax_both(
    scores: npt.NDArray[np.float32],
    row_top: npt.NDArray[np.float32],
    row_total: npt.NDArray[np.float32],
    column_top: npt.NDArray[np.float32],
    column_total: npt.NDArray[np.float32],
    *,
    threads: int,
    target: str = "auto",
) -> None: ...
def softmax_weights(
    scores: npt.NDArray[np.float32],
    row_top: npt.NDArray[np.float32],
    row_scale: npt.NDArray[np.float32],
    column_top: npt.NDArray[np.float32] | None,
    column_scale: npt.NDArray[np.float32] | None,
    *,
    threads: int,
    target: str = "auto",
) -> None: ...
def softplus_rows(
    scores: npt.NDArray[np.float32],
    total: npt.NDArray[np.float32],
    *,
    threads: int,
    target: str = "auto",
) -> None: ...
def embed(
    out: npt.NDArray[np.float32],
    start: npt.NDArray[np.float32],
    labels: npt.NDArray[np.float32],
    places: npt.NDArray[np.int64] | None = None,
    *,
    q: int,
    moved: npt.NDArray[np.float32] | None = None,
    gram: npt.NDArray[np.float32] | None = None,
    threads: int,
    target: str = "auto",
) -> None: ...

Rows = tuple[npt.NDArray[np.float32], Sequence[int] | None]

def inner_products(
    jobs: Sequence[tuple[Sequence[npt.NDArray[np.float32]], Sequence[Rows], Sequence[Rows], int]],
    *,
    threads: int,
    target: str = "auto",
) -> None: ...
def train_trajectories(
    gram: Sequence[npt.NDArray[np.float32]],
    z: Sequence[npt.NDArray[np.float32]],
    moved: Sequence[npt.NDArray[np.float32]],
    positives: Sequence[int],
    tau: Sequence[float],
    eta: Sequence[float],
    curves: npt.NDArray[np.float32],
    *,
    n: int,
    m: int,
    q: int,
    update: bool,
    threads: int,
    target: str = "auto",
) -> None: ...
def train_variants(
    modalities: Sequence[
        tuple[Sequence[npt.NDArray[Any]], npt.NDArray[np.float32], npt.NDArray[np.float32]]
    ],
    codes: tuple[npt.NDArray[np.int32], npt.NDArray[np.float32], npt.NDArray[np.int32]],
    code_counts: Sequence[int],
    labels: npt.NDArray[np.float32],
    targets: npt.NDArray[np.float32],
    tau: Sequence[float],
    eta: Sequence[float],
    eta_tau: Sequence[float],
    log_inverse_tau: npt.NDArray[np.float64],
    curves: npt.NDArray[np.float32],
    *,
    n: int,
    m: int,
    q: int,
    logistic: bool,
    all_negatives: bool,
    key_gradients: bool,
    cosine: bool,
    learned_tau: bool,
    axes: int,
    class_axes: int,
    patches: int,
    update: bool,
    threads: int,
    target: str = "auto",
) -> None: ...
def targets() -> list[str]: ...
def active_target() -> str: ...
