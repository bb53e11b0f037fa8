"""What a program gets from the supervisor that started it: a socket, and somebody to talk to."""

import os
import socket
import sys

FIRST_PASSED = 3
"""The first descriptor that comes with LISTEN_FDS; 0, 1 and 2 are taken."""


def passed_socket() -> socket.socket:
    """The listening socket that came with LISTEN_FDS.

    If none came, the program ends with code 78: wrongly configured, and no restart heals it.
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or not os.environ.get("LISTEN_FDS"):
        print("no socket was passed: start me with sockets.http = ...", file=sys.stderr)
        sys.exit(os.EX_CONFIG)
    return socket.socket(fileno=FIRST_PASSED)


def tell(message: str) -> None:
    """Say something to the supervisor, such as READY=1; without one, nobody listens."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            # a leading @ stands for the abstract namespace
            channel.sendto(message.encode(), address.replace("@", "\0", 1))
