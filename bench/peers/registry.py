"""The table of peers: version of each, and the reason where one cannot be timed here.

A peer is known by the name that `--peers` takes; its variants are rows of results. Libraries that
ask for torchvision, of which there is no build for every torch, are to be installed alone and are
loaded without what their packages import beside their losses.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TypeVar

T = TypeVar("T")


def _always() -> str | None:
    return None


def _no_compiler() -> str | None:
    compilers = [c for c in (os.environ.get("CXX"), "g++", "clang++") if c and shutil.which(c)]
    return None if compilers else "torch.compile needs a C++ compiler (g++ or clang++), found none"


def _no_chunked_loss() -> str | None:
    import torch

    if hasattr(torch.nn.functional, "linear_cross_entropy"):
        return None
    return f"torch {torch.__version__} has no linear_cross_entropy; 2.13 has"


def _cuda_only() -> str | None:
    return "runs on CUDA alone; this measures the CPU"


@dataclass(frozen=True)
class Peer:
    """One thing to compare with.

    Attributes:
        name: In `--peers`.
        package: Distribution whose version is recorded.
        variants: How its rows of results begin; empty where it is never timed on a CPU.
        install: What to type where it is missing.
        obstacle: Why it cannot run although it is installed; None: it can.
    """

    name: str
    package: str
    variants: tuple[str, ...]
    install: str
    obstacle: Callable[[], str | None] = _always

    def version(self) -> str | None:
        """Installed version, or None."""
        try:
            return version(self.package)
        except PackageNotFoundError:
            return None

    def why_not(self) -> str | None:
        """Why it cannot be timed here, or None."""
        if self.version() is None:
            return f"not installed: {self.install}"
        return self.obstacle()


ALONE = "pip install --no-deps {}".format
WITH_US = 'pip install "mmcl-fast[bench]"'
PEERS = {
    p.name: p
    for p in (
        Peer("eager", "torch", ("dense", "eager", "torch"), "comes with mmcl-fast"),
        Peer(
            "compile",
            "torch",
            ("dense, compiled", "eager, tuned, compiled"),
            "comes with mmcl-fast",
            _no_compiler,
        ),
        Peer("vmap", "torch", ("torch.func vmap",), "comes with mmcl-fast"),
        Peer(
            "linear_cross_entropy",
            "torch",
            ("linear_cross_entropy",),
            "comes with mmcl-fast",
            _no_chunked_loss,
        ),
        Peer("jax", "jax", ("JAX",), WITH_US),
        Peer("open_clip", "open_clip_torch", ("open_clip",), ALONE("open_clip_torch==3.3.0")),
        Peer("lightly", "lightly", ("lightly",), ALONE("lightly==1.6.0")),
        Peer(
            "pytorch-metric-learning",
            "pytorch-metric-learning",
            ("pytorch-metric-learning",),
            "pip install pytorch-metric-learning==2.9.0",
        ),
        Peer(
            "cut-cross-entropy",
            "cut-cross-entropy",
            ("cut-cross-entropy",),
            ALONE("cut-cross-entropy==25.1.1"),
            _no_compiler,
        ),
        Peer("inf-cl", "inf-cl", (), ALONE("inf-cl==1.2.1"), _cuda_only),
        Peer("memeff", "memeff", (), ALONE("memeff==0.3.1"), _cuda_only),
        Peer("siglip-kernel", "siglip-kernel", (), ALONE("siglip-kernel==0.1.2"), _cuda_only),
        Peer("numpy", "numpy", ("numpy",), "comes with mmcl-fast"),
        Peer("mkl", "mkl", ("MKL",), "pip install mkl"),
        Peer("randomgen", "randomgen", ("randomgen",), "pip install randomgen"),
    )
}


def peer_of(variant: str) -> Peer | None:
    """The peer that a variant belongs to; None: it is ours, or a bound such as memset."""
    begins = [(start, p) for p in PEERS.values() for start in p.variants]
    fitting = [(start, p) for start, p in begins if variant.startswith(start)]
    # "dense, compiled" begins with "dense" too.
    return max(fitting, key=lambda pair: len(pair[0]))[1] if fitting else None


def usable(variants: Mapping[str, T], asked: Iterable[str] | None = None) -> dict[str, T]:
    """Those variants that are ours, or of a peer that was asked for and can run here.

    Args:
        variants: Anything by the name of a variant.
        asked: Names of peers; None: all.
    """
    chosen = {**PEERS} if asked is None else {name: PEERS[name] for name in asked}
    selected = {}
    for name, what in variants.items():
        peer = peer_of(name)
        if peer is None or (peer.name in chosen and peer.why_not() is None):
            selected[name] = what
    return selected


def peer_argument(text: str) -> list[str]:
    """Names of peers between commas, for argparse; the empty string: none."""
    names = [name for name in text.split(",") if name]
    if unknown := [name for name in names if name not in PEERS]:
        raise ValueError(f"peers: expected some of {', '.join(PEERS)}, got {unknown[0]!r}")
    return names


def import_bare(
    module: str, *, folder: str | None = None, without: str | None = None
) -> ModuleType:
    """A module of an installed package of which no `__init__` runs.

    Args:
        module: Dotted, as the package itself imports it.
        folder: Name of the installed top-level folder, where that is another.
        without: A module it imports and does not use here; an empty one takes its place.

    Raises: ModuleNotFoundError: the package is not installed.
    """
    top = folder or module.split(".")[0]
    spec = find_spec(top)
    if spec is None:
        raise ModuleNotFoundError(top)
    root = Path(next(iter(spec.submodule_search_locations or [])))
    before = set(sys.modules)
    try:
        for path in [root, *(p.parent for p in root.rglob("__init__.py") if p.parent != root)]:
            name = ".".join([module.split(".")[0], *path.relative_to(root).parts])
            bare = ModuleType(name)
            bare.__path__ = [str(path)]
            sys.modules.setdefault(name, bare)
        if without is not None:
            sys.modules[without] = ModuleType(without)
        return importlib.import_module(module)
    finally:
        for name in set(sys.modules) - before:
            if name.split(".")[0] == module.split(".")[0]:
                del sys.modules[name]


__all__ = ["PEERS", "Peer", "import_bare", "peer_argument", "peer_of", "usable"]
