"""Download of the MNIST files from several mirrors, resumable, with verified checksums."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

from mmcl_fast.data.mnist.files import FILES, Published, find_file
from mmcl_fast.data.mnist.idx import contents, md5_of
from mmcl_fast.errors import DataError, OutputError

# The mirrors of torchvision and of Google's CVDF, then the original site.
MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "http://yann.lecun.com/exdb/mnist/",
)
TIMEOUT_S = 30.0
CHUNK = 1 << 16
MAX_RESUMES = 5  # of one file from one mirror, as long as each brings something new
FAILURES = (urllib.error.URLError, http.client.HTTPException, OSError)
OnBytes = Callable[[str, int], None]


def fetch_digits(
    folder: Path,
    mirrors: Sequence[str] = MIRRORS,
    on_bytes: OnBytes | None = None,
    timeout_s: float = TIMEOUT_S,
) -> list[Path]:
    """Download the four files into `folder`; existing files with the right checksum are kept.

    A file is written as NAME.part and renamed when its size and MD5 are right, so an interrupted
    download is resumed, from the same or another mirror.

    Args:
        folder: Created if missing.
        mirrors: Base addresses, http or https, tried in order.
        on_bytes: Called with the name of a file and the number of its bytes so far.
        timeout_s: Timeout of a server, in seconds.

    Returns: The downloaded files.
    Raises: DataError: No mirror has the genuine file; the message has the reason of each.
        OutputError: The folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"data: expected a directory that can be written, got {str(folder)!r} "
            f"({error.strerror})"
        ) from error
    missing = [file for file in FILES.values() if not _is_here(folder, file)]
    return [_fetch(folder, file, mirrors, on_bytes, timeout_s) for file in missing]


def _is_here(folder: Path, file: Published) -> bool:
    path = find_file(folder, file)
    if path is None:
        return False
    try:
        return md5_of(contents(path)) == file.content_md5
    except DataError:
        return False


def _fetch(
    folder: Path,
    file: Published,
    mirrors: Sequence[str],
    on_bytes: OnBytes | None,
    timeout_s: float,
) -> Path:
    part, reasons = folder / f"{file.name}.part", []
    for mirror in mirrors:
        reason = _from_mirror(mirror + file.name, file, part, on_bytes, timeout_s)
        if reason is None:
            return part.replace(folder / file.name)
        reasons.append(f"{mirror}: {reason}")
    raise DataError(
        f"{file.name}: expected {file.size} bytes with MD5 {file.md5} from one of "
        f"{len(mirrors)} mirrors, got {'; '.join(reasons)}"
    )


def _from_mirror(
    url: str, file: Published, part: Path, on_bytes: OnBytes | None, timeout_s: float
) -> str | None:
    """Complete `part` from one mirror; None, or the reason of the failure."""
    reason = "nothing"
    for _ in range(1 + MAX_RESUMES):
        before = part.stat().st_size if part.exists() else 0
        if before >= file.size:
            before = _discard(part)
        try:
            _append(url, file, part, on_bytes, timeout_s)
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
        if size <= before:
            return reason if size == 0 else f"{reason} (stopped at byte {size})"
        reason = f"broke off at byte {size}"
    return reason


def _append(
    url: str, file: Published, part: Path, on_bytes: OnBytes | None, timeout_s: float
) -> None:
    """Append the missing bytes; a server that ignores the range sends the whole file."""
    size_before = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(
        url, headers={"Range": f"bytes={size_before}-"} if size_before else {}
    )
    with urllib.request.urlopen(request, timeout=timeout_s) as response:
        starts_here = (response.headers.get("Content-Range") or "").startswith(
            f"bytes {size_before}-"
        )
        resumed = size_before > 0 and response.status == http.client.PARTIAL_CONTENT and starts_here
        size = size_before if resumed else 0
        with part.open("ab" if resumed else "wb") as stream:
            # One byte more than published is enough to know that the file is another one.
            while size <= file.size and (chunk := response.read(CHUNK)):
                stream.write(chunk)
                size += len(chunk)
                if on_bytes:
                    on_bytes(file.name, size)


def _discard(part: Path) -> int:
    part.unlink()
    return 0


__all__ = ["MIRRORS", "fetch_digits"]
