"""Parquet files of a store: written and read with a digest of their content.

Our own metadata are JSON under the key `mmcl`; the digest (`mmcl_fast/content_digest.py`) is in the
footer, too. A file is opened once, so one that is replaced meanwhile is read as it was.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from mmcl_fast.content_digest import (
    BLANK,
    check,
    damaged,
    fill,
    parquet_footer,
    read_section,
)
from mmcl_fast.errors import MmclError
from mmcl_fast.files import open_regular

KEY = b"mmcl"  # of our metadata
DIGEST_KEY = "mmcl_content_digest"
STATED = "content_digest"  # in our metadata: the file has a digest
READ_ERRORS = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    OverflowError,
    RecursionError,
    pa.ArrowException,
)


@dataclass(frozen=True)
class OpenParquet:
    """An open file whose digest has been compared.

    Attributes:
        stream: The file.
        footer: Its footer.
        has_digest: False for a file of version 0.1.0.
    """

    stream: BinaryIO
    footer: pq.FileMetaData
    has_digest: bool

    def metadata(self) -> dict[str, Any]:
        """Our metadata.

        Raises: KeyError, TypeError, ValueError: there are none, or they state a digest that the
            file does not have, as another program leaves it.
        """
        found = json.loads(self.footer.metadata[KEY])
        if not isinstance(found, dict):
            raise TypeError(f"metadata that are a {type(found).__name__}")
        if STATED in found and not self.has_digest:
            raise ValueError("its digest is gone, as another program leaves it")
        return found

    def rows(self) -> pq.ParquetFile:
        """The file's rows, whose pages are compared with their checksums as they are read."""
        return pq.ParquetFile(self.stream, metadata=self.footer, page_checksum_verification=True)

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows.

        Without Arrow's threads: one that lets go of what it read from a Python file while the
        interpreter ends aborts the process.
        """
        with self.rows() as file:
            return file.read(columns=columns, use_threads=False)


@contextmanager
def parquet_writer(
    path: Path,
    schema: pa.Schema,
    metadata: Mapping[str, Any],
    *,
    store_schema: bool = True,
    **options: object,
) -> Iterator[pq.ParquetWriter]:
    """A writer of tables of one schema, which closes the file with our metadata and a digest.

    Args:
        path: The file.
        schema: Schema of the tables.
        metadata: Plain values for JSON.
        store_schema: Keep the types of Arrow in the file; else dictionaries are read as plain
            columns.
        options: Further options of `pq.ParquetWriter`.
    """
    told = {KEY: json.dumps(dict(metadata) | {STATED: "sha256"})}
    # Opened here: pyarrow takes no names that are no UTF-8.
    with (
        path.open("wb") as sink,
        pq.ParquetWriter(
            sink,
            schema.with_metadata(told),
            compression="zstd",
            write_page_checksum=True,
            store_schema=store_schema,
            **options,
        ) as writer,
    ):
        yield writer
        # Metadata of the schema go with it.
        writer.add_key_value_metadata({DIGEST_KEY: BLANK} | ({} if store_schema else told))
    fill(path, parquet_footer)


def write_parquet(table: pa.Table, path: Path, metadata: Mapping[str, Any], **options: Any) -> None:
    """Write one table as `parquet_writer` does."""
    with parquet_writer(path, table.schema, metadata, **options) as writer:
        writer.write_table(table)


@contextmanager
def open_parquet(path: Path, remedy: str, *, whole: bool) -> Iterator[OpenParquet]:
    """Open a file, compare it with its digest, and name it in every error of reading it.

    Args:
        path: The file.
        remedy: What to do about a damaged file, for the message.
        whole: Compare all bytes; else those of the footer.

    Raises: DamagedFileError: the content is not what was written, or cannot be read.
    """
    try:
        with open_regular(path) as stream:
            section = parquet_footer(stream)
            content = read_section(stream, section)
            has_digest = check(stream, section, content, whole=whole)
            footer = pq.read_metadata(pa.BufferReader(bytes(content)))
            yield OpenParquet(stream, footer, has_digest)
    except MmclError:
        raise
    except READ_ERRORS as error:
        raise damaged(path, error, remedy) from error


__all__ = ["KEY", "STATED", "OpenParquet", "open_parquet", "parquet_writer", "write_parquet"]
