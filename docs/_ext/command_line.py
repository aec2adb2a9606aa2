"""The reference of `mmcl`, from the dataclasses that define its options."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from mmcl_fast.cli.options import COMMANDS

HEAD = "| option | default | meaning |\n| --- | --- | --- |\n"


def command_line_page() -> str:
    """Every command with its options, defaults and choices, as Markdown."""
    parts = []
    for name, kind in COMMANDS.items():
        parts += [f"## mmcl {name}", _escaped(inspect.cleandoc(kind.__doc__ or ""))]
        for title, rows in _tables(kind).items():
            if rows:
                parts += [*([f"### {title} of mmcl {name}"] if title else [])]
                parts += [HEAD + "\n".join(rows)]
    return "\n\n".join(parts) + "\n"


def _tables(kind: Any) -> dict[str, list[str]]:
    """Rows of a command's own options, and of each dataclass among its fields."""
    hints, docs = get_type_hints(kind), _field_docs(kind)
    found: dict[str, list[str]] = {"": []}
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            for rows in _tables(hint).values():
                found.setdefault("Settings", []).extend(rows)
        else:
            found[""].append(_row(field, hint, docs.get(field.name, "")))
    return found


def _row(field: dataclasses.Field[Any], hint: Any, doc: str) -> str:
    dashed = f"--{field.name.replace('_', '-')}"
    flag = field.name.upper() if "positional" in field.metadata else dashed
    choices = ", ".join(f"`{c}`" for c in _choices(hint))
    text = _escaped(doc) + (f" One of {choices}." if choices else "")
    return f"| `{flag}` | {_default(field)} | {text} |"


def _choices(hint: Any) -> list[str]:
    if get_origin(hint) is Literal:
        return [str(value) for value in get_args(hint)]
    if get_origin(hint) in (Union, UnionType, tuple):
        inner = [_choices(one) for one in get_args(hint) if one not in (NoneType, Ellipsis)]
        return inner[0] if len(inner) == 1 else []
    return []


def _default(field: dataclasses.Field[Any]) -> str:
    value = field.default
    if value is dataclasses.MISSING:
        return "required"
    if value is None or value == ():
        return "–"
    if isinstance(value, bool):
        return "on" if value else "off"
    return "all" if isinstance(value, tuple) else f"`{value}`"


def _escaped(text: str) -> str:
    return " ".join(text.split()).replace("<", "&lt;").replace("|", "\\|").replace("*", "\\*")


def _field_docs(kind: Any) -> dict[str, str]:
    """The string below each field of a class and its bases, which Python itself does not keep."""
    found: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        if dataclasses.is_dataclass(one):
            found |= _own_field_docs(one)
    return found


def _own_field_docs(kind: Any) -> dict[str, str]:
    tree = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(tree, ast.ClassDef)
    return {
        here.target.id: str(following.value.value)
        for here, following in zip(tree.body, tree.body[1:], strict=False)
        if isinstance(here, ast.AnnAssign)
        and isinstance(here.target, ast.Name)
        and isinstance(following, ast.Expr)
        and isinstance(following.value, ast.Constant)
    }


__all__ = ["command_line_page"]
