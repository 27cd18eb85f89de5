"""A real HTTP server over a folder that knows byte ranges and can be told to misbehave."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

STEP = 0.05


class FaultServer:
    """Serves `folder` at `url`. `fault` names what is done wrong, to requests for paths that end in `only`, `times` times, but
    not to those for the range `but`.

    Faults: slow, stall, reset, error, busy, truncate (the connection ends within the body), short (fewer bytes, honestly
    counted), lying (a Content-Length that is too large, then nothing), corrupt, shifted (another range, honestly told), resized
    (another size of the file), whole (ranges are ignored), missing, denied.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fault, self.only, self.but, self.times = "", "", "none", 10**9
        self.log: list[tuple[str, str]] = []  # (path, Range)
        self.wanted = ""  # an Authorization header without which everything is refused
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def misbehave(self, fault: str, *, only: str = "", but: str = "none", times: int = 10**9) -> None:
        self.fault, self.only, self.but, self.times = fault, only, but, times

    def behave(self) -> None:
        self.misbehave("")

    def asked(self, suffix: str = "") -> list[tuple[str, str]]:
        return [entry for entry in self.log if entry[0].endswith(suffix)]

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> FaultServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fault_for(self, path: str, byte_range: str) -> str:
        with self.lock:
            self.log.append((path, byte_range))
            if not self.fault or not path.endswith(self.only) or byte_range == self.but or self.times <= 0:
                return ""
            self.times -= 1
            return self.fault


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, *_: object) -> None:
        pass  # connections that were reset on purpose


def _handler(server: FaultServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.send_error(501)

        def do_GET(self) -> None:
            try:
                self._get()
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def _get(self) -> None:
            fault = server.fault_for(self.path, self.headers.get("Range", ""))
            if server.wanted and self.headers.get("Authorization") != server.wanted:
                fault = "denied"
            path = server.folder / self.path.lstrip("/")
            if fault in _REFUSALS or not path.is_file():
                return self._refuse(*_REFUSALS.get(fault, (404, {})))
            if fault == "stall":
                server.closing.wait()
                self.close_connection = True
                return None
            if fault == "reset":
                return self._reset()
            if fault == "slow":
                time.sleep(0.2)
            data = path.read_bytes()
            status, headers, body = _answer(data, "" if fault == "whole" else self.headers.get("Range", ""), fault)
            return self._send(status, headers, body, fault)

        def _send(self, status: int, headers: dict[str, str], body: bytes, fault: str) -> None:
            length = len(body)
            if fault == "corrupt":
                body = bytes(255 - byte for byte in body)
            if fault == "short":
                body = body[: length // 2]
                length = len(body)
            if fault == "truncate":
                body = body[: length // 2]
                self.close_connection = True
            if fault == "lying":
                length += 100
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(length)}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()
            if fault == "lying":
                server.closing.wait()
                self.close_connection = True

        def _refuse(self, status: int, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": "0"}.items():
                self.send_header(name, value)
            self.end_headers()

        def _reset(self) -> None:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
            raise ConnectionResetError

    return Handler


_REFUSALS: dict[str, tuple[int, dict[str, str]]] = {
    "error": (500, {}),
    "busy": (429, {"Retry-After": "0"}),
    "missing": (404, {}),
    "denied": (403, {}),
}


def _answer(data: bytes, byte_range: str, fault: str) -> tuple[int, dict[str, str], bytes]:
    if not byte_range:
        return 200, {}, data
    first, _, last = byte_range.removeprefix("bytes=").partition("-")
    start, end = int(first), min(int(last or len(data) - 1), len(data) - 1) + 1
    if fault == "shifted":
        start, end = start + 1, min(end + 1, len(data))
    total = len(data) + (1 if fault == "resized" else 0)
    if start >= len(data):
        return 416, {"Content-Range": f"bytes */{total}"}, b""
    return 206, {"Content-Range": f"bytes {start}-{end - 1}/{total}"}, data[start:end]


def until(condition: Callable[[], bool], seconds: float = 900) -> None:
    """Wait for a condition. Fails the test where it does not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(STEP)
