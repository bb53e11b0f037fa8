"""The programs that services run in these tests: `python program.py VERB ARGUMENT...`."""

import array
import json
import os
import select
import signal
import socket
import sys
import time


def say(text: str) -> None:
    """Write a whole line at once; no buffer of ours may lose it."""
    data = text.encode() + b"\n"
    while data:
        data = data[os.write(1, data) :]


def notify(text: str) -> None:
    """Tell the supervisor."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
        link.sendto(text.encode(), os.environ["NOTIFY_SOCKET"])


def forever() -> None:
    """Live until somebody ends it."""
    while True:
        signal.pause()


def leave(code: int = 0) -> None:
    """End with this code at TERM."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(code))


def sleep(*_mark: str) -> None:
    """Do nothing, in a way that can be told apart by the arguments."""
    forever()


def count(pause: str, *_mark: str) -> None:
    """Write numbered lines; at TERM the last one tells how many there were."""
    over = False

    def stop(*_: object) -> None:
        nonlocal over
        over = True

    signal.signal(signal.SIGTERM, stop)
    number = 0
    while not over:
        number += 1
        say(str(number))
        time.sleep(float(pause))
    say(f"last {number}")


def burst(seed: str) -> None:
    """Write lines of any length to both streams, without a pause; at TERM the last one tells."""
    over = False

    def stop(*_: object) -> None:
        nonlocal over
        over = True

    signal.signal(signal.SIGTERM, stop)
    number = 0
    while not over:
        number += 1
        data = long_line(int(seed), number).encode() + b"\n"
        while data:
            data = data[os.write(1 + number % 2, data) :]
        if number % 50 == 0:
            time.sleep(0.002)
    say(f"last {number}")


def long_line(seed: int, number: int) -> str:
    """The line of this number: mostly short, now and then much longer than a pipe's page."""
    mixed = (seed * 2654435761 + number * 40503) & 0xFFFFFFFF
    length = mixed % 120 if mixed % 97 else mixed % 20000
    return f"{number} " + chr(97 + number % 26) * length


def end_when(path: str, code: str) -> None:
    """End as soon as the file is there: by a signal for a negative code."""
    while not os.path.exists(path):
        time.sleep(0.01)
    if int(code) < 0:
        os.kill(os.getpid(), -int(code))
    os._exit(int(code))


def crash(code: str, *words: str) -> None:
    """Say something and end."""
    for word in words:
        os.write(2, word.encode() + b"\n")
    os._exit(int(code))


def stubborn() -> None:
    """Ignore TERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    say("stubborn")
    forever()


def daemonize(mark: str) -> None:
    """Leave a daemon behind, forked twice, in a session of its own, and go on."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            nothing = os.open("/dev/null", os.O_RDWR)
            for fd in (0, 1, 2):
                os.dup2(nothing, fd)
            os.chdir("/")
            become(mark)
        os._exit(0)
    os.wait()
    say("ready")
    leave()
    forever()


def escape(mark: str) -> None:
    """Have a child in a session of its own that ignores TERM."""
    if os.fork() == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        become(mark)
    say("ready")
    leave()
    forever()


def stopped(mark: str) -> None:
    """Have a child that is stopped."""
    child = os.fork()
    if child == 0:
        become(mark)
    time.sleep(0.2)  # until it has become itself
    os.kill(child, signal.SIGSTOP)
    say("ready")
    leave()
    forever()


def family(mark: str, children: str, grandchildren: str) -> None:
    """Have many grandchildren."""
    for _ in range(int(children)):
        if os.fork() == 0:
            for _ in range(int(grandchildren)):
                if os.fork() == 0:
                    os.execvp("sleep", [mark, "100000"])
            os.execvp("sleep", [mark, "100000"])
    say("ready")
    leave()
    forever()


def become(mark: str) -> None:
    """Become another program, which bears the mark among its arguments."""
    os.execv(sys.executable, [sys.executable, "-I", "-S", __file__, "sleep", mark])


def tell(*moves: str) -> None:
    """Carry out words: `READY=1` is sent, a number is a pause, `file:` waits for a file."""
    leave()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for move in moves:
        if "=" in move:
            notify(move.replace(";", "\n"))
        elif move.startswith("file:"):
            while not os.path.exists(move[5:]):
                time.sleep(0.01)
        elif move.startswith("touch:"):
            os.close(os.open(move[6:], os.O_CREAT))
        elif move.startswith("say:"):
            say(move[4:])
        else:
            time.sleep(float(move))
    forever()


def reloads(path: str) -> None:
    """Be ready, and reload at HUP as the notify protocol has it; each time the file grows."""

    def hangup(*_: object) -> None:
        notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        with open(path, "a") as file:
            file.write("reloaded\n")
        notify("READY=1")

    signal.signal(signal.SIGHUP, hangup)
    leave()
    notify("READY=1")
    forever()


def watched(path: str) -> None:
    """Ping the watchdog for as long as the file isn't there."""
    signal.signal(signal.SIGABRT, signal.SIG_DFL)
    interval = int(os.environ["WATCHDOG_USEC"]) / 1e6
    notify("READY=1")
    while not os.path.exists(path):
        notify("WATCHDOG=1")
        time.sleep(interval / 4)
    forever()


def newline(fd: str, path: str) -> None:
    """Write a newline to the descriptor once the file is there."""
    while not os.path.exists(path):
        time.sleep(0.01)
    os.write(int(fd), b"\n")
    os.close(int(fd))
    forever()


def listen(port: str, path: str) -> None:
    """Listen on the port once the file is there, and accept."""
    while not os.path.exists(path):
        time.sleep(0.01)
    with socket.create_server(("127.0.0.1", int(port))) as server:
        while True:
            server.accept()[0].close()


def http(port: str, path: str) -> None:
    """Answer HTTP with the status that the file holds, 500 while it isn't there."""
    with socket.create_server(("127.0.0.1", int(port))) as server:
        while True:
            link = server.accept()[0]
            try:
                with open(path) as file:
                    status = file.read().strip()
            except OSError:
                status = "500"
            link.recv(4096)
            link.sendall(
                f"HTTP/1.1 {status} x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
            )
            link.close()


def serve(pause: str = "0") -> None:
    """Answer each connection on the passed socket with instance and pid, until TERM."""
    assert os.environ["LISTEN_PID"] == str(os.getpid())
    over = False

    def stop(*_: object) -> None:
        nonlocal over
        over = True

    signal.signal(signal.SIGTERM, stop)
    wake, awake = os.pipe2(os.O_NONBLOCK)
    signal.set_wakeup_fd(awake)
    time.sleep(float(pause))
    server = socket.socket(fileno=3)
    server.setblocking(False)
    if "NOTIFY_SOCKET" in os.environ:
        notify("READY=1")
    while not over:
        ready, _, _ = select.select([server.fileno(), wake], [], [])
        if server.fileno() in ready:
            try:
                link, _ = server.accept()
            except BlockingIOError:
                continue  # the other instance was faster
            link.setblocking(True)
            link.sendall(f"{os.environ['ATLASD_INSTANCE']} {os.getpid()}\n".encode())
            link.close()


def environment() -> None:
    """Show what it was given, its descriptors too."""
    for name in sorted(os.environ):
        say(f"{name}={os.environ[name]}")
    for fd in sorted(map(int, os.listdir("/proc/self/fd"))):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            continue
        kind = target.partition(":")[0]
        if kind == "socket":
            with socket.socket(fileno=os.dup(fd)) as found:
                target = f"{found.getsockname()}"
        say(f"fd {fd} {target}")
    say(f"pid {os.getpid()}")
    leave()
    forever()


def eat(megabytes: str) -> None:
    """Take memory, touched, until it has so much."""
    kept = []
    for _ in range(int(megabytes)):
        kept.append(b"x" * (1 << 20))
        time.sleep(0.002)
    forever()


def crowd(number: str) -> None:
    """Start so many children, and say how many could be started."""
    started = 0
    for _ in range(int(number)):
        try:
            if os.fork() == 0:
                forever()
        except OSError:
            break
        started += 1
    say(f"started {started}")
    leave()
    forever()


def flood() -> None:
    """Write as fast as it can."""
    data = (b"x" * 99 + b"\n") * 600
    while True:
        os.write(1, data)


def handed(path: str, refused: str = "") -> None:
    """Note in a file what it is handed, at its start and at each HUP and USR1; then be ready.

    What is handed is never said: that would be searched for in the output. A value `refused` ends
    it, as a wrong password would.
    """

    def note(why: str) -> None:
        found: dict[str, object] = {"why": why, "pid": os.getpid(), "uid": os.getuid()}
        for name, value in os.environ.items():
            if name.endswith("_FILE"):
                with open(value) as file:
                    found[name] = file.read()
            elif name.endswith("_FD") and why == "start":
                found[name] = os.read(int(value), 1000).decode()  # from wherever its offset is
            elif name.endswith("_FD"):
                found[name] = os.pread(int(value), 1000, 0).decode()
            elif name == "URL":
                found[name] = value
        data = json.dumps(found).encode() + b"\n"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.write(fd, data)
        os.close(fd)
        if refused and refused in found.values():
            os._exit(3)

    for number in (signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, lambda n, _: note(signal.Signals(n).name))
    leave()
    note("start")
    if "NOTIFY_SOCKET" in os.environ:
        notify("READY=1")
    forever()


def store() -> None:
    """Store a pipe's reading end once, with a word in it; later tell what came back."""
    if os.environ.get("LISTEN_FDNAMES", "").endswith("kept"):
        say("again " + os.read(3, 100).decode())
    else:
        read, write = os.pipe()
        os.write(write, b"word")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
            link.connect(os.environ["NOTIFY_SOCKET"])
            link.sendmsg(
                [b"FDSTORE=1\nFDNAME=kept"],
                [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [read]))],
            )
    notify("READY=1")
    leave()
    forever()


if __name__ == "__main__":
    globals()[sys.argv[1].replace("-", "_")](*sys.argv[2:])
