"""Command-line arguments shared by the benchmark modules, which `bench.run` calls."""

from __future__ import annotations

import argparse
from pathlib import Path

from .peers.registry import peer_argument


def make_parser(module: str, doc: str | None) -> argparse.ArgumentParser:
    """A parser with the shared arguments: output file, amount of work, peers.

    Args:
        module: Name in `bench`.
        doc: The module's docstring; its first line is the description.
    """
    parser = argparse.ArgumentParser(prog=f"bench.{module}", description=(doc or "").split("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="append the rows to this file")
    much = parser.add_mutually_exclusive_group()
    much.add_argument("--short", action="store_true", help="the sizes of mmcl bench")
    much.add_argument(
        "--quick", action="store_true", help="a trial: smallest sizes, fewest repeats"
    )
    parser.add_argument(
        "--peers",
        type=peer_argument,
        metavar="A,B",
        help="peers to compare with; default: all that can run here",
    )
    return parser


__all__ = ["make_parser"]
