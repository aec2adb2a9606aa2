"""Flags of a command: one per field of its dataclass, with the field's docstring as help.

Only the flags that were typed are parsed into values; defaults stay the dataclass's own, so a
preset or a file can supply them. `none` leaves an optional setting at its default.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import itertools
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from types import MappingProxyType, NoneType
from typing import Any, Literal, NoReturn, get_args, get_origin, get_type_hints

from mmcl_fast.errors import ConfigError
from mmcl_fast.names import nearest

POSITIONAL = MappingProxyType({"positional": True})
"""Metadata of a field that is given without a flag."""
REPEATABLE = MappingProxyType({"repeatable": True})
"""Metadata of a field whose flag may be given several times, one value each."""
NUMBERS: MappingProxyType[type, str] = MappingProxyType({int: "an integer", float: "a number"})
EXACT = 2**53  # every integer up to here is a float
METAVARS = MappingProxyType({int: "INT", float: "FLOAT", str: "TEXT", Path: "PATH"})


def parse(command: str, options: type, arguments: Sequence[str]) -> dict[str, Any]:
    """The values of the flags on a command line, by field name, and of no others.

    Args:
        command: Name of the command, for messages.
        options: Its dataclass. Dataclasses among its fields contribute their own fields.
        arguments: The words after the command.

    Raises: ConfigError: an unknown flag (with the nearest one), or a value of another kind.
    """
    parser = make_parser(command, options)
    words = [_hyphenated(word) for word in arguments]
    try:
        given, unknown = parser.parse_known_args(words)
    except argparse.ArgumentError as error:
        raise ConfigError(f"{error.argument_name}: {error.message}") from None
    if unknown:
        flag = unknown[0].partition("=")[0]
        raise ConfigError(
            f"{flag}: expected an option of mmcl {command}{hint(flag, flags_of(options))}; "
            f"mmcl {command} --help lists them"
        )
    bare = {f.name for f in fields(options) if "positional" in f.metadata}
    return {k: v for k, v in vars(given).items() if k not in bare or v}


def build(options: type, given: dict[str, Any]) -> Any:
    """An instance of a command's dataclass.

    Args:
        options: The dataclass. Where it has a method `base`, that method maps `given` to the
            settings that the typed flags change.
        given: What `parse` returned.

    Raises: ConfigError: a required flag is absent, or a setting is refused.
    """
    values = {}
    hints = get_type_hints(options)
    for f in fields(options):
        kind = hints[f.name]
        if _is_group(kind):
            base = options.base(given) if hasattr(options, "base") else kind()
            names = set(_leaves(kind))
            values[f.name] = base.replace(**{k: v for k, v in given.items() if k in names})
        elif f.name in given:
            value = given[f.name]
            values[f.name] = tuple(value) if isinstance(value, list) else value
        elif _is_required(f):
            raise ConfigError(f"{_flag(f)}: expected {METAVARS[kind]}, got none (it is required)")
    return options(**values)


def flags_of(options: type) -> list[str]:
    """Every flag of a command: of its dataclass and of the dataclasses among its fields."""
    return [_flag(f) for f in _leaves(options).values()]


def hint(word: str, known: Iterable[str]) -> str:
    """`(did you mean ...?)` where something known resembles a word, else nothing."""
    flags = {_bare(name): name for name in known}
    near = nearest(_bare(word), flags)
    return f" (did you mean {flags[near]}?)" if near else ""


def _bare(flag: str) -> str:
    """The name of a field whose flag this is; another word as it is."""
    return flag.removeprefix("--").replace("-", "_") if flag.startswith("--") else flag


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(message)


class _Formatter(argparse.HelpFormatter):
    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(text, width, break_on_hyphens=False)  # a flag stays whole


def make_parser(command: str, options: type) -> argparse.ArgumentParser:
    """The parser of a command, whose help lists every flag."""
    positional = [
        f.name.upper() if _is_required(f) else f"[{f.name.upper()}]"
        for f in fields(options)
        if "positional" in f.metadata
    ]
    parser = _Parser(
        prog=f"mmcl {command}",
        usage=" ".join([f"mmcl {command} [options]", *positional]),
        description=(inspect.getdoc(options) or "").replace("%", "%%"),
        formatter_class=_Formatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
        exit_on_error=False,
    )
    _add_fields(parser, parser, options)
    return parser


def _add_fields(parser: _Parser, group: argparse._ActionsContainer, options: type) -> None:
    hints, texts = get_type_hints(options), _field_docstrings(options)
    for f in fields(options):
        kind, text = hints[f.name], texts[f.name]
        if _is_group(kind):
            _add_fields(parser, parser.add_argument_group(text.rstrip(".")), kind)
            continue
        keywords: dict[str, Any] = {"help": (text + _default_text(f)).replace("%", "%%")}
        if kind is bool:
            keywords["action"] = "store_true"
        else:
            keywords |= _value_keywords(f, kind)
        group.add_argument(_flag(f), **keywords)


def _value_keywords(f: Field[Any], kind: Any) -> dict[str, Any]:
    """Keywords of `add_argument` for a flag that takes values."""
    optional = NoneType in get_args(kind)
    if optional:
        (kind,) = set(get_args(kind)) - {NoneType}
    keywords: dict[str, Any] = {}
    if get_origin(kind) is tuple:
        kind = get_args(kind)[0]
        # Positional words are collected without a flag, so there may be none of them.
        if "positional" in f.metadata:
            return {"nargs": "*", "metavar": f.name.upper(), "default": None, "type": kind}
        keywords = {"action": "append"} if "repeatable" in f.metadata else {"nargs": "+"}
    elif "positional" in f.metadata:
        keywords = {"nargs": "?"}  # `build` refuses the absence of a required one
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    name = f"{{{','.join(choices)}}}" if choices else METAVARS[kind]
    if "positional" in f.metadata:
        name = f.name.upper()
        keywords["default"] = None  # argparse would convert SUPPRESS to the type
    return keywords | {"metavar": name, "type": _converter(kind, choices, optional=optional)}


def _converter(kind: Any, choices: Sequence[str], *, optional: bool) -> Callable[[str], Any]:
    def convert(text: str) -> Any:
        if optional and text.lower() == "none":
            return None
        if choices:
            if text not in choices:
                raise argparse.ArgumentTypeError(
                    f"expected one of {', '.join(choices)}, got {text!r}{hint(text, choices)}"
                )
            return text
        if kind is Path and not text:
            raise argparse.ArgumentTypeError(f"expected a path, got {text!r}")
        try:
            return _whole(text) if kind is int else kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected {NUMBERS[kind]}, got {text!r}") from None

    return convert


def _whole(text: str) -> int:
    """An integer, also as `1e6`. Raises ValueError if it is none."""
    try:
        return int(text)
    except ValueError:
        value = float(text)
        if not value.is_integer() or abs(value) > EXACT:
            raise ValueError(text) from None
        return int(value)


def _leaves(options: type) -> dict[str, Field[Any]]:
    """Fields of a dataclass that are flags, those of its inner dataclasses included."""
    found: dict[str, Field[Any]] = {}
    hints = get_type_hints(options)
    for f in fields(options):
        kind = hints[f.name]
        found |= _leaves(kind) if _is_group(kind) else {f.name: f}
    return found


def _is_group(kind: Any) -> bool:
    """Whether a field holds further flags; not a type guard, so that `kind` stays `Any`."""
    return is_dataclass(kind)


def _flag(f: Field[Any]) -> str:
    return f.name if "positional" in f.metadata else f"--{f.name.replace('_', '-')}"


def _hyphenated(word: str) -> str:
    """`--mu_norm=1` as `--mu-norm=1`."""
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value if word.startswith("--") else word


def _is_required(f: Field[Any]) -> bool:
    return f.default is MISSING and f.default_factory is MISSING


def _default_text(f: Field[Any]) -> str:
    """The default in brackets, unless it is nothing, or said by the docstring."""
    if _is_required(f):
        return " (required)"
    if f.default is None or f.default is False or f.default == ():
        return ""
    shown = " ".join(f.default) if isinstance(f.default, tuple) else f.default
    return f" (default: {shown})"


def _field_docstrings(options: type) -> dict[str, str]:
    """The string below each field of a class and its bases, which Python itself does not keep."""
    found: dict[str, str] = {}
    for kind in reversed(options.__mro__):
        if is_dataclass(kind):
            found |= _own_docstrings(kind)
    return found


def _own_docstrings(options: type) -> dict[str, str]:
    (node,) = ast.parse(inspect.getsource(options)).body
    assert isinstance(node, ast.ClassDef)
    return {
        here.target.id: inspect.cleandoc(following.value.value)
        for here, following in itertools.pairwise(node.body)
        if isinstance(here, ast.AnnAssign)
        and isinstance(here.target, ast.Name)
        and isinstance(following, ast.Expr)
        and isinstance(following.value, ast.Constant)
        and isinstance(following.value.value, str)
    }


__all__ = ["POSITIONAL", "REPEATABLE", "build", "flags_of", "hint", "make_parser", "parse"]
