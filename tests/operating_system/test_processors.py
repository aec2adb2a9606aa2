"""What tells the CPUs of machines apart, from Linux's lists of x86-64 and ARM and without one."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmcl_fast.operating_system import processors
from mmcl_fast.operating_system.processors import cpu_identity, cpu_name, usable_cpus
from mmcl_fast.sweep.plan import numerics

X86 = "vendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 1\nmodel name\t: EPYC\n"
ARM = "processor\t: {0}\nBogoMIPS\t: 50.00\nCPU implementer\t: 0x41\nCPU part\t: {1}\n"
BIG_AND_SMALL = "\n".join(ARM.format(k, part) for k, part in enumerate(["0xd4d", "0xd46", "0xd46"]))


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    caches = (processors._blocks, processors._brand, processors.cpu_fields, numerics.processor)
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


@pytest.mark.parametrize(
    ("text", "name", "identity"),
    [
        (X86, "EPYC", "AuthenticAMD 25 1"),
        (ARM.format(0, "0xd0c"), *["ARM implementer 0x41 part 0xd0c"] * 2),
        (
            BIG_AND_SMALL,
            *["ARM implementer 0x41 part 0xd46 + ARM implementer 0x41 part 0xd4d"] * 2,
        ),
    ],
    ids=["x86-64", "ARM", "two kinds of core"],
)
def test_linux(
    text: str, name: str, identity: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(processors, "CPUINFO", tmp_path / "cpuinfo")
    assert (cpu_name(), cpu_identity()) == (name, identity)
    assert numerics.processor().startswith(identity + " ")


def test_macos_is_asked_for_the_brand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "sysctl"
    program.write_text('#!/bin/sh\n[ "$*" = "-n machdep.cpu.brand_string" ] && echo "Apple M2"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(processors, "CPUINFO", tmp_path / "absent")
    monkeypatch.setattr(processors, "BRAND", (str(program), *processors.BRAND[1:]))
    assert cpu_name() == cpu_identity() == "Apple M2"


def test_a_system_that_tells_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processors, "CPUINFO", tmp_path / "absent")
    monkeypatch.setattr(processors, "BRAND", (str(tmp_path / "absent"),))
    monkeypatch.setattr(processors.platform, "processor", lambda: "")
    assert (cpu_name(), cpu_identity()) == ("unknown", "")
    assert numerics.processor()


def test_cpus_without_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    assert usable_cpus() == len(os.sched_getaffinity(0))
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert usable_cpus() == 7
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cpus() == 1
