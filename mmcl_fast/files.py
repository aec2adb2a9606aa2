"""Writing results: each file whole or not at all, and a clear error where it cannot be written."""

from __future__ import annotations

import csv
import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from safetensors import SafetensorError

from mmcl_fast.errors import MmclError, OutputError
from mmcl_fast.operating_system.files import open_for_reading

TEMPORARY_SUFFIX = ".tmp"


def prepare_directory(path: Path) -> Path:
    """Make a directory for results and prove that it can be written, before any work starts."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise OutputError(
            f"out: expected a directory that can be written, got {str(path)!r} ({error.strerror})"
        ) from error
    return path


def file_system_time(folder: Path) -> float:
    """Seconds since 1970 by the clock that dates the files of a folder.

    On a shared file system it is the server's, which this machine's may be days off.
    """
    with tempfile.TemporaryFile(dir=folder) as stream:
        return os.fstat(stream.fileno()).st_mtime


def write_atomically(
    path: Path,
    write: Callable[[Path], object],
    *,
    put: Callable[[Path, Path], object] = os.replace,
) -> Path:
    """Write through a temporary file that is synchronised and then renamed over `path`.

    Args:
        path: Final name.
        write: Fills the temporary file it is given, `.NAME.*.tmp` beside the final name: no pattern
            for results (`*.parquet`) matches it.
        put: Gives the complete temporary file, its first argument, the final name.
    """
    try:
        handle, name = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.name}.", suffix=TEMPORARY_SUFFIX
        )
    except OSError as error:
        raise _unwritable(path, error) from error
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.chmod(0o666 & ~_umask())
        put(temporary, path)
    except MmclError:
        raise
    except (OSError, SafetensorError) as error:
        raise _unwritable(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


@contextmanager
def open_regular(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading; a FIFO, a socket or a device is refused, not waited for.

    Raises: OSError: there is no such file, it may not be read, or it is no regular file.
    """
    descriptor = open_for_reading(path)
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise OSError(f"{_kind(mode)}, and no regular file")
    except OSError:
        os.close(descriptor)
        raise
    with os.fdopen(descriptor, "rb") as stream:
        yield stream


def _kind(mode: int) -> str:
    kinds = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a FIFO"}
    return kinds.get(stat.S_IFMT(mode), "a device or socket")


def write_csv(path: Path, columns: Mapping[str, Sequence[object]]) -> Path:
    """Write columns of one length as CSV with a header, whole or not at all."""

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8") as stream:
            rows = csv.writer(stream)
            rows.writerow(columns)
            rows.writerows(zip(*columns.values(), strict=True))

    return write_atomically(path, write)


def _unwritable(path: Path, error: Exception) -> OutputError:
    return OutputError(f"{path.name}: cannot be written to {path.parent} ({error})")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


__all__ = [
    "TEMPORARY_SUFFIX",
    "file_system_time",
    "open_regular",
    "prepare_directory",
    "write_atomically",
    "write_csv",
]
