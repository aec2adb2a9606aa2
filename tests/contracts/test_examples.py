"""Every example in README and the pages runs, and every command in them exists."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import shlex
import subprocess
import sys
import time
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

from mmcl_fast.cli.options import COMMANDS
from mmcl_fast.cli.parser import flags_of
from tests.support.peers import INSTALL, require

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "bench/README.md", *(ROOT / "docs").rglob("*.md")])
# Each block of these is a program of its own, and imports a package that tests do not need.
RECIPES = [ROOT / "docs/howto/trackers.md"]
WITH_CODE = [path for path in PAGES if "```python" in path.read_text() and path not in RECIPES]
BENCH_FLAGS = {"--json", "--short", "--quick", "--peers"}
OF_A_MODULE = {
    "bench.report": {"--check"},
    "bench.cpu.softmax": {"--json", "--quick"},
    "bench.science.table1_colours": {"--data", "--json"},
    "bench.science.table1_grid": {"--data", "--json"},
}


def blocks(path: Path, language: str) -> list[str]:
    """Code blocks of a page, those inside lists without their indentation."""
    found = re.findall(
        rf"^( *)```{language}\n(.*?)^ *```", path.read_text(), re.DOTALL | re.MULTILINE
    )
    return [re.sub(rf"^{indent}", "", code, flags=re.MULTILINE) for indent, code in found]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", WITH_CODE, ids=name)
def test_examples_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page run in their order, as one program, in an empty directory."""
    monkeypatch.chdir(tmp_path)
    code = blocks(path, "python")
    assert len(code) == path.read_text().count("```python")
    for package in re.findall(r"^(?:from|import) (\w+)", "\n".join(code), re.MULTILINE):
        if package in INSTALL:
            require(package)
    space = {"__name__": "__main__"}
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        for k, block in enumerate(code):
            exec(compile(block, f"{name(path)}, example {k}", "exec"), space)
    if "destroy_process_group" in "".join(code):
        # A module of DDP frees its group, which joins the group's thread with Python's lock held;
        # that thread may still need the lock to let go of the last collective.
        time.sleep(0.2)
    if "print(" in "".join(code):
        assert said.getvalue().strip()


@pytest.mark.parametrize(
    ("path", "code"),
    [
        pytest.param(path, c, id=re.findall(r"(?:from|import) (?!mmcl_fast|os\b)(\w+)", c)[0])
        for path in RECIPES
        for c in blocks(path, "python")
    ],
)
def test_recipes_run(
    path: Path, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a process of its own: trackers start threads and processes, and warn."""
    for package in re.findall(r"^(?:from|import) (\w+)", code, re.MULTILINE):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    monkeypatch.setenv("WANDB_SILENT", "true")
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_there_are_examples() -> None:
    assert {"README.md", "docs/losses.md", "docs/tutorial/phase.md"} <= set(map(name, WITH_CODE))


def console_lines(path: Path) -> list[str]:
    text = "\n".join(blocks(path, "bash")).replace("\\\n", " ")
    return [part.strip() for line in text.splitlines() for part in re.split(r"&&|;|\bdo\b", line)]


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_console_blocks_name_what_exists(path: Path) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    known = set(extras["optional-dependencies"])
    for line in console_lines(path):
        words = shlex.split(line, comments=True)
        flags = {word.partition("=")[0] for word in words if word.startswith("--")}
        if words[:1] == ["mmcl"]:
            assert words[1] in COMMANDS, line
            assert flags <= {*flags_of(COMMANDS[words[1]]), "--help"}, line
        elif re.match(r"python -m bench(\.\w+)+( |$)", line):
            module = importlib.import_module(f"mmcl_fast.{words[2]}")
            if hasattr(module, "__path__"):
                module = importlib.import_module(f"{module.__name__}.__main__")
            assert callable(module.main), line
            assert flags <= OF_A_MODULE.get(words[2], BENCH_FLAGS), line
        elif words[:2] == ["pip", "install"]:
            for asked in re.findall(r"\[([\w,]+)\]", line):
                assert set(asked.split(",")) <= known, line


def test_bench_modules_named_anywhere_exist() -> None:
    for path in PAGES:
        # A table's source names the command as it was at the commit beside it.
        typed = re.sub(r"<!-- (\w+) -->\n.*?<!-- /\1 -->", "", path.read_text(), flags=re.DOTALL)
        for module in re.findall(r"python -m (bench(?:\.\w+)+)\b(?!\.)", typed):
            place = ROOT / module.replace(".", "/")
            files = place.with_suffix(".py"), place / "__main__.py"
            assert any(file.exists() for file in files), f"{name(path)}: {module}"
