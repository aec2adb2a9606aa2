"""Random and concurrent calls of the extension, in processes that a fault would end."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mmcl_fast import _native

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def _run(
    program: str, *arguments: str | Path, extension: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, HERE / program, extension or str(_native.__file__), *arguments],
        env=os.environ | environment, capture_output=True, text=True, check=False, timeout=900,
    )  # fmt: skip


def _fuzz(
    log: Path, seed: int, calls: int, extension: Path | None = None, **environment: str
) -> None:
    log.write_text("before the first call")
    done = _run("fuzz.py", str(seed), str(calls), log, extension=extension, **environment)
    assert done.returncode == 0, f"{log.read_text()}\n{done.stdout}\n{done.stderr}"
    assert "train_trajectories accepted" in done.stdout


def test_random_calls_do_no_harm(tmp_path: Path) -> None:
    _fuzz(tmp_path / "call", seed=1, calls=1500)


def test_arrays_may_change_during_a_call() -> None:
    done = _run("changed_arrays.py")
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert done.stdout.count("done") == 3


@pytest.mark.slow
@pytest.mark.parametrize("seed", [7, 11])
def test_many_random_calls(tmp_path: Path, seed: int) -> None:
    _fuzz(tmp_path / "call", seed=seed, calls=40000)


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The extension with sanitizers, and the libraries to load before Python's own."""
    if shutil.which("g++") is None:
        pytest.skip("no g++ here")
    asan, cxx = (
        subprocess.run(
            ["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in ("libasan.so", "libstdc++.so")
    )
    if not Path(asan).is_absolute():
        pytest.skip("g++ has no address sanitizer here")
    folder = tmp_path_factory.mktemp("sanitized")
    script = ROOT / "csrc" / "tests" / "build_sanitized_module.sh"
    python = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run(["sh", script, folder], env=os.environ | python, check=True)
    return folder / "_native.so", f"{asan} {cxx}"  # the first one looks for the second's `throw`


# Python itself leaves memory at its end.
OPTIONS = {"ASAN_OPTIONS": "detect_leaks=0"}


@pytest.mark.slow
def test_random_calls_under_sanitizers(sanitized: tuple[Path, str], tmp_path: Path) -> None:
    extension, library = sanitized
    _fuzz(tmp_path / "call", 12, 10000, extension, LD_PRELOAD=library, **OPTIONS)


@pytest.mark.slow
def test_arrays_may_change_under_sanitizers(sanitized: tuple[Path, str]) -> None:
    extension, library = sanitized
    done = _run("changed_arrays.py", extension=extension, LD_PRELOAD=library, **OPTIONS)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
