"""Downloads from a server on this machine: resumed, checked, and refused when they are wrong."""

import contextlib
import functools
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType

import pytest

from mmcl_fast.data.mnist import download
from mmcl_fast.data.mnist import files as mnist_files
from mmcl_fast.data.mnist.download import fetch_digits
from mmcl_fast.data.mnist.files import Published, load_digits
from mmcl_fast.data.mnist.idx import contents, md5_of
from mmcl_fast.errors import DataError, OutputError
from tests.support.digits import NAMES, write_digits

IMAGES = NAMES["train_images"]


class Mirror:
    """A server of a folder that can misbehave, and that remembers what it was asked."""

    def __init__(self, folder: Path, behaviour: str = "right") -> None:
        self.folder, self.behaviour = folder, behaviour
        self.asked: list[tuple[str, str | None]] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, self))
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


class Handler(BaseHTTPRequestHandler):
    def __init__(self, mirror: Mirror, *args) -> None:
        self.mirror = mirror
        super().__init__(*args)

    def log_message(self, *args) -> None:
        pass

    def do_GET(self) -> None:
        name, asked = self.path.lstrip("/"), self.headers.get("Range")
        self.mirror.asked.append((name, asked))
        behaviour = self.mirror.behaviour
        if behaviour == "missing":
            self.send_error(404)
            return
        data = (self.mirror.folder / name).read_bytes()
        if behaviour == "corrupt":
            data = data[:-1] + bytes([data[-1] ^ 1])
        elif behaviour == "longer":
            data += b"and more"
        elif behaviour == "endless":
            data += bytes(1 << 22)
        elif behaviour == "page":
            data = b"<html>moved</html>"
        start = 0
        if asked and behaviour not in ("no_range", "lying_range"):
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        partial = asked and behaviour != "no_range"
        self.send_response(206 if partial else 200)
        if partial:
            shown = 0 if behaviour == "lying_range" else start
            self.send_header("Content-Range", f"bytes {shown}-{len(data) - 1}/{len(data)}")
        body = data[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if behaviour == "breaks_off":
            body = body[: len(data) // 3]
        elif behaviour == "silent":
            body = b""
        with contextlib.suppress(ConnectionError):  # the reader has had enough
            self.wfile.write(body)


@pytest.fixture
def source(tmp_path: Path, monkeypatch) -> Path:
    """Small files that count as the published ones."""
    folder = write_digits(tmp_path / "source", train=40, test=20)
    files = {}
    for key, file in mnist_files.FILES.items():
        data = (folder / file.name).read_bytes()
        content = md5_of(contents(folder / file.name))
        files[key] = Published(file.name, len(data), md5_of(data), content, file.ndim)
    for module in (mnist_files, download):
        monkeypatch.setattr(module, "FILES", MappingProxyType(files))
    return folder


@pytest.fixture
def serve(source: Path) -> Iterator:
    mirrors: list[Mirror] = []

    def start(behaviour: str = "right") -> Mirror:
        mirrors.append(Mirror(source, behaviour))
        return mirrors[-1]

    yield start
    for mirror in mirrors:
        mirror.close()


def same(folder: Path, source: Path) -> bool:
    names = sorted(p.name for p in folder.iterdir())
    return names == sorted(NAMES.values()) and all(
        (folder / name).read_bytes() == (source / name).read_bytes() for name in names
    )


def test_all_four_are_fetched_and_then_left_alone(serve, source: Path, tmp_path: Path) -> None:
    mirror, target = serve(), tmp_path / "new" / "mnist"
    told: dict[str, int] = {}
    fetched = fetch_digits(target, [mirror.address], lambda name, size: told.update({name: size}))
    assert sorted(p.name for p in fetched) == sorted(NAMES.values())
    assert same(target, source)
    assert told == {name: (source / name).stat().st_size for name in NAMES.values()}
    load_digits(target)
    before = len(mirror.asked)
    assert fetch_digits(target, [mirror.address]) == []
    assert len(mirror.asked) == before


def test_only_the_bad_file_is_fetched_anew(serve, source: Path, tmp_path: Path) -> None:
    target = write_digits(tmp_path / "target", train=40, test=20)
    (target / IMAGES).write_bytes(b"\x1f\x8bbroken")
    mirror = serve()
    assert fetch_digits(target, [mirror.address]) == [target / IMAGES]
    assert mirror.asked == [(IMAGES, None)]
    assert same(target, source)


def test_a_partial_file_is_continued(serve, source: Path, tmp_path: Path) -> None:
    target, whole = tmp_path / "target", (source / IMAGES).read_bytes()
    target.mkdir()
    (target / f"{IMAGES}.part").write_bytes(whole[:100])
    mirror = serve()
    fetch_digits(target, [mirror.address])
    assert mirror.asked[0] == (IMAGES, "bytes=100-")
    assert mirror.asked[1] == (NAMES["train_labels"], None)
    assert same(target, source)


# What the partial file held; what the server does with ranges; requests for that file.
RESUMES = {
    "server_without_ranges": ("good", "no_range", ["bytes=100-"]),
    "server_that_restarts": ("good", "lying_range", ["bytes=100-"]),
    "bad_partial": ("bad", "right", ["bytes=100-", None]),
    "too_long_partial": ("long", "right", [None]),
}


@pytest.mark.parametrize("case", RESUMES)
def test_a_partial_file_that_cannot_be_continued(
    case: str, serve, source: Path, tmp_path: Path
) -> None:
    kind, behaviour, asked = RESUMES[case]
    target, whole = tmp_path / "target", (source / IMAGES).read_bytes()
    target.mkdir()
    held = {"good": whole[:100], "bad": b"x" * 100, "long": whole + b"x"}[kind]
    (target / f"{IMAGES}.part").write_bytes(held)
    mirror = serve(behaviour)
    fetch_digits(target, [mirror.address])
    assert [r for name, r in mirror.asked if name == IMAGES] == asked
    assert same(target, source)


def test_a_server_that_breaks_off_is_asked_for_the_rest(
    serve, source: Path, tmp_path: Path
) -> None:
    mirror, target = serve("breaks_off"), tmp_path / "target"
    fetch_digits(target, [mirror.address])
    size = (source / IMAGES).stat().st_size
    asked = [r for name, r in mirror.asked if name == IMAGES]
    assert asked[:2] == [None, f"bytes={size // 3}-"]
    assert same(target, source)


@pytest.mark.parametrize("behaviour", ["missing", "corrupt", "longer", "page", "silent"])
def test_the_next_mirror_helps(behaviour: str, serve, source: Path, tmp_path: Path) -> None:
    bad, good, target = serve(behaviour), serve(), tmp_path / "target"
    fetch_digits(target, [bad.address, good.address])
    assert bad.asked
    assert same(target, source)


SAYS = {
    "missing": "Not Found",
    "corrupt": "MD5 ",
    "longer": "more than ",
    "page": "broke off at byte|stopped at byte|MD5",
    "silent": "nothing",
}


@pytest.mark.parametrize("behaviour", SAYS)
def test_no_mirror_left_is_one_clear_error(behaviour: str, serve, tmp_path: Path) -> None:
    mirrors, target = [serve(behaviour), serve("missing")], tmp_path / "target"
    with pytest.raises(DataError, match=SAYS[behaviour]) as caught:
        fetch_digits(target, [m.address for m in mirrors])
    message, file = str(caught.value), download.FILES["train_images"]
    assert message.startswith(f"{IMAGES}: expected {file.size} bytes with MD5 {file.md5}")
    for mirror in mirrors:
        assert mirror.address in message
    assert not (target / IMAGES).exists()


def test_an_endless_answer_is_not_read_to_its_end(serve, tmp_path: Path) -> None:
    told: list[int] = []
    with pytest.raises(DataError, match="more than "):
        fetch_digits(tmp_path / "x", [serve("endless").address], lambda _, size: told.append(size))
    assert max(told) <= download.FILES["train_images"].size + download.CHUNK


def test_a_server_that_is_not_there(tmp_path: Path, source: Path) -> None:
    mirror = Mirror(source)
    mirror.close()
    with pytest.raises(DataError, match="refused"):
        fetch_digits(tmp_path / "target", [mirror.address])


def test_a_folder_that_cannot_be_made(tmp_path: Path, source: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="data: expected a directory"):
        fetch_digits(tmp_path / "file" / "below", [])


SLOW = {
    "body": b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n",
    "headers": b"HTTP/1.1 200 OK\r\nX-Slow: ",
}


@pytest.mark.parametrize("start", SLOW.values(), ids=SLOW)
def test_a_server_of_a_byte_now_and_then_is_given_up(
    start: bytes, source: Path, serve, tmp_path: Path
) -> None:
    """Each byte comes well within the timeout, and the file would take days."""
    stop = threading.Event()
    server = socket.create_server(("127.0.0.1", 0))

    def drip() -> None:
        with contextlib.suppress(OSError), server.accept()[0] as connection:
            connection.recv(1000)
            connection.sendall(start)
            while not stop.wait(0.02):
                connection.sendall(b"x")

    thread = threading.Thread(target=drip)
    thread.start()
    slow, target = f"http://127.0.0.1:{server.getsockname()[1]}/", tmp_path / "target"
    try:
        begun = time.monotonic()
        with pytest.raises(DataError, match=rf"{slow}: \d+ bytes in 0\.5 s; .*Not Found"):
            fetch_digits(target, [slow, serve("missing").address], timeout_s=5.0, file_s=0.5)
        assert time.monotonic() - begun < 4.0
    finally:
        stop.set()
        server.close()
        thread.join()


@pytest.mark.parametrize("kind", ["symlink", "dangling", "hard link", "folder"])
def test_a_partial_file_that_is_another_file(
    kind: str, serve, source: Path, tmp_path: Path
) -> None:
    target, victim = tmp_path / "target", tmp_path / "victim"
    target.mkdir()
    victim.write_text("precious")
    part = target / f"{NAMES['test_labels']}.part"
    if kind == "folder":
        part.mkdir()
    elif kind == "hard link":
        part.hardlink_to(victim)
    else:
        part.symlink_to(victim if kind == "symlink" else tmp_path / "new")
    mirror = serve()
    with pytest.raises(OutputError, match=r"\.part: expected a regular file or none, got"):
        fetch_digits(target, [mirror.address])
    assert mirror.asked == [], "refused before any work"
    assert victim.read_text() == "precious"
    assert not (tmp_path / "new").exists()


def test_a_link_that_appears_during_the_download(
    serve, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, victim = tmp_path / "target", tmp_path / "victim"
    target.mkdir()
    monkeypatch.setattr(download, "_own_part", lambda folder, file: folder / f"{file.name}.part")
    (target / f"{IMAGES}.part").symlink_to(victim)
    with pytest.raises(DataError, match="symbolic links"):
        fetch_digits(target, [serve().address])
    assert not victim.exists()


def test_what_a_server_says_is_shown_in_part(serve, source: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            with contextlib.suppress(OSError), server.accept()[0] as connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 404 " + b"\x1b[2J" * 1000 + b"\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(DataError) as caught:
            fetch_digits(tmp_path / "x", [f"http://127.0.0.1:{server.getsockname()[1]}/"])
        thread.join()
    assert len(str(caught.value)) < 500
