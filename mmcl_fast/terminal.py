"""Text of files and networks on a terminal, which must not obey it."""

from __future__ import annotations


def printable(text: str, *, keep: str = "") -> str:
    r"""A text in which control characters, as of terminal sequences, are written out (`\x1b`).

    So are formatting characters that reorder a line, and bytes of a name that are no UTF-8.

    Args:
        text: Any text.
        keep: Characters that stay, such as a newline.
    """
    return "".join(
        c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text
    )


__all__ = ["printable"]
