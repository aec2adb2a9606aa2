"""What a release says of itself: one version, a changelog in its format."""

import re
from importlib.metadata import version
from pathlib import Path

import mmcl_fast

ROOT = Path(__file__).parents[2]


def test_the_version_is_said_once_and_cited() -> None:
    assert version("mmcl-fast") == mmcl_fast.__version__
    cited = re.findall(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert cited == [mmcl_fast.__version__]


def test_the_changelog_keeps_its_format() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    sections = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert sections[0] == "Unreleased"
    for section in sections[1:]:
        assert re.fullmatch(r"\d+\.\d+\.\d+ - \d{4}-\d{2}-\d{2}", section), section
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.*)$", text, re.MULTILINE)) <= kinds
