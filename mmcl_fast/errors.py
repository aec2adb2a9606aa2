"""Errors that name the argument, what was expected and what was got."""

from __future__ import annotations


class MmclError(Exception):
    """Base of every error a user can cause; the command line prints it as one line."""


class ConfigError(MmclError, ValueError):
    """A setting is unknown, out of range, or impossible together with another."""


class DataError(MmclError, ValueError):
    """Given data cannot be trained on."""


class EngineRefusedError(MmclError, ValueError):
    """The named engine cannot do exactly what is asked; the message says why and what can."""


class BackendUnavailableError(MmclError, RuntimeError):
    """The named backend cannot run this problem here; the message says why."""


class OutputError(MmclError, OSError):
    """A result cannot be written, or a file to resume from cannot be used."""


class DamagedFileError(OutputError):
    """A file's content is not what was written: damaged, cut short, or rewritten."""


__all__ = [
    "BackendUnavailableError",
    "ConfigError",
    "DamagedFileError",
    "DataError",
    "EngineRefusedError",
    "MmclError",
    "OutputError",
]
