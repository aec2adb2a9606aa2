"""What surrounds a Ray cluster, without Ray: who answers at an address, and which token is used."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from mmcl_fast.errors import BackendUnavailableError
from mmcl_fast.sweep.execute import ray_cluster
from mmcl_fast.sweep.execute.ray_cluster import (
    check_answers,
    of_this_machine,
    own_token,
    token_of_account,
)

SETTINGS_FRAME = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


@contextmanager
def server(answer: bytes | None) -> Iterator[str]:
    """A server that gives one answer; None: it listens, and is silent."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        connections = []

        def serve() -> None:
            connection, _ = listening.accept()
            connections.append(connection)
            if answer is not None:
                connection.recv(1000)
                connection.sendall(answer)
                connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        thread.join()
        for connection in connections:
            connection.close()


def test_a_cluster_answers() -> None:
    with server(SETTINGS_FRAME + b"more") as address:
        check_answers(address)
    check_answers("auto")  # is for Ray to resolve


@pytest.mark.parametrize(
    ("answer", "got"),
    [
        (None, "no answer in 0 s"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "a server that is not Ray's"),
        (b"", "a server that is not Ray's"),
    ],
    ids=["silent", "of HTTP/1", "closing"],
)
def test_another_server_is_refused(
    answer: bytes | None, got: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_cluster, "ANSWER_SECONDS", 0.3)
    with server(answer) as address, pytest.raises(BackendUnavailableError) as error:
        check_answers(address)
    assert str(error.value) == f"executor ray: expected a cluster at {address}, got {got}"


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:99999", "no.such.host.invalid:1"])
def test_nobody_listens(address: str) -> None:
    with pytest.raises(BackendUnavailableError, match=f"a cluster at {address}, got "):
        check_answers(address)


def test_a_loopback_address_is_the_machines_own() -> None:
    util = SimpleNamespace(get_node_ip_address=lambda: "10.1.2.3")
    assert of_this_machine("127.0.0.1:6379", util) == "10.1.2.3:6379"
    assert of_this_machine("localhost:6379", util) == "10.1.2.3:6379"
    for address in ("10.0.0.9:6379", "auto", "ray://127.0.0.1:10001"):
        assert of_this_machine(address, util) == address


def test_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*os.environ]:
        if name.startswith("RAY_AUTH"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(own_token()["RAY_AUTH_TOKEN"]) == 64
    assert own_token() is own_token(), "Ray reads it once in a process"
    assert token_of_account() == {}
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("x")
    assert token_of_account() == {"RAY_AUTH_MODE": "token"}
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert token_of_account() == {}, "the user has said so"
