"""Python without what Windows and macOS lack, for a process whose PYTHONPATH names this folder."""

import errno
import os
import select
import signal
import socket
import sys

from mmcl_fast import operating_system

for module, names in {
    os: [
        "O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK", "fork", "getloadavg", "killpg",
        "sched_getaffinity", "sched_setaffinity", "set_blocking",
    ],
    signal: ["SIGALRM", "SIGHUP", "SIGKILL", "SIGUSR1", "setitimer"],
}.items():  # fmt: skip
    for name in names:
        delattr(module, name)
for name in ("psutil", "resource"):  # with psutil, which imports resource here, memory is known
    sys.modules[name] = None  # type: ignore[assignment]

_stat, _select = os.stat, select.select


def stat(path, *arguments, **options):
    """Without Linux's folders of numbers; torch and psutil read some of them without asking."""
    if str(path).startswith(("/proc/", "/sys/fs/cgroup")):
        raise FileNotFoundError(errno.ENOENT, "no such folder", str(path))
    return _stat(path, *arguments, **options)


def select_sockets(read, write, exceptional, timeout=None):
    """Windows waits for sockets alone."""
    assert all(isinstance(x, socket.socket) for x in [*read, *write, *exceptional])
    return _select(read, write, exceptional, timeout)


os.stat, select.select = stat, select_sockets
operating_system.IS_LINUX = False
