"""Names of the examples, and what each shows; free of torch, so the command line starts fast."""

from __future__ import annotations

from types import MappingProxyType
from typing import Literal

ExampleName = Literal["false-pairs", "modality-gap", "label-noise", "minority"]

ABOUT: MappingProxyType[ExampleName, str] = MappingProxyType(
    {
        "false-pairs": "mismatched pairs of multi-modal training against accuracy and purity",
        "modality-gap": "modality gap and temperature over time, learned and fixed",
        "label-noise": "label-noise gradient descent over n and SNR",
        "minority": "signals of frequent and of rare classes",
    }
)
"""What an example shows, in a line."""

SOURCES: MappingProxyType[ExampleName, str] = MappingProxyType(
    {
        "false-pairs": "Sun et al. (NeurIPS 2025)",
        "modality-gap": "Yaras et al. (CPAL 2025, arXiv 2412.07909)",
        "label-noise": "Huang, Han et al. (NeurIPS 2025, arXiv 2510.17526)",
        "minority": "Liao et al. (ICLR 2026, arXiv 2602.10357)",
    }
)
"""Whose figure it is about."""

__all__ = ["ABOUT", "SOURCES", "ExampleName"]
