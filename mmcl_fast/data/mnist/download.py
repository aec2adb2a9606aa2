"""Download of the MNIST files from several mirrors, resumable, with verified checksums."""

from __future__ import annotations

import http.client
import os
import stat
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mmcl_fast.data.mnist.deadline import opened_within
from mmcl_fast.data.mnist.files import FILES, LARGEST, Published, find_file
from mmcl_fast.data.mnist.idx import contents, md5_of
from mmcl_fast.errors import DataError, OutputError
from mmcl_fast.operating_system.files import open_for_writing

# The mirrors of torchvision and of Google's CVDF, then the original site.
MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "http://yann.lecun.com/exdb/mnist/",
)
TIMEOUT_S = 30.0
FILE_S = 900.0  # of one file from one mirror: 11 kB/s for the largest
CHUNK = 1 << 16
MAX_RESUMES = 5  # of one file from one mirror, as long as each brings something new
FAILURES = (urllib.error.URLError, http.client.HTTPException, OSError)
OnBytes = Callable[[str, int], None]
SHOWN = 200  # characters of a server's reason


@dataclass(frozen=True)
class _Fetch:
    """One file that is to be had: into which `part`, and within what time from a mirror."""

    file: Published
    part: Path
    on_bytes: OnBytes | None
    timeout_s: float
    file_s: float


def fetch_digits(
    folder: Path,
    mirrors: Sequence[str] = MIRRORS,
    on_bytes: OnBytes | None = None,
    timeout_s: float = TIMEOUT_S,
    file_s: float = FILE_S,
) -> list[Path]:
    """Download the four files into `folder`; existing files with the right checksum are kept.

    A file is written as NAME.part and renamed when its size and MD5 are right, so an interrupted
    download is resumed, from the same or another mirror.

    Args:
        folder: Created if missing.
        mirrors: Base addresses, http or https, tried in order.
        on_bytes: Called with the name of a file and the number of its bytes so far.
        timeout_s: Longest wait for the next bytes of a server, in seconds.
        file_s: Longest time for one file from one mirror, in seconds.

    Returns: The downloaded files.
    Raises: DataError: No mirror has the genuine file; the message has the reason of each.
        OutputError: The folder cannot be written, or NAME.part is a link or no file.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"data: expected a directory that can be written, got {str(folder)!r} "
            f"({error.strerror})"
        ) from error
    missing = [file for file in FILES.values() if not _is_here(folder, file)]
    wanted = [
        _Fetch(file, _own_part(folder, file), on_bytes, timeout_s, file_s) for file in missing
    ]
    return [_fetch(folder, one, mirrors) for one in wanted]


def _is_here(folder: Path, file: Published) -> bool:
    path = find_file(folder, file)
    if path is None:
        return False
    try:
        return md5_of(contents(path, LARGEST)) == file.content_md5
    except DataError:
        return False


def _own_part(folder: Path, file: Published) -> Path:
    """The partial file, which is a file of this folder alone, or not there.

    Raises: OutputError: writing to it would change another file.
    """
    part = folder / f"{file.name}.part"
    try:
        found = part.lstat()
    except FileNotFoundError:
        return part
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        kind = "a link" if stat.S_ISLNK(found.st_mode) or found.st_nlink > 1 else "another kind"
        raise OutputError(
            f"{part.name}: expected a regular file or none, got {kind} in {str(folder)!r}; "
            "remove it"
        )
    return part


def _fetch(folder: Path, wanted: _Fetch, mirrors: Sequence[str]) -> Path:
    file, reasons = wanted.file, []
    for mirror in mirrors:
        reason = _from_mirror(mirror + file.name, wanted)
        if reason is None:
            return wanted.part.replace(folder / file.name)
        reasons.append(f"{mirror}: {reason[:SHOWN]}")
    raise DataError(
        f"{file.name}: expected {file.size} bytes with MD5 {file.md5} from one of "
        f"{len(mirrors)} mirrors, got {'; '.join(reasons)}"
    )


def _from_mirror(url: str, wanted: _Fetch) -> str | None:
    """Complete the file from one mirror; None, or the reason of the failure."""
    file, part, reason = wanted.file, wanted.part, "nothing"
    deadline = time.monotonic() + wanted.file_s
    for _ in range(1 + MAX_RESUMES):
        before = part.stat().st_size if part.exists() else 0
        if before >= file.size:
            before = _discard(part)
        try:
            _append(url, wanted, deadline)
        except FAILURES as error:
            reason = str(getattr(error, "reason", None) or error or type(error).__name__)
        size = part.stat().st_size if part.exists() else 0
        if size == file.size:
            md5 = md5_of(part.read_bytes())
            if md5 == file.md5:
                return None
            _discard(part)
            reason = f"MD5 {md5}"
            if before == 0:
                return reason
            continue  # what was there before may have been the bad half: once more from the start
        if size > file.size:
            _discard(part)
            return f"more than {file.size} bytes"
        if time.monotonic() >= deadline:
            return f"{size} bytes in {wanted.file_s:g} s"
        if size <= before:
            return reason if size == 0 else f"{reason} (stopped at byte {size})"
        reason = f"broke off at byte {size}"
    return reason


def _append(url: str, wanted: _Fetch, deadline: float) -> None:
    """Append the missing bytes; a server that ignores the range sends the whole file."""
    file, part = wanted.file, wanted.part
    size_before = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(
        url, headers={"Range": f"bytes={size_before}-"} if size_before else {}
    )
    left = deadline - time.monotonic()
    with opened_within(request, wanted.timeout_s, left) as response:
        starts_here = (response.headers.get("Content-Range") or "").startswith(
            f"bytes {size_before}-"
        )
        resumed = size_before > 0 and response.status == http.client.PARTIAL_CONTENT and starts_here
        size = size_before if resumed else 0
        with _writable(part, append=resumed) as stream:
            # One byte more than published is enough to know that the file is another one.
            while size <= file.size and (chunk := response.read1(CHUNK)):
                stream.write(chunk)
                size += len(chunk)
                if wanted.on_bytes:
                    wanted.on_bytes(file.name, size)


def _writable(part: Path, *, append: bool) -> BinaryIO:
    """The partial file; a link that has appeared meanwhile is not followed."""
    return os.fdopen(open_for_writing(part, append=append), "wb")


def _discard(part: Path) -> int:
    part.unlink()
    return 0


__all__ = ["MIRRORS", "fetch_digits"]
