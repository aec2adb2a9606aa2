"""Tests marked `gpu` under a tool of `compute-sanitizer`: `python -m bench.gpu.sanitizer TOOL ...`.

TOOL is memcheck or racecheck; what follows is for pytest. Exit status 0 also where the tool is
not installed, with a line that says so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence

TOOLS = ("memcheck", "racecheck")
FOUND = 9  # exit status where the tool found an error
MISSING = "skipped: compute-sanitizer is not installed"


def command(tool: str, tests: Sequence[str]) -> list[str]:
    """The command line; allocations are not cached, so that each has its own bounds."""
    return [
        "compute-sanitizer", "--tool", tool, "--error-exitcode", str(FOUND),
        "--target-processes", "all", sys.executable, "-m", "pytest", "-n", "0", "-m", "gpu", "-q",
        "-o", "addopts=--import-mode=importlib", "-p", "no:cacheprovider", *tests,
    ]  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    """Run the tests under a tool."""
    tool, *tests = arguments
    if tool not in TOOLS:
        print(f"tool: expected one of {', '.join(TOOLS)}, got {tool}", file=sys.stderr)
        return 2
    if shutil.which("compute-sanitizer") is None:
        print(MISSING)
        return 0
    uncached = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    return subprocess.run(command(tool, tests), check=False, env=uncached).returncode


__all__ = ["command", "main"]

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
