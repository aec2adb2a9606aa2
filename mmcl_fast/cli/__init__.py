"""The `mmcl` command. Its parts load on first use: importing one command loads no other's."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; exits with 0 on success, 1 if a run diverged, 2 on a user's error."""
    try:
        from mmcl_fast.cli.command_line import main as run_command_line

        run_command_line(arguments)
    except KeyboardInterrupt:  # while modules load, or the program ends
        sys.stderr.write("mmcl: interrupted\n")
        raise SystemExit(130) from None


def run(arguments: Sequence[str]) -> int:
    """Run a command line in this process and return its exit status."""
    from mmcl_fast.cli.command_line import run as run_command_line

    return run_command_line(arguments)


__all__ = ["main", "run"]
