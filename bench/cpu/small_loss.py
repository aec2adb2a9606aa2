"""The losses where the fixed cost of a call decides: small batches, against the dense forms.

`python -m bench.cpu.small_loss [--json FILE] [--quick]`; where installed, `python -m
mmcl_fast.bench.cpu.small_loss`.

Float32, one thread, CPU time of a call in microseconds, variants interleaved: a training step
(forward and backward, temperature and bias learn), and an evaluation under `no_grad`. Values and
gradients are compared with float64 first.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mmcl_fast import losses

from .. import record
from ..arguments import make_parser
from ..peers.losses import Loss, T
from ..timing.measure import Quantiles, interleaved, paired_ratio, single_thread
from .loss_cases import CASES, DENSE, OURS, Case, make_inputs, step, wrong

NAMES = ("symmetric", "NT-Xent", "paper (6), the query as key", "paper (9)", "SigLIP")
ROWS = (16, 32, 64, 128, 256)
FEATURES = (128, 384)
ROUNDS, QUICK_ROUNDS = 15, 1
SECONDS = 2e-3  # of one sample: so many calls that a clock's tick is nothing


def _dense_sup_con(x: Tensor, same: Tensor, labels: Tensor) -> Tensor:
    scores = (x @ x.T / T).masked_fill(torch.eye(len(x), dtype=torch.bool), -1e30)
    positives = same ^ torch.eye(len(x), dtype=torch.bool)
    rest = scores - torch.logsumexp(scores, dim=1, keepdim=True)
    return -((rest * positives).sum(dim=1) / positives.sum(dim=1).clamp(min=1)).mean()


SUP_CON = Case(
    "SupCon", 1, 1, "xml", lambda x, same, labels: losses.sup_con(x, labels, temperature=T),
    {DENSE: _dense_sup_con}, 3,
)  # fmt: skip


def _dense_excluding(x: Tensor, y: Tensor, same: Tensor) -> Tensor:
    excluded = same ^ torch.eye(len(x), dtype=torch.bool)
    return torch.nn.functional.cross_entropy(
        (x @ y.T / T).masked_fill(excluded, -torch.inf), torch.arange(len(x))
    )


EXCLUDING = Case(
    "one way with `exclude_mask`", 1, 1, "xym",
    lambda x, y, same: losses.info_nce(x, y, exclude_mask=same, temperature=T),
    {DENSE: _dense_excluding}, 3,
)  # fmt: skip


def cases() -> Iterator[Case]:
    """Every loss at every size, with its dense form alone."""
    chosen = [next(case for case in CASES if case.name == name) for name in NAMES]
    for first in (*chosen, SUP_CON, EXCLUDING):
        for d in FEATURES:
            for n in ROWS:
                yield replace(first, n=n, d=d, others={DENSE: first.others[DENSE]})


def evaluate(loss: Loss, inputs: Sequence[Tensor]) -> Tensor:
    """The value alone."""
    with torch.no_grad():
        return loss(*inputs)


def repeated(call: Callable[[], object], times: int) -> Callable[[], None]:
    """A call, several times."""

    def calls() -> None:
        for _ in range(times):
            call()

    return calls


def run_case(case: Case, rounds: int) -> list[dict[str, Any]]:
    """Rows of one case: a step and an evaluation of each variant."""
    inputs, variants = make_inputs(case, case.n), {OURS: case.ours, **case.others}
    rows = []
    for kind, do in (("step", step), ("evaluation", evaluate)):
        single = {name: partial(do, loss, inputs) for name, loss in variants.items()}
        first = interleaved(single, 3)
        times = max(1, int(SECONDS / min(Quantiles.of(s).p50 for s in first.values())))
        seconds = interleaved({k: repeated(call, times) for k, call in single.items()}, rounds)
        for name, samples in seconds.items():
            row: dict[str, Any] = {
                "op": "small_loss",
                "variant": name,
                "settings": {"loss": case.name, "n": case.n, "d": case.d, "kind": kind},
                "cpu_us": Quantiles.of(samples).to_dict(scale=1e6 / times, digits=1),
            }
            if name == OURS:
                row["times dense"] = round(paired_ratio(seconds[DENSE], samples), 2)
            rows.append(row)
    ours = [row for row in rows if row["variant"] == OURS]
    shown = "".join(
        f"{row['settings']['kind']:>12}{row['cpu_us']['p50']:8.0f} us, x{row['times dense']:5.2f}"
        for row in ours
    )
    print(f"{case.name:30}{case.n:5}{case.d:5}{shown}", flush=True)
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 1 if a variant is wrong."""
    args = make_parser("small_loss", __doc__).parse_args(arguments)
    torch.set_num_threads(1)
    before = record.environment()
    chosen = list(cases())[:: len(ROWS) if args.quick else 1]
    for case in chosen:
        if bad := wrong(case, {OURS: case.ours, **case.others}):
            print(f"{case.name}, N = {case.n}: wrong: {'; '.join(bad)}", file=sys.stderr)
            return 1
    rounds = QUICK_ROUNDS if args.quick else ROUNDS
    rows = [row for case in chosen for row in run_case(case, rounds)]
    print(f"\nload before {before['load_1min']}")
    if args.json:
        record.append(args.json, [{**row, **before} for row in rows])
    return 0


__all__ = ["cases", "main", "run_case"]

if __name__ == "__main__":
    single_thread()
    sys.exit(main())
