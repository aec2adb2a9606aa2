"""Training engines behind one protocol, and the rule by which `auto` chooses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from mmcl_fast.config import TrainConfig
from mmcl_fast.engines import native, primal, reference_engine, triton
from mmcl_fast.engines.cost import check_memory as check_memory
from mmcl_fast.engines.cost import core_seconds as core_seconds
from mmcl_fast.engines.cost import flop as flop
from mmcl_fast.engines.cost import free_gpu_bytes as free_gpu_bytes
from mmcl_fast.engines.cost import memory_bytes as memory_bytes
from mmcl_fast.engines.gram import GramEngine as GramEngine
from mmcl_fast.engines.native import NativeEngine as NativeEngine
from mmcl_fast.engines.primal import PrimalEngine as PrimalEngine
from mmcl_fast.engines.protocol import Coefficients as Coefficients
from mmcl_fast.engines.protocol import Engine as Engine
from mmcl_fast.engines.protocol import EngineSpec as EngineSpec
from mmcl_fast.engines.protocol import Measured as Measured
from mmcl_fast.engines.protocol import MultiEpochEngine as MultiEpochEngine
from mmcl_fast.engines.reference_engine import ReferenceEngine as ReferenceEngine
from mmcl_fast.engines.trajectory_base import MAY_DIFFER
from mmcl_fast.engines.triton import TritonEngine as TritonEngine
from mmcl_fast.engines.variants import choice
from mmcl_fast.errors import EngineRefusedError


@dataclass(frozen=True)
class EngineKind:
    """One engine.

    Attributes:
        build: Makes an engine for a spec.
        why_not_at_all: Why it cannot train a config exactly, or None; ignores the precision.
        max_runs: Largest batch.
        may_differ: Settings that may differ within a batch, besides seeds.
        precisions: Supported precisions of matrix products.
    """

    build: Callable[[EngineSpec], Engine]
    why_not_at_all: Callable[[TrainConfig], str | None]
    max_runs: Callable[[TrainConfig], int]
    may_differ: frozenset[str] = frozenset()
    precisions: tuple[str, ...] = ("ieee",)

    def why_not(self, cfg: TrainConfig) -> str | None:
        """Why it cannot train a config exactly, or None."""
        if cfg.precision not in self.precisions:
            able = next(name for name, kind in ENGINES.items() if cfg.precision in kind.precisions)
            return f"precision {cfg.precision}: it has {', '.join(self.precisions)}; use {able}"
        return self.why_not_at_all(cfg)


ENGINES = {
    "triton": EngineKind(
        TritonEngine, triton.why_not, triton.max_runs, MAY_DIFFER, ("ieee", "tf32x3", "tf32")
    ),
    "native": EngineKind(native.native_engine, native.why_not, native.max_runs, MAY_DIFFER),
    "gram": EngineKind(choice.span_engine, choice.why_not, choice.max_runs),
    "primal": EngineKind(
        PrimalEngine, primal.why_not, primal.max_runs, precisions=("ieee", "bf16")
    ),
    "reference": EngineKind(
        reference_engine.engine, reference_engine.why_not, reference_engine.max_runs
    ),
}


def _chosen_by_flop(cfg: TrainConfig) -> tuple[str, ...]:
    if cfg.optimizer == "sgd" and not cfg.is_variant:
        return ("primal",)
    return "gram", "primal"


def drawing_device(cfg: TrainConfig) -> torch.device | None:
    """Device on which the data of a batch are drawn, or None for the CPU.

    That is the GPU for the triton engine; gram and primal copy the data that they need.
    """
    on_gpu = cfg.engine == "triton" and cfg.device == "cuda"
    return torch.device(cfg.device) if on_gpu else None


def resolve_engine(cfg: TrainConfig) -> str:
    """The engine a config is trained with.

    `auto` takes triton on CUDA and native on a CPU for small runs, and otherwise the engine of
    least `flop` among gram and primal, of those that can train it exactly. Minibatches of the
    paper's model are left to primal, with which earlier stores and checkpoints were made. Free
    memory is not considered, so the choice is the same on every machine. An engine named by the
    config is never replaced.

    Raises: EngineRefusedError: the named engine, or every engine, cannot train the config exactly.
    """
    if cfg.engine != "auto":
        if reason := ENGINES[cfg.engine].why_not(cfg):
            raise EngineRefusedError(f"engine {cfg.engine}: {reason}")
        return cfg.engine
    # Asked in turn: a plan chooses 10^6 engines.
    if cfg.device == "cuda" and ENGINES["triton"].why_not(cfg) is None:
        return "triton"
    if native.is_quickest(cfg) and ENGINES["native"].why_not(cfg) is None:
        return "native"
    candidates = [name for name in _chosen_by_flop(cfg) if ENGINES[name].why_not(cfg) is None]
    if not candidates:
        reasons = {name: kind.why_not(cfg) for name, kind in ENGINES.items()}
        refusals = "; ".join(f"{name}: {reason}" for name, reason in reasons.items() if reason)
        raise EngineRefusedError(f"engine auto: expected one that can train this, got {refusals}")
    return min(candidates, key=lambda name: flop(cfg, name))


__all__ = [
    "ENGINES",
    "Coefficients",
    "Engine",
    "EngineKind",
    "EngineSpec",
    "GramEngine",
    "Measured",
    "MultiEpochEngine",
    "NativeEngine",
    "PrimalEngine",
    "ReferenceEngine",
    "TritonEngine",
    "check_memory",
    "core_seconds",
    "drawing_device",
    "flop",
    "free_gpu_bytes",
    "memory_bytes",
    "resolve_engine",
]
