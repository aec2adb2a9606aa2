"""`mmcl info`: versions, devices, and the engines and backends that can run here."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import torch
from rich.console import Console
from rich.table import Table

from mmcl_fast import _native
from mmcl_fast.config import Device, TrainConfig
from mmcl_fast.engines import ENGINES
from mmcl_fast.environment import environment
from mmcl_fast.losses.backends import BACKENDS, Problem
from mmcl_fast.operating_system.memory import free_bytes

WIDE = 100  # columns from which four of a table hold their longest words
OPTIONAL = ("triton", "jax", "ray", "scikit-learn")


def info_command() -> int:
    """Print the capabilities of this installation."""
    console = Console(highlight=False)
    device: Device = "cuda" if torch.cuda.is_available() else "cpu"
    table = Table(title="environment", show_header=False)
    for name, value in environment(device).items():
        table.add_row(name, str(value))
    for name in OPTIONAL:
        table.add_row(f"{name} (optional)", _version(name))
    generator = _native.active_target()
    others = ", ".join(name for name in _native.targets() if name != generator)
    also = f" (this machine also runs {others})" if others else ""
    table.add_row("random generator", generator + also)
    table.add_row("free memory", _free_memory())
    console.print(table)
    console.print(_engines(TrainConfig(device=device), console.width))
    losses = Table(title=f"loss backends on {device}")
    for heading in ("backend", "can run"):
        losses.add_column(heading)
    for backend in BACKENDS.values():
        losses.add_row(
            backend.name,
            backend.why_not(Problem(64, 64, 64, torch.float32, torch.device(device))) or "yes",
        )
    console.print(losses)
    return 0


def _engines(here: TrainConfig, width: int) -> Table:
    """What each engine can train; on a narrow terminal a line a pair, so that words stay whole."""
    configs = {
        "plain gradient descent": here,
        "minibatch SGD": here.replace(optimizer="sgd", batch_size=10),
        "Adam": here.replace(optimizer="adam"),
    }
    table = Table(title="training engines")
    is_wide = width >= WIDE
    for heading in ("engine", *(configs if is_wide else ("optimizer", "can train"))):
        table.add_column(heading)
    for name, kind in ENGINES.items():
        answers = [kind.why_not(cfg) or "yes" for cfg in configs.values()]
        if is_wide:
            table.add_row(name, *answers)
            continue
        for k, (optimizer, answer) in enumerate(zip(configs, answers, strict=True)):
            last = k == len(answers) - 1
            table.add_row("" if k else name, optimizer, answer, end_section=last)
    return table


def _free_memory() -> str:
    """What sizes are checked against before work starts."""
    free = free_bytes()
    if free is None:
        return "unknown: sizes are not checked against it"
    return f"{free / 2**30:.1f} GiB"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


__all__ = ["info_command"]
