"""Training engines behind one protocol, and the rule by which `auto` chooses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mmcl_fast.config import TrainConfig
from mmcl_fast.engines import gram, primal, reference_engine
from mmcl_fast.engines.gram import GramEngine as GramEngine
from mmcl_fast.engines.primal import PrimalEngine as PrimalEngine
from mmcl_fast.engines.protocol import Coefficients as Coefficients
from mmcl_fast.engines.protocol import Engine as Engine
from mmcl_fast.engines.protocol import Spec as Spec
from mmcl_fast.engines.reference_engine import ReferenceEngine as ReferenceEngine
from mmcl_fast.errors import EngineRefusedError


@dataclass(frozen=True)
class EngineKind:
    """One engine.

    Attributes:
        build: Makes an instance that trains the runs of a spec.
        why_not: Why it cannot train a config exactly, or None.
        max_runs: Runs to train side by side.
    """

    build: Callable[[Spec], Engine]
    why_not: Callable[[TrainConfig], str | None]
    max_runs: Callable[[TrainConfig], int]


ENGINES = {
    "gram": EngineKind(GramEngine, gram.why_not, gram.max_runs),
    "primal": EngineKind(PrimalEngine, primal.why_not, primal.max_runs),
    "reference": EngineKind(ReferenceEngine, reference_engine.why_not, reference_engine.max_runs),
}


def flop(cfg: TrainConfig, engine: str) -> float:
    """Floating-point operations of a whole run: the cost by which `auto` chooses.

    Products of the data with weights (primal) or among themselves (gram), the products with the
    coefficients, and the test rows wherever accuracy is evaluated; the loss costs both the same.
    """
    n, m, epochs = cfg.n, cfg.m, cfg.epochs
    sides = ((cfg.columns, 1.0), (cfg.columns_b, 1.0)) if cfg.is_multi else ((cfg.columns, 2.0),)
    looks = epochs // cfg.evaluate_every + 1 if cfg.evaluate_every else 0
    fresh = epochs if cfg.augment == "per_epoch" else 1
    total = 0.0
    for d, views in sides:
        if engine == "gram":
            total += 2 * d * (n + m) * (n * (views - 1) * fresh + n + 1)
            total += 2 * epochs * m * (views * n + 1) * (n + 1)
        else:
            total += 2 * epochs * m * d * (views + 1) * n
    if engine == "gram":
        return total + 2 * cfg.n_test * (n + 1) * (cfg.columns * (looks > 0) + looks * m)
    return total + 2 * looks * m * cfg.columns * (cfg.n_test + n)


def resolve_engine(cfg: TrainConfig) -> str:
    """The engine a config is trained with.

    `auto` takes the engine of least `flop` among gram and primal that can train it exactly. An
    engine asked for by name is never replaced.

    Raises: EngineRefusedError: the named engine cannot do exactly what is asked.
    """
    if cfg.engine != "auto":
        if reason := ENGINES[cfg.engine].why_not(cfg):
            raise EngineRefusedError(f"engine {cfg.engine}: {reason}")
        return cfg.engine
    able = [name for name in ("gram", "primal") if ENGINES[name].why_not(cfg) is None]
    return min(able, key=lambda name: flop(cfg, name))


__all__ = [
    "ENGINES",
    "Coefficients",
    "Engine",
    "EngineKind",
    "GramEngine",
    "PrimalEngine",
    "ReferenceEngine",
    "Spec",
    "flop",
    "resolve_engine",
]
