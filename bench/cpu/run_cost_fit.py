"""Constants of `mmcl_fast.engines.core_seconds`, fitted to measured times of runs.

`python -m bench.cpu.run_cost_fit [--results FILE]` prints those of native and gram, and how far the
prediction is from the runs that the fit did not see. It writes nothing: constants are settings of
the code, and a change of them changes how new sweeps are cut.

Least squares of log(predicted / measured). Constants stay near those in the code where the rows say
little (`PRIOR`), so that all are positive and each kind of work costs something.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from mmcl_fast.engines.cost import SECONDS, work

# Relative, so that it runs from a checkout and as mmcl_fast.bench alike.
from .. import record
from .run_cost import OP, Case

PRIOR = 0.01  # of a factor e in a constant, against as much in the mean of the measured times
STEPS = 2000
ENGINES = ("native", "gram")


def measured(file: Path, engine: str, *, fit: bool) -> tuple[Tensor, Tensor]:
    """Amounts of work [rows, kinds] and seconds [rows] of an engine's measured runs."""
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    chosen = [r for r in rows if r["op"] == OP and r["variant"] == engine and r["fit"] == fit]
    amounts = [work(Case(**row["settings"]).config, engine) for row in chosen]
    seconds = [row["seconds"] for row in chosen]
    return torch.tensor(amounts, dtype=torch.float64), torch.tensor(seconds, dtype=torch.float64)


def fitted(amounts: Tensor, seconds: Tensor, before: Tensor) -> Tensor:
    """Constants [kinds]; those that are 0 stay 0."""
    used = before > 0
    amounts, start = amounts[:, used], before[used].log()
    logarithms = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([logarithms], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        predicted = (amounts @ logarithms.exp()).log()
        value = (predicted - seconds.log()).square().mean()
        value = value + PRIOR * (logarithms - start).square().mean()
        value.backward()
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    found = torch.zeros_like(before)
    found[used] = logarithms.detach().exp()
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser("bench.cpu.run_cost_fit", description=__doc__)
    results = record.ROOT / "bench" / "results" / "cpu.jsonl"
    parser.add_argument("--results", type=Path, default=results, help="file with measured rows")
    file = parser.parse_args(arguments).results
    for engine in ENGINES:
        before = torch.tensor(SECONDS[engine], dtype=torch.float64)
        constants = fitted(*measured(file, engine, fit=True), before)
        print(engine, ", ".join(f"{value:.1e}" for value in constants.tolist()))
        amounts, seconds = measured(file, engine, fit=False)
        ratios = (amounts @ constants / seconds).sort().values.tolist()
        print("  predicted over measured, of other runs:", *(f"{ratio:.2f}" for ratio in ratios))
    return 0


__all__ = ["fitted", "main", "measured"]

if __name__ == "__main__":
    sys.exit(main())
