"""A child's channel, a closed pipe and forks as on Windows, whose calls are recorded."""

import errno
import os
import subprocess
import types

import pytest

from mmcl_fast import operating_system
from mmcl_fast.operating_system import processes


class Recorded:
    """Calls of the functions that Python has on Windows alone."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.inheritable: list[tuple[int, bool]] = []
        msvcrt = types.SimpleNamespace(
            get_osfhandle=lambda descriptor: 1000 + descriptor,
            open_osfhandle=lambda handle, flags: (handle, flags),
        )
        monkeypatch.setattr(operating_system, "IS_WINDOWS", True)
        monkeypatch.setattr(processes, "import_module", {"msvcrt": msvcrt}.__getitem__)
        monkeypatch.setattr(
            os, "set_handle_inheritable", lambda *x: self.inheritable.append(x), raising=False
        )
        for name, value in {"STARTUPINFO": dict, "CREATE_NEW_PROCESS_GROUP": 512}.items():
            monkeypatch.setattr(subprocess, name, value, raising=False)


def test_the_channel_of_a_child_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = Recorded(monkeypatch)
    number, arguments = processes.for_child(5)
    assert recorded.inheritable == [(1005, True)]
    start = arguments.pop("startupinfo")
    assert start == {"lpAttributeList": {"handle_list": [number]}}, "no other handle is inherited"
    assert arguments == {"creationflags": 512}, "what Windows refuses is not asked for"
    assert processes.of_parent(number) == (1005, os.O_WRONLY)


def test_a_closed_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    invalid = OSError(errno.EINVAL, "Invalid argument")
    named = OSError(errno.EINVAL, "Invalid argument", "a|name")
    assert processes.is_closed_pipe(BrokenPipeError())
    assert not processes.is_closed_pipe(invalid)
    Recorded(monkeypatch)
    assert processes.is_closed_pipe(invalid)
    assert not processes.is_closed_pipe(named)
    assert not processes.is_closed_pipe(OSError(errno.ENOSPC, "No space left on device"))


def test_the_number_of_a_parent_tells_nothing_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    assert processes.has_lost_parent(os.getppid() + 1)
    assert not processes.has_lost_parent(os.getppid())
    Recorded(monkeypatch)
    assert not processes.has_lost_parent(os.getppid() + 1)


def test_a_measurement_without_forks(monkeypatch: pytest.MonkeyPatch) -> None:
    from mmcl_fast.bench.timing.memory import in_fork

    monkeypatch.delattr(os, "fork")
    assert in_fork(lambda: [os.getpid()]) == [os.getpid()]
