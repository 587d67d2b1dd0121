"""The report of a run on the loopback, for a browser on this machine."""

import contextlib
import errno
import http.server
import re
from pathlib import Path
from typing import Any, cast

from jaxalign.errors import UserError
from jaxalign.system.files import short_path
from jaxalign.system.signals import deferred

LOOPBACK = "127.0.0.1"
PORT = 8008  # where none is given
REFRESH = 5  # seconds
PAGE = "report.html"
PLOT = re.compile(r"/plots/(\w[\w.-]*\.png)")
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:"


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers with the page and the plots of one run, and with nothing else."""

    def do_GET(self) -> None:
        """The page, a plot, or the status of a request for anything else."""
        server = cast(Server, self.server)
        if self.headers.get("Host") not in server.names:  # another site that names this machine
            return self.send_error(403)
        path = self.path.partition("?")[0]
        plot = PLOT.fullmatch(path)
        if path in ("/", f"/{PAGE}"):
            self._answer(server.directory / PAGE, "text/html; charset=utf-8")
        elif plot:
            self._answer(server.directory / "plots" / plot[1], "image/png")
        else:
            self.send_error(404)

    def _answer(self, path: Path, kind: str) -> None:
        content = content_of(cast(Server, self.server).directory, path)
        if content is None:
            return self.send_error(404)
        self.send_response(200)
        headers = {"Content-Type": kind, "Content-Length": str(len(content))}
        headers["Refresh"] = str(REFRESH)
        headers |= {"Cache-Control": "no-store", "Content-Security-Policy": POLICY}
        headers |= {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(content)

    def version_string(self) -> str:
        """Name of the server in its answers: nothing of Python and the machine."""
        return "jaxalign"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of requests."""


class Server(http.server.ThreadingHTTPServer):
    """Server of one run directory on the loopback."""

    daemon_threads = True
    timeout = 0.3  # seconds between looks at Ctrl-C

    def __init__(self, directory: Path, port: int):
        """Open the port; 0 is any that is free."""
        super().__init__((LOOPBACK, port), Handler)
        self.directory = directory
        self.names = [f"{name}:{self.server_port}" for name in (LOOPBACK, "localhost")]
        self.address = f"http://{self.names[0]}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a browser that went away."""


def content_of(directory: Path, path: Path) -> bytes | None:
    """Contents of a file in the run; None where there is none, or the path leads out by a link."""
    with contextlib.suppress(OSError):
        if path.resolve() == directory.resolve() / path.relative_to(directory) and path.is_file():
            return path.read_bytes()
    return None


def watch(directory: Path, port: int) -> None:
    """Serve the report of a run until Ctrl-C.

    Raises:
      UserError: the port is in use, or not for this user.
    """
    try:
        server = Server(directory, port)
    except OSError as error:
        why = (
            "is in use"
            if error.errno == errno.EADDRINUSE
            else f"cannot be opened: {error.strerror}"
        )
        raise UserError(f"port {port} {why}; give another by --port") from None
    with server, deferred("closing the page") as signals:
        print(f"{short_path(directory / PAGE)} at {server.address}, Ctrl-C ends", flush=True)
        while not signals:
            server.handle_request()
    print("watching ended")
