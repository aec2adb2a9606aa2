"""The `mmcl` command: parses and runs a command line; an error is one line and an exit status."""

from __future__ import annotations

import codecs
import inspect
import io
import logging
import os
import re
import shlex
import signal
import sys
from collections.abc import Sequence
from types import FrameType, MappingProxyType

from mmcl_fast import __version__
from mmcl_fast.cli.options import COMMANDS, RENAMED, Command
from mmcl_fast.cli.parser import build, hint, parse
from mmcl_fast.errors import ConfigError, MmclError
from mmcl_fast.operating_system.processes import is_closed_pipe
from mmcl_fast.sweep.execute.termination import Terminated, orderly_termination
from mmcl_fast.terminal import printable

USER_ERROR = 2
INTERRUPTED = 128 + 2
BROKEN_PIPE = 128 + 13
SPELLED = "mmcl-spelled"  # name of the error handler of output streams
IN_LETTERS = MappingProxyType(
    {"→": "->", "±": "+-", "×": "x", "−": "-", "–": "-", "…": "...", "²": "^2", "≤": "<=",
     "≥": ">=", "μ": "mu", "µ": "u", "σ": "sigma", "ξ": "xi", "ε": "eps", "η": "eta", "τ": "tau",
     "γ": "gamma", "ρ": "rho", "ν": "nu", "•": "*", "━": "-", "╸": "-", "╺": "-", "·": "."}
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; exits with 0 on success, 1 if a run diverged, 2 on a user's error."""
    codecs.register_error(SPELLED, _spelled_out)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=SPELLED)
    # Where the home directory is read-only, matplotlib would speak before a one-line error.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def _interrupt(number: int, frame: FrameType | None) -> None:
    """The first Ctrl-C ends the command; later ones do not disturb what it leaves behind."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def _spelled_out(error: UnicodeError) -> tuple[str, int]:
    """Symbols that a terminal lacks, in letters; others as ?."""
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end]
    return "".join(IN_LETTERS.get(c, "?") for c in text), error.end


def run(arguments: Sequence[str]) -> int:
    """Run a command line and return its exit status.

    SIGTERM and SIGHUP end it as an interrupt does, by SystemExit with status 128 + the signal.
    """
    if list(arguments) == ["--version"]:
        sys.stdout.write(f"mmcl-fast {__version__}\n")
        return 0
    command = None
    try:
        with orderly_termination():  # a batch system ends a job by SIGTERM
            command = _parse(arguments)
            return command.run()
    except MmclError as error:
        sys.stderr.write(f"mmcl: error: {_line(error)}\n")
        return USER_ERROR
    except MemoryError as error:
        sys.stderr.write(f"mmcl: error: out of memory: {error}\n")
        return USER_ERROR
    except RuntimeError as error:
        # torch's CPU allocator and CUDA raise RuntimeError when memory runs out; others are bugs.
        if not re.search(r"DefaultCPUAllocator|out of memory", str(error)):
            raise
        sys.stderr.write(f"mmcl: error: out of memory: {str(error).splitlines()[0]}\n")
        return USER_ERROR
    except KeyboardInterrupt:
        sys.stderr.write(f"mmcl: interrupted{_how_to_resume(command, arguments)}\n")
        return INTERRUPTED
    except Terminated as error:
        sys.stderr.write(f"mmcl: ended by {error.name}{_how_to_resume(command, arguments)}\n")
        raise
    except OSError as error:
        if is_closed_pipe(error):  # the reader of standard output has gone (mmcl info | head)
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return BROKEN_PIPE
        sys.stderr.write(f"mmcl: error: {_line(error)}\n")
        return USER_ERROR


def _how_to_resume(command: Command | None, arguments: Sequence[str]) -> str:
    if command is None or not getattr(command, "can_resume", lambda: False)():
        return ""
    return f"; resume with: {shlex.join(['mmcl', *arguments])}"


def _line(error: Exception) -> str:
    """An error's message, which may quote files and servers."""
    return printable(str(error), keep="\n")


def _parse(arguments: Sequence[str]) -> Command:
    """The command of a command line, with its options; prints the help where that is asked for."""
    name = arguments[0] if arguments else ""
    if name in ("-h", "--help"):
        sys.stdout.write(_help())
        raise SystemExit(0)
    if name not in COMMANDS:
        commands = ", ".join(COMMANDS)
        near = hint(name, COMMANDS)
        raise ConfigError(f"{name or 'mmcl'}: expected a command{near}: {commands}; mmcl --help")
    for word in arguments[1:]:
        flag = word.partition("=")[0]
        if new := RENAMED.get((name, flag)):
            raise ConfigError(f"{flag}: renamed, expected {new}")
    options = COMMANDS[name]
    command: Command = build(options, parse(name, options, arguments[1:]))
    return command


def _help() -> str:
    lines = [
        "usage: mmcl COMMAND [options]",
        "",
        "Contrastive learning of Huang et al. (NeurIPS 2024), fast.",
        "",
        "commands:",
        *(f"  {name:<9} {inspect.getdoc(options)}" for name, options in COMMANDS.items()),
        "",
        "mmcl COMMAND --help lists the options of a command; mmcl --version prints the version.",
    ]
    return "\n".join(lines) + "\n"


__all__ = ["main", "run"]
