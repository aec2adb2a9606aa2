"""Names of test cases."""

from __future__ import annotations

import re


def without_addresses(case: object) -> str:
    """A case's representation, the same in every process that collects it."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(case))[:60]
