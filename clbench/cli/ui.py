"""`clbench ui`: MLflow's pages on the tracked runs."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import NoReturn

from clbench.errors import UserError
from clbench.tracking import QUIET, tracking_uri

HOST = "127.0.0.1"


def ui_command(results: Path, port: int) -> NoReturn:
    """Replace this process by MLflow's server on the store of `results`, reachable from this machine only.

    Raises UserError where there is no store, where MLFLOW_TRACKING_URI names a server (which has pages of its own), or
    where the port is taken.
    """
    uri = tracking_uri(results)
    if uri.startswith(("http://", "https://")):
        raise UserError(f"MLFLOW_TRACKING_URI is a server with pages of its own: open {uri} in a browser")
    store = Path(uri.removeprefix("sqlite:///"))
    if uri.startswith("sqlite:///") and not store.is_file():
        raise UserError(
            f"no tracked runs: {store} does not exist; make a run, or log one with `clbench runs track RUN`"
        )
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise UserError(f"port {port} cannot be used ({error.strerror}); choose another with --port") from None
    sys.stderr.write(f"MLflow on {store}: open http://{HOST}:{port} in a browser; Ctrl-C ends it\n")
    sys.stdout.flush()
    sys.stderr.flush()
    where = ["--backend-store-uri", uri, "--host", HOST, "--port", str(port), "--workers", "1"]
    environment = {**os.environ, **QUIET, "PYTHONSAFEPATH": "1"}  # a user's http.py here is none of MLflow's business
    os.execve(sys.executable, [sys.executable, "-m", "mlflow", "server", *where], environment)
