"""Training engines behind one protocol, and the rule by which `auto` chooses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mmcl_fast.config import TrainConfig
from mmcl_fast.engines import gram, native, primal, reference_engine
from mmcl_fast.engines.cost import check_memory as check_memory
from mmcl_fast.engines.cost import flop as flop
from mmcl_fast.engines.cost import memory_bytes as memory_bytes
from mmcl_fast.engines.gram import GramEngine as GramEngine
from mmcl_fast.engines.native import NativeEngine as NativeEngine
from mmcl_fast.engines.primal import PrimalEngine as PrimalEngine
from mmcl_fast.engines.protocol import Coefficients as Coefficients
from mmcl_fast.engines.protocol import Engine as Engine
from mmcl_fast.engines.protocol import Measured as Measured
from mmcl_fast.engines.protocol import Spec as Spec
from mmcl_fast.engines.protocol import StretchEngine as StretchEngine
from mmcl_fast.engines.reference_engine import ReferenceEngine as ReferenceEngine
from mmcl_fast.errors import EngineRefusedError


@dataclass(frozen=True)
class EngineKind:
    """One engine.

    Attributes:
        build: Makes an instance that trains the runs of a spec.
        why_not: Why it cannot train a config exactly, or None.
        max_runs: Runs to train side by side.
        may_differ: Settings in which runs side by side may differ, besides seeds.
    """

    build: Callable[[Spec], Engine]
    why_not: Callable[[TrainConfig], str | None]
    max_runs: Callable[[TrainConfig], int]
    may_differ: frozenset[str] = frozenset()


ENGINES = {
    "native": EngineKind(
        NativeEngine, native.why_not, native.max_runs, may_differ=native.MAY_DIFFER
    ),
    "gram": EngineKind(GramEngine, gram.why_not, gram.max_runs),
    "primal": EngineKind(PrimalEngine, primal.why_not, primal.max_runs),
    "reference": EngineKind(ReferenceEngine, reference_engine.why_not, reference_engine.max_runs),
}


def resolve_engine(cfg: TrainConfig) -> str:
    """The engine a config is trained with.

    `auto` takes native for small runs, and otherwise the engine of least `flop` among gram and
    primal, of those that can train it exactly; what memory is free does not enter, so a config
    means the same on every machine. An engine asked for by name is never replaced.

    Raises: EngineRefusedError: the named engine cannot do exactly what is asked.
    """
    if cfg.engine != "auto":
        if reason := ENGINES[cfg.engine].why_not(cfg):
            raise EngineRefusedError(f"engine {cfg.engine}: {reason}")
        return cfg.engine
    if native.is_quickest(cfg) and native.why_not(cfg) is None:
        return "native"
    able = [name for name in ("gram", "primal") if ENGINES[name].why_not(cfg) is None]
    return min(able, key=lambda name: flop(cfg, name))


__all__ = [
    "ENGINES",
    "Coefficients",
    "Engine",
    "EngineKind",
    "GramEngine",
    "Measured",
    "NativeEngine",
    "PrimalEngine",
    "ReferenceEngine",
    "Spec",
    "StretchEngine",
    "check_memory",
    "flop",
    "memory_bytes",
    "resolve_engine",
]
