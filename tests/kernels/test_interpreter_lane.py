"""Runs the tests marked `interpreter` as part of an ordinary `pytest`."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest


def test_interpreter_lane(pytestconfig: pytest.Config) -> None:
    """Triton chooses between compiler and interpreter at import: the lane is its own process.

    A kernel test joins it by its marker, or by the `device` fixture; nothing is registered here.
    """
    command = [sys.executable, "-m", "pytest", "--backend=interpreter", "-q"]
    if pytestconfig.getoption("--slow"):
        command.append("--slow")
    lane = subprocess.run(
        command,
        cwd=pytestconfig.rootpath,
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert lane.returncode == 0, lane.stdout + lane.stderr
    assert re.search(r"[1-9]\d* passed", lane.stdout), lane.stdout  # not all of them skipped
