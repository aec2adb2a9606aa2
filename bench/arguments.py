"""Arguments that every measuring module takes, so that `bench.run` can call all of them alike."""

from __future__ import annotations

import argparse
from pathlib import Path

from .peers.registry import peer_argument


def make_parser(module: str, doc: str | None) -> argparse.ArgumentParser:
    """A parser with what all modules share: where rows go, how much to measure, which peers.

    Args:
        module: Name in `bench`.
        doc: The module's docstring; its first line is the description.
    """
    parser = argparse.ArgumentParser(prog=f"bench.{module}", description=(doc or "").split("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="append the rows to this file")
    much = parser.add_mutually_exclusive_group()
    much.add_argument("--short", action="store_true", help="what mmcl bench measures")
    much.add_argument("--quick", action="store_true", help="a trial: least sizes and repeats")
    parser.add_argument(
        "--peers",
        type=peer_argument,
        metavar="A,B",
        help="what to compare with; default: all that can run here",
    )
    return parser


__all__ = ["make_parser"]
