"""`mmcl plot`: curves, lines and heat maps from the store of a sweep."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from mmcl_fast.errors import ConfigError
from mmcl_fast.files import prepare_directory
from mmcl_fast.plotting import curves
from mmcl_fast.plotting.figure_data import save_data
from mmcl_fast.plotting.picture import Picture
from mmcl_fast.plotting.sweep import draw


def plot_command(
    store: Path, shown: dict[str, Any], *, size: str | None, dpi: float, data: bool, out: Path
) -> int:
    """Plot the rows of a store.

    Args:
        store: Directory of the store.
        shown: Fields of a `Picture`, but for its size.
        size: Width and height in inches, `7,3`.
        dpi: Dots per inch.
        data: Write a CSV file beside the picture.
        out: Output file.

    Returns: Exit status 0.
    """
    curves.check_file(out, dpi)
    picture = Picture(size=None if size is None else _parse_size(size), **shown)
    drawn = draw(store, picture)
    prepare_directory(out.parent)
    curves.save(drawn.figure, out, dpi=dpi, style=picture.style)
    if data:
        save_data(drawn, out.with_suffix(".csv"))
    sys.stdout.write(f"wrote {out}: {drawn.runs} runs in {drawn.points} points\n")
    if drawn.left_out:
        sys.stderr.write(f"mmcl: {drawn.left_out} diverged or failed runs are left out\n")
    return 0


def _parse_size(text: str) -> tuple[float, float]:
    """`WIDTH,HEIGHT` in inches."""
    try:
        width, height = (float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"size: expected WIDTH,HEIGHT in inches, got {text!r}") from None
    return width, height


__all__ = ["plot_command"]
