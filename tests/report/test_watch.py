"""The report on the loopback: that run's page and plots, and nothing else."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

from jaxalign.errors import UserError
from jaxalign.report.watch import LOOPBACK, Server, watch
from tests.folders import ROOT


@pytest.fixture
def run(tmp_path):
    """A run directory with a secret beside it, in it, and behind links."""
    folder = tmp_path / "run"
    (folder / "plots").mkdir(parents=True)
    (folder / "report.html").write_text("<p>page</p>")
    (folder / "plots" / "loss.png").write_bytes(b"png")
    (folder / "config.json").write_text("secret")
    (tmp_path / "secret.png").write_text("secret")
    (folder / "plots" / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "plots" / "inner.png").symlink_to(folder / "config.json")
    return folder


@pytest.fixture
def server(run):
    with Server(run, 0) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def answer(server, path, *, method="GET", host=None):
    connection = http.client.HTTPConnection(LOOPBACK, server.server_port, timeout=5)
    connection.putrequest(method, path, skip_host=True)
    connection.putheader("Host", server.names[0] if host is None else host)
    connection.endheaders()
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response, content


def test_page_and_plots_are_served(server):
    for path in ("/", "/report.html", "/?x=1"):
        response, content = answer(server, path)
        assert (response.status, content) == (200, b"<p>page</p>")
        assert (
            response.headers["Refresh"] == "5" and response.headers["Cache-Control"] == "no-store"
        )
    assert answer(server, "/plots/loss.png")[1] == b"png"
    (server.directory / "report.html").write_text("<p>next</p>")
    assert answer(server, "/")[1] == b"<p>next</p>"


@pytest.mark.parametrize(
    "path",
    [
        *("/config.json", "/../secret.png", "/plots/../config.json", "/plots/../../secret.png"),
        *("/plots/%2e%2e/config.json", "/plots/link.png", "/plots/inner.png", "/plots/"),
        *("/plots/..%2f..%2fsecret.png", "/plots/loss.png/", "/plots/none.png", "/metrics.jsonl"),
    ],
)
def test_nothing_else_is(server, path):
    response, content = answer(server, path)
    assert response.status == 404 and b"secret" not in content


def test_only_this_machine_by_its_own_name(server):
    assert server.server_address[0] == "127.0.0.1"
    assert answer(server, "/", host="evil.example")[0].status == 403
    assert answer(server, "/", host=server.names[1])[0].status == 200
    assert answer(server, "/", method="POST")[0].status == 501


def test_a_port_in_use_is_one_line(run):
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"^port {port} is in use; give another by --port$"):
            watch(run, port)


@pytest.mark.slow
def test_ctrl_c_ends_it_with_a_line(run):
    """A program of its own; the port is that of a socket that was just closed."""
    with socket.socket() as free:
        free.bind((LOOPBACK, 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "jaxalign", "report", str(run), "--watch", "--port", port]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as program:
        assert f"http://127.0.0.1:{port}/, Ctrl-C ends" in program.stdout.readline()
        program.send_signal(signal.SIGINT)
        rest, _ = program.communicate(timeout=20)
    assert (rest, program.returncode) == ("watching ended\n", 0)
