"""The steps of `bench.gpu`: order, time limits, and the checks that each depends on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from .. import record

LIMIT_S = 480.0
DRY_RUN = "MMCL_BENCH_DRY_RUN"  # a variable of its processes
DRY_S = 240.0  # of a step of a dry run, on a processor that others use too
TOGETHER_S = 120.0  # gates, tests and compilation, all at once
SEQUENTIAL_S = 268.0  # timings, one after another
# Files whose tests one process would not finish in that time; every other file is one process.
SHARDS = {"test_contrast": 6, "test_contrast_gpu": 2, "test_contrast_traps": 2}
# Processes that compile what a step times.
COMPILED = {"trajectory": 2, "loss": 4, "typical": 6, "long": 1, "primal": 2, "tune": 3}


@dataclass(frozen=True)
class Step:
    """One process.

    Attributes:
        name: As in the results and for `--only`.
        seconds: After so long it is ended.
        needs: Steps, or patterns of steps, one of which being red means that it is not run.
        command: What to run, or None: the function of this name in `steps`.
        together: Runs beside its neighbours in the plan that do so too.
        compiles: The timed step whose kernels it compiles; nothing depends on its success.
        part: Which part of it.
        optional: Runs only when asked for.
        red: Failed checks that it depends on; it runs by request.
    """

    name: str
    seconds: float
    needs: tuple[str, ...] = ()
    command: tuple[str, ...] | None = None
    together: bool = False
    compiles: str = ""
    part: str = ""
    optional: bool = False
    red: tuple[str, ...] = ()

    @property
    def tests(self) -> bool:
        """Whether it is a process of tests."""
        return self.command is not None and "pytest" in self.command


_PIP = (
    *("-m", "pip", "install", "--quiet"),
    *("--no-index", "--no-deps", "--no-build-isolation", "-e", "."),
)
_GATES = (
    "gate_loss", "gate_trajectory", "gate_primal", "gate_typical", "gate_long", "gate_sweep",
)  # fmt: skip
# What a form that no GPU has run yet fails vouches for that form alone.
_PREPARED = ("test_contrast_small_batch*", "test_contrast_pipelined*")
_LOSS_TESTS = ("test_contrast [1-9]*", "test_contrast_[!sp]*",
               "test_two_sided_softmax*")  # fmt: skip
TIMED = (
    Step("product", 9, ("build",)),
    Step("trajectory", 64, ("gate_trajectory", "test_trajectory*")),
    Step("typical", 54, ("gate_typical", *_LOSS_TESTS, _PREPARED[0])),
    Step("long", 11, ("gate_long", *_LOSS_TESTS, _PREPARED[1])),
    Step("sweep", 30, ("gate_sweep", "gate_trajectory", "test_trajectory*")),
    Step("gram", 20, ("build", "test_gram_cuda_graph*")),
    Step(
        "primal",
        33,
        ("gate_primal", "test_two_sided_softmax*", "test_row_passes*", "test_primal_step*"),
    ),
    Step("loss", 39, ("gate_loss", *_LOSS_TESTS)),
    Step("data", 8, ("build", "test_normal*")),
    Step("tune", 33, ("gate_trajectory",), optional=True),
)
# What the sanitizer's tools watch: small tests of one kernel each, as they take tens of times
# longer.
_SANITIZED = tuple(
    f"tests/kernels/test_{name}.py"
    for name in ("contrast_small_batch", "contrast_pipelined", "trajectory")
)
_SANITIZED_TESTS = "(symmetric or single) and (float32 or losses_and_gradients or autograd)"


def files_of_tests(root: Path) -> list[Path]:
    """Files with tests marked `gpu`: by the marker, or by the fixture `device` of the kernels."""
    files = []
    for path in sorted((root / "tests").rglob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        of_kernels = path.parent.name == "kernels" and re.search(r"\bdevice: torch\.device\b", text)
        if re.search(r"\bmark\.gpu\b", text) or of_kernels:
            files.append(path.relative_to(root))
    return files


def steps_of_tests(root: Path, shards: Mapping[str, int] = SHARDS) -> list[Step]:
    """The tests marked `gpu`, by file, long files in several parts."""
    steps = []
    for path in files_of_tests(root):
        parts = shards.get(path.stem, 1)
        for part in range(1, parts + 1):
            name = path.stem if parts == 1 else f"{path.stem} {part}/{parts}"
            command = (
                # Nothing of the project's options: all share one GPU, and plugins may be absent.
                *("-m", "pytest", "-o", "addopts=--import-mode=importlib"),
                *("-p", f"{__package__}.pytest_shard", "--shard", f"{part}/{parts}"),
                *("-p", "no:cacheprovider", "-m", "gpu", "-v", "-rfE", "--tb=line", str(path)),
            )
            steps.append(Step(name, TOGETHER_S, ("build",), command, together=True))
    return steps


def sanitizer_steps() -> list[Step]:
    """`compute-sanitizer` over tests of kernels; optional, and nothing where there is no tool."""
    steps = []
    for tool in ("memcheck", "racecheck"):
        command = ("-m", f"{__package__}.sanitizer", tool, "-k", _SANITIZED_TESTS, *_SANITIZED)
        steps.append(
            Step(f"sanitize_{tool}", TOGETHER_S, ("build",), command, together=True, optional=True)
        )
    return steps


def all_steps(root: Path) -> tuple[Step, ...]:
    """Everything, in order: build, what runs together, timings."""
    together = [Step(name, TOGETHER_S, ("build",), together=True) for name in _GATES]
    together += [
        Step(f"compile_{name} {k}/{parts}", TOGETHER_S, ("build",),
             together=True, compiles=name, part=f"{k}/{parts}", optional=name == "tune")
        for name, parts in COMPILED.items()
        for k in range(1, parts + 1)
    ]  # fmt: skip
    together += sanitizer_steps()
    return (Step("build", 59, command=_PIP), *together, *steps_of_tests(root), *TIMED)


STEPS = all_steps(record.ROOT)


def needed(step: Step, names: Sequence[str]) -> list[str]:
    """Those of the names that vouch for a step."""
    return [name for name in names if any(fnmatchcase(name, need) for need in step.needs)]


def plan(
    steps: Sequence[Step], only: Sequence[str], *, tune: bool = False, sanitize: bool = False
) -> list[Step]:
    """The steps to run, in order.

    Args:
        steps: All of them.
        only: Names of the requested steps, whose dependencies run too; empty: all.
        tune: The times of other tiles too.
        sanitize: The sanitizer's tools too.

    Raises: ValueError: A name is none of theirs.
    """
    known = {step.name: step for step in steps}
    for name in only:
        if name not in known:
            raise ValueError(f"only: expected one of {', '.join(known)}, got {name}")
    asked = {True: tune, False: sanitize}  # by whether a step belongs to `tune`
    selected = set(only) or {
        step.name for step in steps if not step.optional or asked["tune" in step.name]
    }
    selected |= {step.name for step in steps if step.compiles in selected}
    for step in reversed(steps):  # needs stand before what needs them
        if step.name in selected:
            selected.update(needed(step, list(known)))
    return [step for step in steps if step.name in selected]


def dry(steps: Sequence[Step]) -> list[Step]:
    """Those that a CPU can stand for a GPU in: no tests, and nothing to compile or to build."""
    return [
        replace(step, needs=(), seconds=DRY_S, together=False)
        for step in steps
        if step.command is None and not step.compiles
    ]


__all__ = ["LIMIT_S", "SEQUENTIAL_S", "STEPS", "TIMED", "TOGETHER_S", "Step", "all_steps", "dry"]
__all__ += ["files_of_tests", "needed", "plan", "sanitizer_steps", "steps_of_tests"]
