"""A web page on an origin of its own, in a real browser."""

from __future__ import annotations

import subprocess
import tempfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Queue
from threading import Thread
from typing import Any, Final

CHROMIUM: Final = "chromium"


class BrowserPage:
    """A page whose script calls `report(text)` once; it is served on loopback, with a port that the service does not have."""

    def __init__(self) -> None:
        self._html = b""
        self._reports: Queue[str] = Queue()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def origin(self) -> str:
        """Origin of the page."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def run(self, script: str, timeout_s: float = 60) -> str:
        """Open the page with this script as an async function, and return what it reports, or the error that it ends with."""
        report = 'const report = (text) => fetch("/report", { method: "POST", body: text });'
        self._html = (
            f"<!doctype html><script>{report} (async () => {{ {script} }})().catch((error) => report(String(error)));</script>".encode()
        )
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
            options = ("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", f"--user-data-dir={profile}")
            process = subprocess.Popen([CHROMIUM, *options, self.origin], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                return self._reports.get(timeout=timeout_s)
            finally:
                process.terminate()
                process.wait()

    def close(self) -> None:
        """Stop serving the page."""
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        page = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                self.wfile.write(page._html)

            def do_POST(self) -> None:
                page._reports.put(self.rfile.read(int(self.headers["Content-Length"])).decode())
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Log nothing."""

        return Handler
