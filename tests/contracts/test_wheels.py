"""What the script that builds Linux wheels promises and refuses; it builds none here."""

import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

SCRIPT = Path(__file__).parents[2] / ".ci/linux_wheels.py"
pytestmark = pytest.mark.skipif(not SCRIPT.exists(), reason="the script is in a checkout alone")

# From `readelf` of an extension by zig for glibc 2.17, and of one by the system's g++.
OLD = """
 0x0000000000000001 (NEEDED)             Shared library: [libm.so.6]
 0x0000000000000001 (NEEDED)             Shared library: [libc.so.6]
  0x0010:   Name: GLIBC_2.17  Flags: none  Version: 4
  0x0020:   Name: GLIBC_2.2.5  Flags: none  Version: 2
  [ 5] .dynsym           DYNSYM          0000000000000268 000268 000d20 18   A  9   1  8
"""
NEW = """
 0x0000000000000001 (NEEDED)             Shared library: [libstdc++.so.6]
 0x0000000000000001 (NEEDED)             Shared library: [libc.so.6]
  0x0010:   Name: GLIBC_2.32  Flags: none  Version: 4
  0x0020:   Name: GLIBCXX_3.4.30  Flags: none  Version: 2
  [27] .symtab           SYMTAB          0000000000000000 14d0c8 00e5c8 18     28 2177  8
"""


@pytest.fixture
def script() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(SCRIPT)))


def test_symbols_are_of_the_glibc_promised(script: SimpleNamespace) -> None:
    assert script.beyond(OLD) == []
    assert script.beyond(NEW) == [
        "libstdc++.so.6", "GLIBC_2.32", "GLIBCXX_3.4.30", ".symtab (not stripped)"
    ]  # fmt: skip
    assert script.beyond(OLD.replace("2.17", "2.18")) == ["GLIBC_2.18"]
    searched = " 0x000000000000001d (RUNPATH)            Library runpath: [/opt/python/lib]\n"
    assert script.beyond(OLD + searched) == ["libraries of /opt/python/lib"]


def test_what_is_compiled_for(script: SimpleNamespace, tmp_path: Path) -> None:
    pytest.importorskip("ziglang")
    found = script.cross_compilation(sys.executable, "aarch64", tmp_path)
    assert found["CXX"].endswith(" c++ -target aarch64-linux-gnu.2.17")
    assert found["LDCXXSHARED"] == f"{found['CXX']} -shared", "no folder of the interpreter"
    assert found["_PYTHON_HOST_PLATFORM"] == "linux-aarch64"
    minor = sys.version_info.minor
    assert found["SETUPTOOLS_EXT_SUFFIX"] == f".cpython-3{minor}-aarch64-linux-gnu.so"


def test_what_is_missing_is_said(
    script: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert script.main(["--out", str(tmp_path / "dist")]) == 2
    assert capsys.readouterr().err.startswith("linux_wheels: ")
    assert not (tmp_path / "dist").exists()
