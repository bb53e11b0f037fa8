"""Captures output as the services role does, and dies when it's told to; started by test_output.

    python capture_program.py RUN_DIR LOG_DIR STREAMS DEATH

DEATH: `cpu:SECONDS`, the kernel ends it wherever it is, after so much CPU time in the loop;
`line:N`, it kills itself before the Nth line of the capture's code; `none`. SIGTERM: drain every
stream and exit. What `recover` found is told on stdout, then `ready`.
"""

import os
import signal
import sys
from types import FrameType
from typing import Any

from atlasd.services.loop import Loop
from atlasd.services.output import Capture
from atlasd.services.spec import Log

OURS = (
    *("output.py", "output_file.py", "output_files.py", "output_journal.py"),
    *("output_records.py", "output_secrets.py", "output_stream.py"),
)


def die_before_line(number: int) -> None:
    """Let the process end by SIGKILL at a random place of the code that is on trial."""
    left = number

    def line(_frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal left
        if event == "line":
            left -= 1
            if left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return line

    def call(frame: FrameType, _event: str, _argument: Any) -> Any:
        return line if frame.f_code.co_filename.endswith(OURS) else None

    sys.settrace(call)


def main() -> None:
    run_dir, log_dir, names, death = sys.argv[1:]
    how, _, when = death.partition(":")
    if how == "line":
        die_before_line(int(when))
    loop = Loop()
    capture = Capture(loop, run_dir, log_dir)
    recovered = capture.recover()
    if recovered is not None:
        os.write(1, f"recovered {recovered.size}\n".encode())
    streams = []
    for name in names.split(","):
        service, instance, kind = name.split("/")
        capture.configure(service, Log(max_size=100_000, max_files=1_000_000, compress=False))
        streams.append(capture.stream(service, int(instance), kind))
    loop.on_signal(signal.SIGTERM, loop.stop)
    os.write(1, b"ready\n")
    if how == "cpu":
        # By default SIGPROF ends the process at once, as SIGKILL does; but the timer only runs
        # while this process does, so that it never dies in its sleep.
        signal.setitimer(signal.ITIMER_PROF, float(when))
    loop.run()
    for stream in streams:
        stream.drain()
    capture.close()
    loop.close()


if __name__ == "__main__":
    main()
