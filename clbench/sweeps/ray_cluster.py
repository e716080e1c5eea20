"""The Ray cluster of a sweep: joining one or starting one here, and what its nodes can hold."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from clbench import machine
from clbench.errors import UserError
from clbench.sweeps.job import Job

CONNECT_SECONDS = 3.0
STORE_BYTES = 128 << 20
LONGEST_TEMPORARY_PATH = 40  # sockets below it must stay under 107 characters
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
TOKEN_VARIABLES = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_gcs_server_request_timeout_seconds": "10",
}


@contextmanager
def joined(address: str | None) -> Iterator[bool]:
    """Ray, connected: to the cluster at `address`, or to one started here with this machine's cores where it is None;
    gives whether it was started here.

    A Ray that this process is connected to already is used, and left as it is. One that was started here is ended, and
    its files are removed. Raises UserError where Ray is missing, or where no cluster can be joined.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError:
        raise UserError("--engine ray needs Ray: pip install 'clbench[ray]'") from None
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    if ray.is_initialized():
        yield False
        return
    temporary = _temporary_folder() if address is None else None
    before = {name: os.environ.get(name) for name in TOKEN_VARIABLES}
    _set_own_token() if address is None else _take_users_token()
    try:
        with _own_signals():
            _start_here(temporary) if temporary is not None else _join(str(address))
        yield temporary is not None
    finally:
        with _own_signals():
            ray.shutdown()
        for name, old in before.items():
            os.environ.pop(name, None)
            os.environ.update({} if old is None else {name: old})
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def needs(job: Job) -> dict[str, float]:
    """What a job takes, by Ray's names of resources."""
    gpus = job.resources.gpus or (1 if job.spec.device == "cuda" else 0)
    found = {"CPU": float(job.resources.cpus), "GPU": float(gpus), "memory": float(job.resources.memory or 0)}
    return {name: amount for name, amount in found.items() if amount}


def nodes() -> list[Mapping[str, float]]:
    """Resources in all of each node that is alive."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def unmet(wanted: Mapping[str, float], found: list[Mapping[str, float]]) -> str | None:
    """Why no node can ever hold something that takes `wanted`, in one line; None where one can."""
    if any(all(node.get(name, 0.0) >= amount for name, amount in wanted.items()) for node in found):
        return None
    if any(amount > 1 and amount % 1 for name, amount in wanted.items() if name == "GPU"):
        return f"asks for {_plain('GPU', wanted['GPU'])}: use a whole number, or a part of one"
    asked = ", ".join(_plain(name, amount) for name, amount in wanted.items())
    nodes_with_cores = [node for node in found if node.get("CPU") or node.get("GPU")]
    there = sorted({", ".join(_plain(name, node.get(name, 0.0)) for name in wanted) for node in nodes_with_cores})
    have = " or ".join(there[:3]) if there else "no cores at all"
    return f"asks for {asked}, and no node of the cluster has that (they have {have}): lower its resources"


def _plain(name: str, amount: float) -> str:
    if name == "memory":
        return f"{amount / 1e9:.1f} GB of memory"
    return f"{amount:g} {name}{'s' if amount != 1 else ''}"


def _start_here(temporary: Path) -> None:
    import ray

    with _as_user_error("cannot start Ray on this machine"):
        ray.init(
            address="local",
            num_cpus=machine.cores(),
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            object_store_memory=STORE_BYTES,
            _temp_dir=str(temporary),
            **_quietly(),
        )


def _join(address: str) -> None:
    """Raises UserError within seconds: Ray itself would try for minutes."""
    import ray

    if not address.strip():
        raise UserError("--address is empty: use HOST:PORT, ray://HOST:PORT or auto")
    with _as_user_error(f"cannot join a Ray cluster at {address}"):
        place = _running_here() if address == "auto" else address
        if place is not None:
            _check_answer(place.removeprefix("ray://"), address)
            if not place.startswith("ray://"):
                _check_node_here(address)
        ray.init(address=place or address, **_quietly())


def _set_own_token() -> None:
    """For a Ray of our own, which nobody else on the machine can use then; Ray would leave one in the home folder."""
    if "RAY_AUTH_MODE" not in os.environ:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def _take_users_token() -> None:
    """For a cluster: as `ray start` does, the user's where there is one."""
    with suppress(ImportError, TypeError):  # of versions without tokens, or with other ways to them
        from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available

        maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


def _quietly() -> dict[str, Any]:
    """Ray's own messages would mix with the display and with JSON on stdout."""
    import ray

    with suppress(AttributeError):
        ray._private.worker._worker_logs_enabled = False
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    return {"logging_level": logging.CRITICAL, "log_to_driver": False}


def _running_here() -> str | None:
    """HOST:PORT of the cluster that this machine is a node of; None where this version of Ray has no way to ask."""
    try:
        from ray._private.services import canonicalize_bootstrap_address_or_die
    except ImportError:
        return None
    return str(canonicalize_bootstrap_address_or_die("auto"))


def _check_answer(place: str, address: str) -> None:
    """A gRPC server must answer there."""
    host, _, port = place.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise UserError(f"--address {address}: use HOST:PORT (as `ray start` prints it), ray://HOST:PORT or auto")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS) as connection:
            if os.environ.get("RAY_USE_TLS", "0") == "1":
                return
            connection.sendall(HTTP2_PREFACE)
            answer = connection.recv(9)
    except TimeoutError:
        raise UserError(f"no Ray cluster at {address}: no answer within {CONNECT_SECONDS:.0f} s") from None
    except OSError as error:
        raise UserError(f"no Ray cluster at {address}: {error.strerror or error}") from None
    if len(answer) < 4 or answer[3] != 4:  # every HTTP/2 server begins with a SETTINGS frame
        raise UserError(f"no Ray cluster at {address}: something else answers there")


def _check_node_here(address: str) -> None:
    """Whether this machine is a node of some cluster; Ray would wait for a minute."""
    try:
        from ray._private.services import find_node_ids
    except ImportError:
        return
    if not find_node_ids():
        raise UserError(
            f"this machine is no node of the Ray cluster at {address}: run `ray start --address={address}` here first, "
            "or use ray://HOST:10001"
        )


@contextmanager
def _as_user_error(what: str) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise UserError(f"{what}: {' '.join(lines[:3]) or type(error).__name__}") from None


@contextmanager
def _own_signals() -> Iterator[None]:
    """Ray sets a handler for SIGTERM: put back the one that was there."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def _temporary_folder() -> Path:
    usual = tempfile.gettempdir()
    place = usual if len(usual) <= LONGEST_TEMPORARY_PATH - len("/clbench-ray-12345678") else "/tmp"
    return Path(tempfile.mkdtemp(prefix="clbench-ray-", dir=place))
