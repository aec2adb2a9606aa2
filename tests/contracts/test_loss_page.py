"""docs/losses.md: the tests it names exist, every feature has one or says why not."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/losses.md").read_text()
NAMED = sorted(set(re.findall(r"`(test_\w+\.py)::(test_\w+)`", TEXT)))
FEATURES = TEXT.partition("| feature | ours | test |")[2].partition("\n\n")[0].splitlines()[2:]


@pytest.mark.parametrize("file", sorted({file for file, _ in NAMED}))
def test_named_tests_exist(file: str) -> None:
    (path,) = (p for p in (ROOT / "tests").glob(f"*/{file}"))
    tree = ast.parse(path.read_text())
    known = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert {name for where, name in NAMED if where == file} <= known


def test_no_test_is_named_in_another_way() -> None:
    assert TEXT.count("::") == len(re.findall(r"`test_\w+\.py::test_\w+`", TEXT))


def test_every_feature_has_a_test_or_a_reason() -> None:
    assert len(FEATURES) >= 28
    for row in FEATURES:
        _, feature, ours, test, _ = row.split("|")
        assert ours.strip().startswith(("yes", "left out: ", "left out ", "modules ")), feature
        assert "::" in test or ours.strip().startswith("left out: "), feature
