"""Safetensors files with a digest of their content (`mmcl_fast/content_digest.py`)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mmcl_fast.content_digest import (
    BLANK,
    check,
    damaged,
    fill,
    read_section,
    safetensors_header,
)
from mmcl_fast.files import open_regular, write_atomically

DIGEST = "content_digest"  # the metadata's entry; files of version 0.1.0 have none


def write_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> Path:
    """Write tensors, on whatever device, and metadata: whole or not at all."""
    held = {name: x.detach().cpu().contiguous().clone() for name, x in tensors.items()}

    def write(temporary: Path) -> None:
        save_file(held, temporary, dict(metadata) | {DIGEST: BLANK})
        fill(temporary, safetensors_header)

    return write_atomically(path, write)


def read_tensors(path: Path, remedy: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors of a file, whose content is compared with its digest.

    Args:
        path: The file; one without a digest is of version 0.1.0 and read unchecked.
        remedy: What to do about a damaged file, for the message.

    Raises: DamagedFileError: the content is not what was written. OSError: there is no file.
    """
    try:
        with open_regular(path) as stream:
            section = safetensors_header(stream)
            has_digest = check(stream, section, read_section(stream, section), whole=True)
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            # The name is opened a second time, which another process may have written anew.
            if not os.path.samestat(os.fstat(stream.fileno()), path.stat()):
                raise ValueError("it was replaced while it was read")
        if DIGEST in metadata and not has_digest:
            raise ValueError("its digest is gone")
    except (SafetensorError, ValueError) as error:
        raise damaged(path, error, remedy) from error
    return metadata, tensors


__all__ = ["DIGEST", "read_tensors", "write_tensors"]
