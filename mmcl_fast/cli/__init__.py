"""The `mmcl` command. Its parts load on first use: importing one command loads no other's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmcl_fast.cli.command_line import main as main
    from mmcl_fast.cli.command_line import run as run


if not TYPE_CHECKING:  # a type checker would take any misspelt name for one of `Any`

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from mmcl_fast.cli import command_line

        value = getattr(command_line, name)
        globals()[name] = value
        return value


__all__ = ["main", "run"]
