"""What differs between operating systems is asked in `mmcl_fast.operating_system` alone."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = [
    path
    for folder in ("mmcl_fast", "kernels", "bench")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if "operating_system" not in path.parts
]
ASKED = {"sys.platform", "os.name", "os.uname", "platform.system", "platform.processor"}
# Of the standard library, what Windows or macOS lacks.
MODULES = {"fcntl", "grp", "msvcrt", "pwd", "resource", "selectors", "termios", "winreg"}
ABSENT = {
    "os": {
        "O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK", "fork", "getloadavg", "getppid", "geteuid",
        "getuid", "kill", "killpg", "sched_getaffinity", "sched_setaffinity", "set_blocking",
        "setsid", "sysconf",
    },
    "signal": {"SIGALRM", "SIGHUP", "SIGKILL", "SIGSTOP", "SIGUSR1", "alarm", "setitimer"},
}  # fmt: skip
ARGUMENTS = {"pass_fds", "preexec_fn", "process_group"}  # of subprocess.Popen
FOLDERS = ("/proc", "/sys/", "/dev/")


def asked(tree: ast.AST) -> Iterator[str]:
    """What a module uses that not every system has."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            name = f"{node.value.id}.{node.attr}"
            if name in ASKED or node.attr in ABSENT.get(node.value.id, ()):
                yield name
        elif isinstance(node, ast.Import):
            yield from (x.name for x in node.names if x.name.partition(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{x.name}" for x in node.names}
            absent = {f"{node.module}.{name}" for name in ABSENT.get(node.module or "", ())}
            yield from sorted(names & (ASKED | absent) | {node.module or ""} & MODULES)
        elif isinstance(node, ast.keyword) and node.arg in ARGUMENTS:
            yield node.arg
        elif isinstance(node, ast.Constant) and str(node.value).startswith(FOLDERS):
            yield str(node.value)


def without_encoding(tree: ast.AST) -> Iterator[str]:
    """Texts that are read or written in the system's encoding; ruff does not know every path."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            has_it = any(keyword.arg == "encoding" for keyword in node.keywords)
            if node.func.attr in ("read_text", "write_text") and not has_it:
                yield f"{node.func.attr} in line {node.lineno}"


@pytest.mark.parametrize("finds", [asked, without_encoding])
def test_no_other_module(finds) -> None:
    assert FILES
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
    found = {str(path.relative_to(ROOT)): sorted(finds(tree)) for path, tree in trees.items()}
    assert not {path: names for path, names in found.items() if names}


@pytest.mark.parametrize(
    "code",
    [
        "if sys.platform == 'linux': pass",
        "from os import name",
        "os.kill(1, 15)",
        "from signal import SIGHUP",
        "import resource",
        "Popen([], process_group=0)",
        "Path('/proc/self')",
    ],
)
def test_what_is_found(code: str) -> None:
    assert list(asked(ast.parse(code)))
