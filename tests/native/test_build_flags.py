"""setup.py asks for which architecture it builds, and not on which; nothing is compiled."""

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def setup_py(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Names of setup.py, which is run without its call of setup()."""
    if not (ROOT / "setup.py").exists():
        pytest.skip("setup.py is in a checkout alone")
    pytest.importorskip("pybind11")
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("setuptools.setup", lambda **options: None)
    return runpy.run_path(str(ROOT / "setup.py"))


@pytest.mark.parametrize(
    ("platform", "archflags", "expected"),
    [
        ("linux-x86_64", "", {"x86_64"}),
        ("linux-aarch64", "", {"aarch64"}),
        ("linux-x86_64", "-arch arm64", {"x86_64"}),
        ("macosx-11.0-arm64", "", {"arm64"}),
        ("macosx-10.13-universal2", "", {"arm64", "x86_64"}),
        ("macosx-10.13-universal2", "-arch arm64", {"arm64"}),
        ("macosx-11.0-arm64", "-arch arm64 -arch x86_64", {"arm64", "x86_64"}),
        ("win-amd64", "", {"x86_64"}),
        ("win-arm64", "", {"arm64"}),
    ],
)
def test_architectures(
    platform: str, archflags: str, expected: set[str], setup_py: dict[str, Any]
) -> None:
    assert setup_py["architectures"](platform, archflags) == expected


class Compiler:
    """Notes what it is asked to compile."""

    compiler_type = "unix"
    compiler_cxx = ("true",)  # a program that every system has

    def __init__(self) -> None:
        self.asked: dict[str, list[str]] = {}

    def compile(self, sources: list[str], *_: object, extra_postargs: list[str]) -> list[str]:
        self.asked |= dict.fromkeys((Path(source).stem for source in sources), extra_postargs)
        return sources

    def initialize(self, platform: str) -> None:
        self.platform = platform


def asked_for(
    platform: str, setup_py: dict[str, Any], monkeypatch: pytest.MonkeyPatch, kind: str = "unix"
) -> dict[str, list[str]]:
    """Arguments of each source that is for x86-64 alone, as built for a platform."""
    build = setup_py["BuildNative"]
    parent = build.__mro__[1]
    ext = SimpleNamespace(extra_compile_args=["/EHsc", *setup_py["FLAGS"]], extra_objects=[])
    monkeypatch.setattr(parent, "build_extension", lambda self, ext: None)
    monkeypatch.setattr(parent, "build_extensions", lambda self: self.build_extension(ext))
    command = build.__new__(build)
    command.plat_name, command.build_temp, command.extensions = platform, "build", [ext]
    command.compiler = Compiler()
    command.compiler.compiler_type = kind
    command.build_extensions()
    assert len(ext.extra_objects) == len(command.compiler.asked)
    return command.compiler.asked


def test_flags_are_of_the_target(setup_py: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ARCHFLAGS", raising=False)
    assert asked_for("linux-aarch64", setup_py, monkeypatch) == {}
    assert asked_for("macosx-11.0-arm64", setup_py, monkeypatch) == {}
    here = asked_for("linux-x86_64", setup_py, monkeypatch)
    assert set(here) == {"avx2", "avx512"}
    assert here["avx2"][-2:] == ["-mavx2", "-mfma"]
    both = asked_for("macosx-11.0-universal2", setup_py, monkeypatch)
    assert both["avx2"][-4:] == ["-Xarch_x86_64", "-mavx2", "-Xarch_x86_64", "-mfma"]
    for arguments in (*here.values(), *both.values()):
        assert "-ffp-contract=off" in arguments


def test_windows_is_compiled_by_clang(
    setup_py: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "true")  # stands for clang-cl
    found = asked_for("win-amd64", setup_py, monkeypatch, "msvc")
    assert found["avx2"][:2] == ["/EHsc", "--target=x86_64-pc-windows-msvc"]
    assert found["avx2"][-2:] == ["/clang:-mavx2", "/clang:-mfma"]
    assert "/clang:-ffp-contract=off" in found["avx2"]
    assert all(flag.startswith("/clang:-") for flag in found["avx2"][2:])
    assert asked_for("win-arm64", setup_py, monkeypatch, "msvc") == {}
    with pytest.raises(SystemExit, match=r"needs clang-cl .* found .* for win32"):
        asked_for("win32", setup_py, monkeypatch, "msvc")
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(SystemExit, match=r"needs clang-cl .* found none for win-amd64"):
        asked_for("win-amd64", setup_py, monkeypatch, "msvc")
