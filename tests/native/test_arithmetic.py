"""A build whose arithmetic is not exact is noticed: by the compiler, or when it runs."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

CORE = Path(__file__).parents[2] / "csrc" / "core"
COMPILER = shutil.which(os.environ.get("CXX", "c++"))
# The instruction that products and sums are fused into; ARM64 always has it.
FUSED = ["-mfma"] if platform.machine() in ("x86_64", "AMD64") else []

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler here")


def _compile(folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    source = folder / "fuses.cpp"
    source.write_text('#include "contraction.h"\nint main() { return mmcl::fuses() ? 7 : 0; }\n')
    return subprocess.run(
        [str(COMPILER), "-std=c++17", "-O2", *FUSED, *flags, f"-I{CORE}", str(source), "-o",
         str(folder / "fuses")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(("contract", "status"), [("off", 0), ("fast", 7)])
def test_fused_products_and_sums_show_at_run_time(
    tmp_path: Path, contract: str, status: int
) -> None:
    compiled = _compile(tmp_path, f"-ffp-contract={contract}")
    assert compiled.returncode == 0, compiled.stderr
    assert subprocess.run([tmp_path / "fuses"], check=False).returncode == status


def test_fast_math_does_not_compile(tmp_path: Path) -> None:
    assert "compile without -ffast-math" in _compile(tmp_path, "-ffast-math").stderr
