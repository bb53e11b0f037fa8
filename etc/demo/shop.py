"""A small web shop, on a socket that its supervisor opened and holds for it."""

import json
import os
import signal
import threading
from html import escape
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import orders
from supervisor import passed_socket, tell

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="refresh" content="3"><title>The shop that stays open</title>
<style>
body {{ font: 1.1rem/1.6 system-ui, sans-serif; max-width: 36rem; margin: 3rem auto; }}
form {{ display: inline }} table {{ width: 100% }} td {{ padding: .2rem 0 }}
footer {{ color: #667; margin-top: 2rem }}
</style>
</head>
<body>
<h1>The shop that stays open</h1>
<p>{goods}</p>
<table>{orders}</table>
<footer>This page came from process {pid}.
Try <code>kill -9 {pid}</code>, and load it again.</footer>
</body>
</html>
"""


class Counter(BaseHTTPRequestHandler):
    """Where customers are served; the packer comes here too."""

    timeout = 5
    """Seconds a silent connection is kept."""

    def do_GET(self) -> None:
        """Show the shop, or say that it is well."""
        if self.path == "/":
            self.answer(HTTPStatus.OK, page(), "text/html; charset=utf-8")
        elif self.path == "/healthz":
            orders.recent(1)
            self.answer(HTTPStatus.OK, "open\n")
        else:
            self.answer(HTTPStatus.NOT_FOUND, "no such page\n")

    def do_POST(self) -> None:
        """Take an order, or hand the next one out to be packed."""
        body = self.rfile.read(min(int(self.headers.get("Content-Length") or 0), 1000)).decode()
        if self.path == "/orders":
            thing = parse_qs(body).get("thing", [""])[0]
            try:
                order = orders.place(thing)
            except KeyError:
                self.answer(HTTPStatus.BAD_REQUEST, f"we don't sell {thing!r}\n")
                return
            print(f"order {order.number}: one {order.thing}", flush=True)
            self.answer(HTTPStatus.SEE_OTHER, f"order {order.number}\n", location="/")
        elif self.path == "/pack":
            packed = orders.pack()
            text = json.dumps(packed._asdict() if packed else None)
            self.answer(HTTPStatus.OK, text, "application/json")
        else:
            self.answer(HTTPStatus.NOT_FOUND, "no such page\n")

    def answer(
        self,
        status: HTTPStatus,
        text: str,
        kind: str = "text/plain; charset=utf-8",
        *,
        location: str | None = None,
    ) -> None:
        """Send one answer, whole."""
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if location:
            self.send_header("Location", location)
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code: object = "-", size: object = "-") -> None:
        """Say nothing: a line for each health probe would drown the orders."""


def page() -> str:
    """The shop as HTML: what there is, what was bought, and who is serving."""
    goods = " ".join(
        f'<form method="post" action="/orders">'
        f'<button name="thing" value="{escape(name)}">{escape(name)} €{price}</button></form>'
        for name, price in orders.GOODS.items()
    )
    rows = "".join(
        f"<tr><td>order {order.number}</td><td>{escape(order.thing)}</td>"
        f"<td>{'packed' if order.packed else 'waiting'}</td></tr>"
        for order in orders.recent()
    )
    return PAGE.format(goods=goods, orders=rows, pid=os.getpid())


def main() -> None:
    """Serve until told to stop, then finish what is being served."""
    listening = passed_socket()
    # The instances share this socket: who loses the race for a connection must not wait in accept.
    listening.setblocking(False)
    server = ThreadingHTTPServer(listening.getsockname(), Counter, bind_and_activate=False)
    server.socket.close()
    server.socket = listening
    server.daemon_threads = False

    def close(signum: int, frame: object) -> None:
        del frame
        print(f"closing on {signal.Signals(signum).name}", flush=True)
        # shutdown waits for the loop that this handler has interrupted
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, close)
    print(f"open on {listening.getsockname()}, process {os.getpid()}", flush=True)
    # Asking the socket would not show who is ready: another instance may answer.
    tell("READY=1")
    server.serve_forever()
    server.server_close()
    print("closed", flush=True)


if __name__ == "__main__":
    main()
