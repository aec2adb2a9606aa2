"""The `mmcl` command: reads a command line, runs it, turns errors into one line and a status."""

from __future__ import annotations

import contextlib
import difflib
import io
import itertools
import os
import re
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import tyro

from mmcl_fast import __version__
from mmcl_fast.cli.options import COMMANDS, SPEC_SUFFIX, Sweep, Train, flags_of
from mmcl_fast.config import PRESETS
from mmcl_fast.errors import ConfigError, MmclError

USER_ERROR = 2
INTERRUPTED = 128 + 2
BROKEN_PIPE = 128 + 13


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; exits with 0 on success, 1 if a run diverged, 2 for a user's mistake."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without our symbols still gets text
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run a command line and return its exit status."""
    if list(arguments) == ["--version"]:
        sys.stdout.write(f"mmcl-fast {__version__}\n")
        return 0
    try:
        return _parse(arguments).run()  # type: ignore[no-any-return]
    except MmclError as error:
        sys.stderr.write(f"mmcl: error: {error}\n")
        return USER_ERROR
    except MemoryError as error:
        sys.stderr.write(f"mmcl: error: out of memory: {error}\n")
        return USER_ERROR
    except RuntimeError as error:
        # torch's CPU allocator and CUDA raise RuntimeErrors when memory runs out; others are ours.
        if not re.search(r"DefaultCPUAllocator|out of memory", str(error)):
            raise
        sys.stderr.write(f"mmcl: error: out of memory: {str(error).splitlines()[0]}\n")
        return USER_ERROR
    except KeyboardInterrupt:
        sys.stderr.write("mmcl: interrupted\n")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone (mmcl info | head); there is nobody left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except OSError as error:
        sys.stderr.write(f"mmcl: error: {error}\n")
        return USER_ERROR


def _parse(arguments: Sequence[str]) -> Any:
    kinds = [Annotated[kind, _subcommand(name, arguments)] for name, kind in COMMANDS.items()]
    union: Any = kinds[0]
    for kind in kinds[1:]:
        union = union | kind
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                union,
                prog="mmcl",
                description="Contrastive learning of Huang et al. (NeurIPS 2024), fast. "
                "mmcl --version prints the version.",
                args=list(arguments),
                config=(tyro.conf.FlagCreatePairsOff, tyro.conf.ConsolidateSubcommandArgs),
            )
    except SystemExit as stop:
        if stop.code:
            command = arguments[0] if arguments else None
            raise ConfigError(one_line(said.getvalue(), command)) from None
        raise


def _subcommand(name: str, arguments: Sequence[str]) -> Any:
    if arguments[:1] == ["train"] == [name]:
        return tyro.conf.subcommand(name, default=_preset(arguments))
    if arguments[:1] == ["sweep"] == [name] and (file := _spec_file(arguments)):
        read = import_module("mmcl_fast.sweep.plan.spec_file").read_spec(file)
        # The required --out is tyro's to ask for.
        return tyro.conf.subcommand(name, default=Sweep(config=read.base, out=tyro.MISSING))
    return tyro.conf.subcommand(name)


def _spec_file(arguments: Sequence[str]) -> Path | None:
    """The TOML file on the command line of `mmcl sweep`, whose [base] flags change."""
    switches = [
        f"--{name.replace('_', '-')}" for name, t in get_type_hints(Sweep).items() if t is bool
    ]
    for before, word in itertools.pairwise(arguments):
        value = before.startswith("--") and "=" not in before and before not in switches
        if word.endswith(SPEC_SUFFIX) and not word.startswith("-") and not value:
            return Path(word)
    return None


def _preset(arguments: Sequence[str]) -> Train:
    """The defaults of `mmcl train`: those of the preset on the command line."""
    chosen = "figure1"
    for here, following in zip(arguments, [*arguments, ""][1:], strict=True):
        if here == "--preset":
            chosen = following
        elif here.startswith("--preset="):
            chosen = here.partition("=")[2]
    if chosen not in PRESETS:
        raise ConfigError(f"preset: expected one of {', '.join(PRESETS)}, got {chosen!r}")
    return Train(config=PRESETS[chosen], preset=chosen)


def one_line(box: str, command: str | None = None) -> str:
    """The message inside one of tyro's framed errors, as one line: what, expected, got.

    Args:
        box: What tyro wrote.
        command: The command that was called, whose flags are searched for near misses.
    """
    # Frames are drawn in Unicode or, for other encodings, with dashes below a bare title.
    lines = [line.strip().strip("│|╭╮╰╯+").strip() for line in box.splitlines()]
    framed = lines[1:] if box.lstrip().startswith(("╭", "+")) else lines[2:]
    body = itertools.takewhile(lambda line: not re.fullmatch(r"[─-]{3,}", line), framed)
    message = " ".join(line for line in body if line) or box.strip()
    # tyro names its own wrapper where a config refuses a value; the config's message is complete.
    message = re.sub(r"^Error parsing \S*(dummy|config)\S*: ", "", message)
    message = message.removeprefix("Error parsing ")
    message = re.sub(
        r"invalid literal for int\(\) with base 10: ", "expected an integer, got ", message
    )
    message = re.sub(r"could not convert string to float: ", "expected a number, got ", message)
    if found := re.match(r"Unrecognized (?:or misplaced )?options: ([^\s,]+)", message):
        return f"{found[1]}: expected {_expected(found[1], command)}"
    return message


def _expected(unknown: str, command: str | None) -> str:
    if command not in COMMANDS:
        return f"a command: {', '.join(COMMANDS)}"
    flags = flags_of(COMMANDS[command])
    near = difflib.get_close_matches(unknown, flags, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return f"an option of mmcl {command}{hint}; mmcl {command} --help lists them"


__all__ = ["main", "one_line", "run"]
