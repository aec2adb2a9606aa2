"""Docstrings, Markdown with titled sections, as reStructuredText for Sphinx."""

from __future__ import annotations

import re

TITLES = ("Args", "Attributes", "Returns", "Raises", "Numerics", "Cost", "See")
FIELDS = {"Args": "param", "Attributes": "ivar", "Raises": "raises"}
ITEM = re.compile(r"^ {4}(\*{0,2}\w[\w.]*(?: \([^)]*\))?): ?(.*)$")


def restructured(text: str) -> str:
    """The whole docstring."""
    parts = re.split(rf"^(?=(?:{'|'.join(TITLES)}):)", text, flags=re.MULTILINE)
    body = [_prose(part) for part in parts[:1]]
    fields = [_section(part) for part in parts[1:]]
    return "\n\n".join([*body, "\n".join(fields)]) + "\n"


def _section(part: str) -> str:
    title, _, rest = part.partition(":")
    first, *lines = rest.split("\n")
    items: list[list[str]] = []
    if title in FIELDS and not first.strip():
        for line in lines:
            if found := ITEM.match(line):
                items.append([found[1], found[2]])
            elif items and line.strip():
                items[-1][1] += " " + line.strip()
        if items:
            field = FIELDS[title]
            return "\n".join(f":{field} {name}: {_inline(text)}" for name, text in items)
    words = _inline(" ".join(rest.split()))
    return f":{'returns' if title == 'Returns' else title}: {words}"


def _prose(text: str) -> str:
    out = []
    for paragraph in re.split(r"\n\s*\n", text.strip("\n")):
        lines = paragraph.split("\n")
        if all(line.startswith("    ") for line in lines):
            out.append(".. code-block:: text\n\n" + "\n".join(lines))
        elif all(" = " in line and "`" not in line for line in lines):
            out.append(".. code-block:: text\n\n" + "\n".join(f"    {line}" for line in lines))
        elif lines[0].startswith("- "):
            out.append("\n".join(_inline(line) for line in lines))
        else:
            out.append(_inline(" ".join(line.strip() for line in lines)))
    return "\n\n".join(out)


def _inline(text: str) -> str:
    """Code in double backticks; everything that reStructuredText would read as markup, escaped."""
    pieces = re.split(r"(`[^`]+`)", text)
    return "".join(
        f"\\ ``{piece[1:-1]}``\\ " if piece.startswith("`") and len(piece) > 2
        else re.sub(r"([\\*|_])", r"\\\1", piece)
        for piece in pieces
    )  # fmt: skip


__all__ = ["restructured"]
