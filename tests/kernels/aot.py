"""Compiles kernels for GPUs that are not here, and reads what the compiler says of them.

To put a new kernel under the gate, append its `Case`s to `CASES`; `test_aot.py` does the rest.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from mmcl_fast.kernels import normal
from mmcl_fast.kernels._tiles import ARCHS, tile_for

# Shared memory one program may ask for (CUDA C++ programming guide, compute capabilities).
SHARED_LIMIT = {"sm_80": 163 * 1024, "sm_90": 227 * 1024, "sm_100": 227 * 1024}
TYPES = {"bf16": 2, "fp32": 4, "fp64": 8}

# Float instructions that the standard fixes to the last bit, and those that only move or compare.
EXACT = re.compile(
    r"(fma|add|sub|mul)\.rn\.f(32|64|32x2)|sqrt\.rn\.f(32|64)|(neg|abs)\.f(32|64)"
    r"|cvt\.rn\.f32\.([us](32|64)|f64)|cvt\.f64\.f32|cvt\.rn\.bf16(x2)?\.f32"
    r"|(selp|mov)\.f(32|64)|setp\.[a-z]+\.f(32|64)|ld\.param\.f(32|64)"
)


@dataclass(frozen=True)
class Case:
    """One binary: a kernel, the element types of its pointers, its constants and its target.

    Pointers that are not given are None. `aligned` names integers that are multiples of 16 where
    the kernel has them; where there are any, so are all addresses, as of tensors at a launch.
    """

    kernel: Any
    arch: str
    pointers: Mapping[str, str]
    constexprs: Mapping[str, Any]
    num_warps: int
    options: Mapping[str, Any] = field(default_factory=dict)
    aligned: frozenset[str] = frozenset()

    @property
    def id(self) -> str:
        kinds = dict.fromkeys(self.pointers.values())  # each once
        words = [*kinds, *(f"{k}={v}" for k, v in self.constexprs.items())]
        return "-".join([self.kernel.__name__.strip("_"), self.arch, *words])

    @property
    def signature(self) -> dict[str, str]:
        """Types by parameter: pointers are given, everything else is annotated in the kernel."""
        return {
            p.name: "constexpr"
            if p.is_constexpr
            else self.pointers.get(p.name) or p.annotation_type or "constexpr"
            for p in self.kernel.params
        }

    @property
    def constants(self) -> dict[str, Any]:
        """Values of the parameters that the binary has no register for."""
        absent = {n: None for n, kind in self.signature.items() if kind == "constexpr"}
        return absent | dict(self.constexprs)

    @property
    def attributes(self) -> dict[tuple[int], list[list[Any]]]:
        """What is known of arguments, by their place."""
        known = self.aligned | set(self.pointers) if self.aligned else frozenset()
        places = {p.name: i for i, p in enumerate(self.kernel.params)}
        return {(places[name],): [["tt.divisibility", 16]] for name in known & set(places)}


@dataclass(frozen=True)
class Resources:
    """What one program needs: bytes of shared memory, registers and spilled bytes a thread."""

    shared: int
    registers: int
    spilled: int


_COMPILED: dict[str, Any] = {}  # of this session, by what the compiler is given


def compiled(case: Case) -> Any:
    """Triton's compiled kernel of a case (from Triton's cache if it is there); needs no GPU."""
    options = {"num_warps": case.num_warps, **case.options}
    given = case.kernel.__name__, case.arch, case.signature, case.constants, case.attributes
    key = str((*given, options))
    if key not in _COMPILED:
        source = ASTSource(case.kernel, case.signature, case.constants, case.attributes)
        target = GPUTarget("cuda", int(case.arch.removeprefix("sm_")), 32)
        _COMPILED[key] = triton.compile(source, target=target, options=options)
    return _COMPILED[key]


def resources(case: Case) -> Resources:
    """Shared memory from Triton, registers and spills from the binary."""
    binary = compiled(case)
    text = _dumped(binary, "--dump-resource-usage")
    usage = {k: int(v) for k, v in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", text)}
    return Resources(binary.metadata.shared, usage["REG"], usage["STACK"] + usage["LOCAL"])


def loops(case: Case) -> list[list[str]]:
    """Machine instructions of each loop of the binary."""
    found = re.findall(r"/\*([0-9a-f]{4,})\*/\s+(.*?);", _dumped(compiled(case), "-sass"))
    assert found, "no instruction found: has the text form of the binary changed?"
    places = {int(at, 16): i for i, (at, _) in enumerate(found)}
    bodies = []
    for i, (_, instruction) in enumerate(found):
        jump = re.search(r"\bBRA\b.*?(0x[0-9a-f]+)", instruction)
        start = places.get(int(jump[1], 16), i) if jump else i
        if start < i:
            bodies.append([words for _, words in found[start : i + 1]])
    return bodies


def _dumped(binary: Any, what: str) -> str:
    tool = Path(triton.knobs.nvidia.cuobjdump.path)
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(binary.asm["cubin"])
        done = subprocess.run(
            [str(tool), what, str(cubin)],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"PATH": f"{tool.parent}{os.pathsep}{os.environ['PATH']}"},
        )
    return done.stdout


def inexact_operations(ptx: str) -> list[str]:
    """Float instructions whose result is not fixed to the last bit; empty if there are none.

    `mul.f32` without `.rn` is one of them: the assembler may contract it with an addition.
    """
    opcodes = set(re.findall(r"^\s+(?:@!?%\w+\s+)?([a-z][\w.:]+)", ptx, re.MULTILINE))
    floats = {op for op in opcodes if re.search(r"\.b?f(16|32|64)", op)}
    return sorted(op for op in floats if not EXACT.fullmatch(op))


def narrow_offsets(ttir: str) -> list[str]:
    """Pointer additions whose offset has fewer than 64 bits."""
    additions = re.findall(r"tt\.addptr .*", ttir)
    assert additions, "no pointer addition found: has the text form of the IR changed?"
    return [line for line in additions if not re.search(r"(, |x)i64>?( loc\(.*)?$", line)]


def _normal_cases() -> list[Case]:
    cases = []
    for arch, (name, itemsize), size_bin, own in product(
        ARCHS, TYPES.items(), ("few", "many"), (False, True)
    ):
        tile = tile_for("normal_fill", arch, itemsize, size_bin)
        runs = {"seeds_ptr": "*i64", "scales_ptr": "*fp64"} if own else {}
        cases.append(
            Case(
                normal._normal_fill_kernel,
                arch,
                pointers={"out_ptr": f"*{name}", **runs},
                constexprs={"OWN": own, "BLOCK_N": tile.block_n, "LANES": normal.LANES},
                num_warps=tile.num_warps,
                options=normal.LAUNCH_OPTIONS,
            )
        )
    return cases


CASES = [*_normal_cases()]


def by_lane(cases: Iterable[Case]) -> list[Any]:
    """Parameters of a test: of each kernel one case on sm_90 without a lane, others in `aot`."""
    seen: set[str] = set()
    parameters: list[Any] = []
    for case in cases:
        name = case.kernel.__name__
        first = case.arch == "sm_90" and name not in seen
        if first:
            seen.add(name)
        parameters.append(case if first else pytest.param(case, marks=pytest.mark.aot))
    return parameters
