"""What surrounds a Ray cluster: the interface it listens on, its token, and whether it answers."""

from __future__ import annotations

import os
import re
import secrets
import socket
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mmcl_fast.errors import BackendUnavailableError, ConfigError

BINDING = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
LOOPBACK: Mapping[str, str] = MappingProxyType(
    {
        # Read when ray is imported. A local cluster otherwise listens on every interface of the
        # machine (measured with ray 2.60 on Linux), where nothing but this process needs it.
        BINDING: "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
)
TOKEN_FILE = Path(".ray") / "auth_token"  # in the home directory, written by ray get-auth-token
ANSWER_SECONDS = 10.0
# Of HTTP/2, RFC 9113, sections 3.4 and 6.5: a client's first bytes, then an empty SETTINGS frame.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
HEADER_BYTES, SETTINGS = 9, 4


def require_loopback() -> None:
    """Raise ConfigError if ray is imported already, to listen on every interface."""
    if "ray" in sys.modules and os.environ.get(BINDING) != LOOPBACK[BINDING]:
        raise ConfigError(
            f"executor ray: expected {BINDING}=0 in the environment before ray is imported, so "
            "that its cluster listens on the loopback interface only; got an imported ray without"
        )


@cache
def own_token() -> Mapping[str, str]:
    """The variable for a local cluster's own token, one in a process, as Ray reads it once.

    Ray would write one into the home directory, and a cluster that the account starts later would
    refuse programs that do not know of it.
    """
    return MappingProxyType({"RAY_AUTH_TOKEN": secrets.token_hex(32)})


def token_of_account() -> Mapping[str, str]:
    """Variables for joining a cluster: with a token where this account has one.

    Ray enables it by itself where it starts a cluster, and not where it joins one. A cluster
    without tokens accepts one (seen with ray 2.60).
    """
    names = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
    has_token = any(os.environ.get(n) for n in names) or (Path.home() / TOKEN_FILE).is_file()
    return {"RAY_AUTH_MODE": "token"} if has_token and "RAY_AUTH_MODE" not in os.environ else {}


def check_answers(address: str) -> None:
    """Raise BackendUnavailableError unless an HTTP/2 server answers, which every Ray server is.

    Ray itself would retry for minutes where nothing listens, and wait for ever where what listens
    is silent.
    """
    match = re.fullmatch(r"(?:ray://)?([^:/]+):(\d+)", address)
    if not match:
        return  # such as "auto", which Ray resolves or refuses at once
    try:
        with socket.create_connection((match[1], int(match[2])), ANSWER_SECONDS) as connection:
            connection.sendall(PREFACE)
            header = connection.recv(HEADER_BYTES, socket.MSG_WAITALL)
    except TimeoutError:
        got = f"no answer in {ANSWER_SECONDS:.0f} s"
    except (OSError, OverflowError) as error:
        got = getattr(error, "strerror", None) or str(error)
    else:
        if len(header) == HEADER_BYTES and header[3] == SETTINGS:
            return
        got = "a server that is not Ray's"
    raise BackendUnavailableError(f"executor ray: expected a cluster at {address}, got {got}")


def of_this_machine(address: str, util: Any) -> str:
    """The address that Ray takes a loopback address for.

    That is the machine's address on its network, unless `RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER` is 0.

    Args:
        address: As the user gave it.
        util: The module `ray.util`.
    """
    host, _, port = address.rpartition(":")
    return f"{util.get_node_ip_address()}:{port}" if host in ("127.0.0.1", "localhost") else address


__all__ = [
    "LOOPBACK",
    "check_answers",
    "of_this_machine",
    "own_token",
    "require_loopback",
    "token_of_account",
]
