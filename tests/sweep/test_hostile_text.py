"""Names of files, and what files say, are shown and not obeyed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mmcl_fast.cli.command_line import run
from mmcl_fast.sweep.store.store import Store
from mmcl_fast.terminal import printable
from tests.sweep.rewriting import rewrite

SMALL = ["--n", "12", "--m", "4", "--epochs", "2", "--data", "reduced", "--evaluate-every", "0"]
NAMES = {
    "markup": ("widths[m=16]", "widths[m=16]"),
    "closing markup": ("x[/b]", "x[/b]"),
    "emoji": (":smile:", ":smile:"),
    "escape": ("a\x1b[31mred", r"a\x1b[31mred"),
    "no UTF-8": (os.fsdecode(b"caf\xe9"), r"caf\udce9"),
    "two lines": ("new\nline", r"new\nline"),
}


@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize(("name", "shown"), NAMES.values(), ids=NAMES)
def test_a_store_of_any_name(
    name: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    for command in (
        ["sweep", *SMALL, "--out", name],
        ["status", name],
        ["status", name, "--verify"],
    ):
        assert run(command) == 0
        assert shown in capsys.readouterr().out
    (Path(name) / "parts" / "no part").touch()
    assert run(["status", name]) == 2
    assert f"in {shown}/parts, got a name" in capsys.readouterr().err


@pytest.mark.usefixtures("inline")
def test_what_a_part_says_is_shown_and_not_obeyed(tmp_path: Path, capsys) -> None:
    assert run(["sweep", *SMALL, "--out", str(tmp_path)]) == 0
    part = Store(tmp_path).part(0)
    rewrite(part, environment={"cpu": "\x1b]0;title\x07[red]chip[/blue]"})
    capsys.readouterr()
    assert run(["status", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert r"\x1b]0;title\x07[red]chip[/blue]" in out
    assert "\x1b" not in out
    rewrite(part, schema="\x1b[2J")
    assert run(["status", str(tmp_path)]) == 2
    assert r"got one of store format \x1b[2J" in capsys.readouterr().err


def test_printable_text_stays_as_it_is() -> None:
    assert printable("é → π 漢字 [b]") == "é → π 漢字 [b]"
    assert printable("a\nb\x1b\u202e\x9b", keep="\n") == "a\nb\\x1b\\u202e\\x9b"
