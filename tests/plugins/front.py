"""A server before another one: it passes calls on, and fails as a test tells it."""

import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Front:
    """What comes, and what is answered instead of the server behind."""

    url: str = ""
    asked: list[dict[str, str]] = field(default_factory=list)
    """The headers of each call, in small letters."""
    answers: list[tuple[int, dict[str, str], bytes]] = field(default_factory=list)
    """Answered in turn, before anything is passed on again."""
    lose: int = 0
    """So many calls are passed on, and their answers lost."""

    @property
    def operations(self) -> list[str]:
        """What AWS was asked for, in order."""
        return [headers["x-amz-target"].rpartition(".")[2] for headers in self.asked]


@contextmanager
def front_of(behind: str, *, port: int = 0) -> Iterator[Front]:
    """A front before a server; `url` is where it listens."""
    front = Front()

    class Handler(BaseHTTPRequestHandler):
        wbufsize = -1  # head and body in one packet: two would wait for each other

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            front.asked.append({name.lower(): value for name, value in self.headers.items()})
            if front.answers:
                self.answer(*front.answers.pop(0))
                return
            request = urllib.request.Request(behind + self.path, data=body)
            for name, value in self.headers.items():
                if name.lower() not in {"host", "connection", "content-length"}:
                    request.add_header(name, value)
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    found = answer.status, dict(answer.headers), answer.read()
            except urllib.error.HTTPError as error:
                found = error.code, dict(error.headers), error.read()
            if front.lose:
                front.lose -= 1
                self.close_connection = True
                return
            self.answer(*found)

        def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() not in {"connection", "content-length", "date", "server"}:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    front.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield front
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
