"""The parent of a test's roles, in the place of systemd: starts them, reaps, leaves nobody behind.

    python parent.py reap|careless

A line of JSON on standard input, `{"run": [argv], "log": path, "env": {...}, "uid": n}`, is
answered with `{"pid": n}`. It is the subreaper of everything below it. `reap` waits for orphans at
once, as an init does; `careless` leaves them as zombies, as the init of many a container does. When
its input ends, it kills whatever is left below it.
"""

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time

PR_SET_CHILD_SUBREAPER = 36


def stat(pid: str) -> tuple[int, str] | None:
    """Parent and state of a process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return int(fields[1]), fields[0].decode()


def descendants() -> list[int]:
    """Everybody below this process who is alive."""
    parents: dict[int, list[int]] = {}
    dead = set()
    for name in os.listdir("/proc"):
        found = stat(name) if name.isdigit() else None
        if found is not None:
            parents.setdefault(found[0], []).append(int(name))
            if found[1] in "ZX":
                dead.add(int(name))
    todo, below = [os.getpid()], []
    while todo:
        children = parents.get(todo.pop(), [])
        todo += children
        below += [pid for pid in children if pid not in dead]
    return below


def run(order: dict[str, object], started: dict[int, subprocess.Popen[bytes]]) -> int:
    """Start a program in a session of its own; its pid."""
    argv, env = order["run"], order["env"]
    assert isinstance(argv, list)
    assert isinstance(env, dict)
    uid = order.get("uid")
    with open(str(order["log"]), "ab") as log:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=env,
            cwd="/",
            start_new_session=True,
            user=uid if isinstance(uid, int) else None,
            group=uid if isinstance(uid, int) else None,
            extra_groups=[] if isinstance(uid, int) else None,
        )
    started[child.pid] = child
    return child.pid


def reap(started: dict[int, subprocess.Popen[bytes]], *, everybody: bool) -> None:
    """Wait for those that have ended."""
    for pid, child in list(started.items()):
        if child.poll() is not None:
            del started[pid]
    while everybody:
        # Looked at before it is taken: what is a role's exit belongs to its Popen.
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None:
            return
        child_ = started.pop(found.si_pid, None)
        if child_ is not None:
            child_.wait()
        else:
            os.waitpid(found.si_pid, 0)


def main() -> None:
    """Obey until standard input ends."""
    everybody = sys.argv[1] == "reap"
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(write)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    started: dict[int, subprocess.Popen[bytes]] = {}
    while True:
        ready, _, _ = select.select([0, read], [], [])
        if read in ready:
            os.read(read, 4096)
            reap(started, everybody=everybody)
        if 0 in ready:
            line = sys.stdin.readline()
            if not line:
                break
            print(json.dumps({"pid": run(json.loads(line), started)}), flush=True)
    while left := descendants():
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.01)
        reap(started, everybody=True)
    reap(started, everybody=True)


main()
