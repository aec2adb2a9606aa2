"""What a release says of itself: one version, a changelog in its format."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import mmcl_fast
from mmcl_fast.cli import run as mmcl

ROOT = Path(__file__).parents[2]


def test_the_version_is_said_once_and_cited() -> None:
    assert version("mmcl-fast") == mmcl_fast.__version__
    cited = re.findall(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert cited == [mmcl_fast.__version__]


def test_the_lower_bounds_are_those_that_were_tested() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bounds = dict(re.match(r"([\w-]+)>=([\d.]+)", x).groups() for x in project["dependencies"])
    text = (ROOT / "constraints-lowest.txt").read_text()
    tested = dict(re.findall(r"^([\w-]+)==([\d.]+)$", text, re.MULTILINE))
    assert bounds.keys() == tested.keys()
    for name, bound in bounds.items():
        assert re.fullmatch(rf"{re.escape(bound)}(\.0)*", tested[name]), name


def test_the_command_says_its_version(capsys) -> None:
    assert mmcl(["--version"]) == 0
    assert capsys.readouterr().out == f"mmcl-fast {mmcl_fast.__version__}\n"


def test_every_public_name_is_in_the_reference() -> None:
    pages = {path.stem: path.read_text() for path in (ROOT / "docs/reference").glob("*.md")}
    text = "\n".join(pages.values())
    for name in mmcl_fast.__all__:
        is_error = name.endswith("Error") and "mmcl_fast.errors" in text
        is_page = name in pages or name == "reference"
        listed = re.search(rf":: mmcl_fast\.(\w+\.)?{name}$", text, re.MULTILINE)
        assert name == "__version__" or is_error or is_page or listed, name


def test_the_changelog_keeps_its_format() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    sections = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert sections[0] == "Unreleased"
    assert sections[1].startswith(f"{mmcl_fast.__version__} - ")
    for section in sections[1:]:
        assert re.fullmatch(r"\d+\.\d+\.\d+ - \d{4}-\d{2}-\d{2}", section), section
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.*)$", text, re.MULTILINE)) <= kinds
