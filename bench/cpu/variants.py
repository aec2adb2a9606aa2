"""Model variants at the paper's size: the engines against eager PyTorch and the paper's model.

`python -m bench.cpu.variants [--json FILE] [--short | --quick] [--peers A,B]`; where installed,
`python -m mmcl_fast.bench.cpu.variants`.

Each option alone, on one thread: CPU time of a run of 200 epochs from data that are given, inner
products included; of `gram` 16 runs side by side. Nothing is timed unless all loss curves agree
with autograd in float64. The paper's model of the same modality is trained in the same rounds: a
row holds the ratio of the times, and the ratio of the operations that the epochs cannot do without
(`epoch_flop`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from math import nan
from typing import Any

import torch
from torch import Tensor

from mmcl_fast.config import TrainConfig
from mmcl_fast.data.signal_noise.sampling import sample
from mmcl_fast.data.signal_noise.synthetic import SignalNoiseData
from mmcl_fast.engines import ENGINES

from .. import record
from ..arguments import make_parser
from ..peers.registry import usable
from ..peers.variants import eager_variant_losses, textbook_variant_losses
from ..timing.measure import Quantiles, interleaved, paired_ratio, single_thread
from .train import EAGER, PAPER, TEXTBOOK, engine_losses, gate

PAPERS = "native, the paper's model"
GRAM_RUNS = 16
ACTIVE = 0.5  # share of positive pre-activations, at the start
# With cosine similarity the gradient is of the order 1 / |H|: smaller steps and larger weights, so
# that 200 epochs in float32 stay near those in float64.
COSINE: dict[str, Any] = {"similarity": "cosine", "eta": 1e-3, "sigma_0": 0.01}
OPTIONS: dict[str, dict[str, Any]] = {
    "negatives all": {"negatives": "all"},
    "negatives all, multi": {"negatives": "all", "modality": "multi"},
    "pair_noise 0.2, multi": {"pair_noise": 0.2, "modality": "multi"},
    "stop_gradient none": {"stop_gradient": "none"},
    "stop_gradient none, multi": {"stop_gradient": "none", "modality": "multi"},
    "cosine": COSINE,
    "cosine, multi": {**COSINE, "modality": "multi"},
    "eta_tau": {"eta_tau": 0.001},
    "classes 10": {"classes": 10},
    "spurious": {"spurious_norm": 3.0},
    "third modality": {"modality": "multi", "mu_c_norm": 10.0},
    "logistic": {"objective": "logistic", "label_noise": 0.1},
    "orthogonal, negatives all": {"negatives": "all", "data": "orthogonal"},
}
QUICK = ("negatives all", "logistic")


def epoch_flop(cfg: TrainConfig) -> float:
    """Multiplications and additions of an epoch's matrix products.

    Of each modality the change of the pre-activations, by the columns that span its weights, but
    for inactive samples; scores of the pairs that the loss has, and their products with features.
    """
    n, m = cfg.n, cfg.m
    sides, samples = len(cfg.modalities), n + cfg.axes
    directions = sides * (sides - 1) if cfg.is_multi else 1
    views = 0 if cfg.is_multi or cfg.objective == "logistic" else n
    columns = samples + (views if cfg.trains_keys else 0)
    update = ACTIVE * sides * columns * (samples + views)
    if cfg.data == "orthogonal":
        update = 0.0
    pairs = 0.0 if cfg.objective == "logistic" else float(n * n)
    if cfg.negatives == "other_label":
        pairs *= 1 - 1 / (cfg.classes or 2)
    products = max(1, directions / 2) + ACTIVE * directions
    return 2.0 * m * (update + products * pairs)


def calls(
    cfg: TrainConfig, data: Sequence[SignalNoiseData], peers: Sequence[str] | None
) -> dict[str, Callable[[], Tensor]]:
    """What is timed, by name; each returns losses of its runs."""
    found: dict[str, Callable[[], Tensor]] = {
        "native": partial(engine_losses, "native", cfg, data[:1]),
        TEXTBOOK: partial(textbook_variant_losses, cfg, data[0]),
        EAGER: partial(eager_variant_losses, cfg, data[0]),
    }
    if ENGINES["gram"].why_not(cfg) is None:
        found[f"gram, {GRAM_RUNS} runs"] = partial(engine_losses, "gram", cfg, data)
    return usable(found, peers)


def run_option(
    option: str, rounds: int, peers: Sequence[str] | None
) -> list[dict[str, Any]] | None:
    """Check, time and print one option; None if a curve is wrong."""
    cfg = PAPER.replace(**OPTIONS[option])
    data = [sample(cfg.replace(seed=seed)) for seed in range(GRAM_RUNS)]
    exact = engine_losses("reference", cfg.replace(dtype="float64"), [_double(data[0])])[0]
    timed = calls(cfg, data, peers)
    far = {
        name: [float((call().reshape(-1, cfg.epochs)[0] - exact).abs().max())]
        for name, call in timed.items()
    }
    if wrong := gate(far, float(exact[0])):
        print(f"{option}: wrong: {', '.join(wrong)}: {far}", file=sys.stderr)
        return None
    paper = PAPER.replace(modality=cfg.modality)
    timed[PAPERS] = partial(engine_losses, "native", paper, [sample(paper)])
    seconds = interleaved(timed, rounds)
    settings = {k: getattr(cfg, k) for k in ("modality", "n", "d", "m", "epochs", "dtype")}
    rows = []
    for name in far:
        runs = GRAM_RUNS if name.startswith("gram") else 1
        per_run = [s / runs for s in seconds[name]]
        row: dict[str, Any] = {
            "op": "variants",
            "variant": name,
            "settings": {
                **settings, "option": option, "runs": runs, "threads": 1, "rounds": rounds,
            },
            "cpu_ms_per_run": Quantiles.of(per_run).to_dict(scale=1e3),
            "of_papers_time": round(paired_ratio(per_run, seconds[PAPERS]), 3),
            "of_papers_flop": round(epoch_flop(cfg) / epoch_flop(paper), 3),
            "max_abs_loss_error": far[name][0],
        }  # fmt: skip
        for key, peer in (("times_eager", EAGER), ("times_textbook", TEXTBOOK)):
            if peer in seconds:
                row[key] = round(paired_ratio(seconds[peer], per_run), 2)
        rows.append(row)
    show(rows)
    return rows


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print the rows of one option."""
    for row in rows:
        print(
            f"{row['settings']['option']:28}{row['variant']:16}{row['cpu_ms_per_run']['p50']:9.2f}"
            f"{row['of_papers_time']:9.2f}{row['of_papers_flop']:9.2f}"
            f"{row.get('times_textbook', nan):12.1f}{row.get('times_eager', nan):9.1f}"
            f"{row['max_abs_loss_error']:10.1e}"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 1 if any loss curve is wrong."""
    args = make_parser("variants", __doc__).parse_args(arguments)
    torch.set_num_threads(1)
    before = record.environment()
    few = args.short or args.quick
    print(
        f"{'n = 100, d = 2000, m = 50':28}{'':16}{'CPU ms':>9}{'× paper':>9}{'× flop':>9}"
        f"{'× textbook':>12}{'× eager':>9}{'worst':>10}"
    )
    rows: list[dict[str, Any]] = []
    for option in QUICK if args.quick else OPTIONS:
        measured = run_option(option, 3 if few else 9, args.peers)
        if measured is None:
            return 1
        rows += measured
    print(f"\nload before {before['load_1min']}")
    if args.json:
        record.append(args.json, [{**row, **before} for row in rows])
    return 0


def _double(data: SignalNoiseData) -> SignalNoiseData:
    fields = {name: None if x is None else x.double() for name, x in vars(data).items()}
    return SignalNoiseData(**fields)


__all__ = ["OPTIONS", "calls", "epoch_flop", "main", "run_option"]

if __name__ == "__main__":
    single_thread()
    sys.exit(main())
