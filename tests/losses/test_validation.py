from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from mmcl_fast.errors import BackendUnavailableError
from mmcl_fast.losses import info_nce

X, Y = torch.randn(10, 3, generator=torch.Generator().manual_seed(0)).split([4, 6])
L4, L6 = torch.arange(4), torch.arange(6)
HARD = {"hard_negatives": torch.zeros(4, 2, 3)}
META = torch.empty(4, 3, device="meta")
OTHER = {"negatives": "other_label"}
RANGE = "temperature: expected a number > 0 in the normal range of float32, got "

WRONG: list[tuple[type[Exception], dict[str, Any], str]] = [
    (TypeError, {"query": [[1.0]]}, "query: expected a tensor, got list"),
    (TypeError, {"key": None}, "key: expected a tensor, got NoneType"),
    (TypeError, {"key": X.numpy()}, "key: expected a tensor, got ndarray"),
    (ValueError, {"query": X[0]}, "query: expected [rows, features], got shape [3]"),
    (ValueError, {"key": X[None]}, "key: expected [rows, features], got shape [1, 4, 3]"),
    (TypeError, {"query": X.int()}, "query: expected dtype float16 | bfloat16 | float32 | float64, "
     "got int32"),
    (TypeError, {"query": X.to(torch.complex64)}, "query: expected dtype float16 | bfloat16 | "
     "float32 | float64, got complex64"),
    (TypeError, {"key": X.double()}, "key: expected the dtype of query, float32, got float64"),
    (TypeError, {"positive_key": X.half()}, "positive_key: expected the dtype of query, float32, "
     "got float16"),
    (ValueError, {"key": META}, "key: expected a tensor on cpu, got meta"),
    (ValueError, {"positive_key": META}, "positive_key: expected a tensor on cpu, got meta"),
    (ValueError, {"key": X[:, :2]}, "key: expected 3 features as in query, got 2"),
    (ValueError, {"positive_key": X[:, :2]}, "positive_key: expected 3 features as in query, "
     "got 2"),
    (ValueError, {"key": X[:3]}, "key: expected at least the 4 rows of query, whose positives they "
     "are (or give positive, positive_mask, targets or positive_key), got 3 rows"),
    (ValueError, {"positive_key": Y}, "positive_key: expected the 4 rows of query, got 6"),
    (ValueError, {"key": Y, "symmetric": True}, "key: expected the 4 rows of query with "
     "symmetric=True, got 6 rows"),
    (ValueError, {"positive_key": X, "symmetric": True}, "positive_key: expected None with "
     "symmetric=True, got a tensor"),
    (TypeError, {"symmetric": "yes"}, "symmetric: expected a bool, got str"),
    (ValueError, {"query": X[:0]}, 'query: expected at least 1 row with reduction="mean", got 0'),
    (ValueError, {"temperature": 0.0}, RANGE + "0.0"),
    (ValueError, {"temperature": -0.1}, RANGE + "-0.1"),
    (ValueError, {"temperature": float("nan")}, RANGE + "nan"),
    (ValueError, {"temperature": float("inf")}, RANGE + "inf"),
    (ValueError, {"temperature": torch.tensor(-1.0)}, RANGE + "-1.0"),
    (ValueError, {"temperature": torch.ones(2)}, "temperature: expected a tensor of one "
     "element, got shape [2]"),
    (ValueError, {"temperature": torch.ones((), device="meta")}, "temperature: expected a tensor "
     "on cpu as query is, got meta"),
    (TypeError, {"temperature": torch.tensor(1)}, "temperature: expected a floating tensor, "
     "got int64"),
    (TypeError, {"temperature": "0.1"}, "temperature: expected a number or a tensor of one "
     "element, got str"),
    (TypeError, {"temperature": True}, "temperature: expected a number or a tensor of one "
     "element, got bool"),
    (ValueError, {"temperature": 1e-60}, RANGE + "1e-60"),
    (ValueError, OTHER, 'labels: expected a tensor with negatives="other_label", got None'),
    (ValueError, OTHER | {"labels": L6}, "labels: expected shape [4], one label a row of query, "
     "got [6]"),
    (ValueError, OTHER | {"labels": L4[:, None]}, "labels: expected shape [4], one label a row of "
     "query, got [4, 1]"),
    (ValueError, OTHER | {"labels": L4, "key_labels": L6}, "key_labels: expected shape [4], one "
     "label a row of key, got [6]"),
    (ValueError, OTHER | {"labels": L4, "key": Y}, "key_labels: expected a tensor, as key has 6 "
     "rows and query 4, got None"),
    (ValueError, {"key_labels": L4}, "key_labels: expected None without labels, got a tensor"),
    (TypeError, OTHER | {"labels": [0, 1, 0, 1]}, "labels: expected a tensor, got list"),
    (TypeError, OTHER | {"labels": L4, "key_labels": L4.float()}, "key_labels: expected the dtype "
     "of labels, int64, got float32"),
    (TypeError, OTHER | {"labels": L4.to(torch.complex64)}, "labels: expected real labels, got "
     "complex64"),
    (ValueError, OTHER | {"labels": L4.to("meta")}, "labels: expected a tensor on cpu, got meta"),
    (ValueError, {"negatives": "none"}, "negatives: expected 'all' | 'other_label', got 'none'"),
    (ValueError, {"negatives": None}, "negatives: expected 'all' | 'other_label', got None"),
    (ValueError, {"stop_gradient": "query"}, "stop_gradient: expected None | 'key', got 'query'"),
    (ValueError, {"stop_gradient": True}, "stop_gradient: expected None | 'key', got True"),
    (ValueError, {"reduction": "avg"}, "reduction: expected 'mean' | 'sum' | 'none', got 'avg'"),
    (ValueError, {"exclude_self": True}, "exclude_self: expected False without positive, "
     "positive_mask, targets or positive_key, as row i of key is then the positive of query i, "
     "got True"),
    (TypeError, {"exclude_self": 1, "positive_key": X}, "exclude_self: expected a bool, got int"),
    (ValueError, {"positive": L4, "positive_key": X}, "positive: expected None beside positive_key,"
     " got a tensor"),
    (ValueError, {"positive": L4, "symmetric": True}, "positive: expected None with symmetric=True,"
     " got a tensor"),
    (TypeError, {"positive": L4.int()}, "positive: expected dtype int64, got int32"),
    (TypeError, {"positive": [0, 1, 2, 3]}, "positive: expected a tensor, got list"),
    (ValueError, {"positive": L6}, "positive: expected shape [4], one row of key a query, got [6]"),
    (ValueError, {"positive": torch.tensor([0, 1, 4, 2])}, "positive: expected rows of key, 0 .. 3,"
     " got 4"),
    (ValueError, {"positive": torch.tensor([0, -1, 3, 2])}, "positive: expected rows of key, 0 .. 3"
     ", got -1"),
    (ValueError, {"extra_negatives": X, "symmetric": True}, "extra_negatives: expected None with "
     "symmetric=True (whose direction would they be in? average two calls, each with its own), got "
     "a tensor"),
    (ValueError, {"extra_negatives": X[:, :2]}, "extra_negatives: expected 3 features as in query, "
     "got 2"),
    (TypeError, {"extra_negatives": X.half()}, "extra_negatives: expected the dtype of query, "
     "float32, got float16"),
    (ValueError, {"hard_negatives": X}, "hard_negatives: expected [4, negatives, features], got "
     "shape [4, 3]"),
    (ValueError, {"hard_negatives": Y[:, None]}, "hard_negatives: expected [4, negatives, features]"
     ", got shape [6, 1, 3]"),
    (ValueError, {"hard_negatives": X[:, None, :1]}, "hard_negatives: expected 3 features as in "
     "query, got 1"),
    (ValueError, {"hard_negative_counts": L4}, "hard_negative_counts: expected None without "
     "hard_negatives, got a tensor"),
    (TypeError, HARD | {"hard_negative_counts": [1, 1, 1, 1]}, "hard_negative_counts: expected a "
     "tensor, got list"),
    (TypeError, HARD | {"hard_negative_counts": L4.int()}, "hard_negative_counts: expected dtype "
     "int64, got int32"),
    (ValueError, HARD | {"hard_negative_counts": L6}, "hard_negative_counts: expected shape [4], "
     "one number a query, got [6]"),
    (ValueError, HARD | {"hard_negative_counts": torch.tensor([0, 1, 3, 2])},
     "hard_negative_counts: expected numbers in 0 .. 2, got 3"),
    (ValueError, HARD | {"hard_negative_counts": torch.tensor([0, -1, 3, 2])},
     "hard_negative_counts: expected numbers in 0 .. 2, got -1"),
    (ValueError, {"label_smoothing": -0.1}, "label_smoothing: expected a number in 0 .. 1, got "
     "-0.1"),
    (TypeError, {"label_smoothing": "0"}, "label_smoothing: expected a number, got str"),
    (ValueError, {"temperature": 10**400}, RANGE + "inf"),
    (ValueError, {"backend": ["torch"]}, "backend: expected one of \"auto\", \"triton\", "
     "\"torch\", got ['torch']"),
    (ValueError, {"backend": "tritn"},
     "backend: expected one of \"auto\", \"triton\", \"torch\", got 'tritn'"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "change", "message"), WRONG, ids=[w[2][:48] for w in WRONG])
def test_wrong_arguments(kind: type[Exception], change: dict[str, Any], message: str) -> None:
    with pytest.raises(kind) as caught:
        info_nce(**({"query": X, "key": X} | change))
    assert str(caught.value) == message


@pytest.mark.parametrize("temperature", [1, np.float32(0.5), np.float64(0.5), torch.tensor(0.5)])
def test_kinds_of_temperature(temperature: Any) -> None:
    assert torch.equal(
        info_nce(X, Y, temperature=temperature), info_nce(X, Y, temperature=float(temperature))
    )


def test_labels_are_not_used_when_all_are_negatives() -> None:
    assert torch.equal(info_nce(X, Y, labels=L4, key_labels=L6), info_nce(X, Y))


def test_a_named_backend_that_cannot_run_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    from mmcl_fast.losses import backends

    entry = backends.Backend("never", "mmcl_fast.never", lambda problem: f"M = {problem.columns}")
    monkeypatch.setitem(backends.BACKENDS, "never", entry)
    with pytest.raises(BackendUnavailableError, match=r"^never: M = 6$"):
        info_nce(X, Y, backend="never")


def test_importing_the_losses_imports_no_triton() -> None:
    program = "import sys, mmcl_fast.losses; sys.exit('triton' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
