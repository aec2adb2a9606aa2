"""Metrics of a sweep by import path, `module:function`: workers are processes of their own."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any

from mmcl_fast.errors import ConfigError
from mmcl_fast.training.observers import Metric, check_metric_name

Paths = tuple[tuple[str, str], ...]
"""Name and import path of each metric."""
PATH = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)")


def parse_metrics(texts: Iterable[str]) -> dict[str, str]:
    """Metrics as written on a command line, `module:function` or `name=module:function`."""
    found: dict[str, str] = {}
    for text in texts:
        name, _, path = text.rpartition("=")
        name = name or path.rpartition(":")[2].rpartition(".")[2]
        if name in found:
            raise ConfigError(f"metric: expected {name} once, got it twice")
        found[name] = path
    return found


def metric_paths(metrics: Mapping[str, str | Callable[..., Any]] | None) -> Paths:
    """The import paths of metrics, sorted by name; each is imported once to see that it can be.

    Args:
        metrics: Import paths or functions by name.

    Raises: ConfigError: a name that is taken, or a function that a worker cannot import.
    """
    if metrics is not None and not isinstance(metrics, Mapping):
        raise ConfigError(f"metrics: expected a mapping from names to functions, got {metrics!r}")
    paths = []
    for name, given in (metrics or {}).items():
        check_metric_name(name)
        path = given if isinstance(given, str) else _path_of(name, given)
        found = _imported(path)
        if not isinstance(given, str) and found is not given:
            raise ConfigError(f"metrics: expected {path} to be the function given as {name}")
        paths.append((name, path))
    return tuple(sorted(paths))


def import_metrics(paths: Paths) -> dict[str, Metric]:
    """The functions of import paths, by name.

    Raises: ConfigError: one cannot be imported.
    """
    return {name: _imported(path) for name, path in paths}


def _path_of(name: str, function: object) -> str:
    module, inner = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if not callable(function) or inner is None:
        raise ConfigError(
            f"metrics: expected a function or module:function as {name}, got {function!r}"
        )
    if module == "__main__" or not PATH.fullmatch(path := f"{module}:{inner}"):
        raise ConfigError(
            f"metrics: expected a function as {name} that workers can import, got {inner} of "
            f"{module}; put it into a module of its own"
        )
    return path


def _imported(path: str) -> Metric:
    match = PATH.fullmatch(path)
    if not match:
        raise ConfigError(
            f"metric: expected module:function, such as mmcl_fast.metrics:margin, got {path!r}"
        )
    # The script `mmcl` has its own folder on the path, and not the one that it is called in.
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found: Any = import_module(match[1])
        for part in match[2].split("."):
            found = getattr(found, part)
    except Exception as error:  # the module is the user's: anything may happen
        raise ConfigError(
            f"metric: expected a function that can be imported, got {path!r} "
            f"({type(error).__name__}: {error})"
        ) from error
    if not callable(found):
        raise ConfigError(f"metric: expected a function, got {path!r}, a {type(found).__name__}")
    metric: Metric = found
    return metric


__all__ = ["Paths", "import_metrics", "metric_paths", "parse_metrics"]
