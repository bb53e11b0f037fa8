import os
import socket
from pathlib import Path

from atlasd.core.child import _last_line, environment, listening_pid


def test_a_child_does_not_hear_what_systemd_says_to_its_parent() -> None:
    own = {"PATH": "/bin", "NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "1", "LISTEN_FDS": "1"}
    assert environment(own) == {"PATH": "/bin"}


def test_nobody_listens_where_there_is_no_socket_or_a_dead_one(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    assert listening_pid(path) is None
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    assert listening_pid(path) is None


def test_who_listens_is_known_by_the_kernel(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        assert listening_pid(path) == os.getpid()


def test_the_last_line_of_a_log_says_why_it_ended(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert _last_line(str(log)) == ""
    log.write_text("a\nit is broken\n\n")
    assert _last_line(str(log)) == "it is broken"
