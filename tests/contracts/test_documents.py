"""Documents name only what exists: paths, options, commands."""

import itertools
import re
from pathlib import Path

import pytest

from mmcl_fast.cli.options import COMMANDS
from mmcl_fast.cli.parser import flags_of
from mmcl_fast.config import FIELD_NAMES

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "bench/README.md"])
SUFFIXES = "py|md|cpp|hpp|txt|toml|json|jsonl|sh|cff"


def flags(command: str) -> set[str]:
    return {*flags_of(COMMANDS[command]), "--help"}


ALL_FLAGS = set().union(*(flags(command) for command in COMMANDS))
BENCH_FLAGS = {
    flag
    for path in (ROOT / "bench").rglob("*.py")
    for flag in re.findall(r'add_argument\(\s*"(--[a-z-]+)"', path.read_text())
}
OTHER_FLAGS = BENCH_FLAGS
MADE_BY_COMMANDS = {
    "bench.jsonl",
    "figure1.json",
    "gpu-dry-run.jsonl",
    "phase.json",
    "run.json",
    "table1.json",
    "table1.md",
    "table1_colour_only.json",
    "theory.json",
    "theory.md",
}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_paths_exist(path: Path) -> None:
    for quoted in re.findall(rf"`([\w./-]+\.(?:{SUFFIXES}))`", path.read_text()):
        if quoted in MADE_BY_COMMANDS:
            continue
        assert (ROOT / quoted).exists() or (path.parent / quoted).exists(), quoted


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_and_options_exist(path: Path) -> None:
    text = path.read_text()
    for command, rest in re.findall(r"mmcl ([a-z0-9]+)([^`\n|#&]*)", text):
        assert command in COMMANDS, f"mmcl {command}"
        for flag in re.findall(r"--[a-z][a-z0-9-]*", rest):
            assert flag in flags(command), f"mmcl {command} {flag}"
    for flag in re.findall(r"`(--[a-z][a-z0-9-]*)", text):
        assert flag in ALL_FLAGS | OTHER_FLAGS, flag


def test_readme_has_one_command_to_run_and_one_to_test() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(re.findall(r"^pip install .*mmcl figure1$", text, re.MULTILINE)) == 1
    assert len(re.findall(r"^pip install .*pytest$", text, re.MULTILINE)) == 1


def test_every_symbol_of_the_config_is_in_the_notation() -> None:
    text = (ROOT / "docs/notation.md").read_text()
    missing = [name for name in FIELD_NAMES if f"`{name}`" not in text]
    assert not missing


SETTINGS = {
    "TrainConfig": "mmcl_fast/config.py",
    "Table1Config": "mmcl_fast/experiments/table1/protocol.py",
    "Views": "mmcl_fast/experiments/table1/protocol.py",
    "ColourRule": "mmcl_fast/data/mnist/colour_rule.py",
}


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_says_what_it_is(name: str) -> None:
    import ast

    tree = ast.parse((ROOT / SETTINGS[name]).read_text())
    body = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name).body
    for here, following in itertools.pairwise(body):
        if isinstance(here, ast.AnnAssign):
            assert isinstance(following, ast.Expr), ast.unparse(here)
            assert isinstance(following.value, ast.Constant), ast.unparse(here)


CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
FORMULA = re.compile(r"\$\$.*?\$\$|\$[^$]+\$", re.DOTALL)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_formulas_survive_markdown(path: Path) -> None:
    # In GitHub's Markdown a backslash before punctuation is an escape, in formulas, too.
    for formula in FORMULA.findall(CODE.sub("", path.read_text(encoding="utf-8"))):
        assert not re.search(r"\\[,;:!{}*_]", formula), formula
