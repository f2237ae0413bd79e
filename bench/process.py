"""Child processes: pinned to one core, heard line by line, and ended with all their descendants."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

#: How much of a failed process's stderr is shown.
LAST_WORDS = 2000

#: How long a process that was killed may take to be gone, in seconds.
GONE_SECONDS = 10.0


class ProcessError(Exception):
    """A process ended, or fell silent, before it had done its work."""


class Process:
    """One running program, the leader of a process group of its own.

    Its stderr goes to the file ``errors``. With ``talks`` its stdin and stdout are pipes; without, it
    has no stdin, and its stdout goes to the same file. As a context manager it is killed, descendants
    included, at the end.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        core: int,
        errors: Path,
        environ: Mapping[str, str] | None = None,
        talks: bool = False,
    ) -> None:
        self._name = Path(command[0]).name
        self._errors = errors
        self._unread = b""
        with errors.open("wb") as stderr:
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
                stdout=subprocess.PIPE if talks else stderr,
                stderr=stderr,
                env=None if environ is None else {**os.environ, **environ},
                start_new_session=True,
                # Safe: this program has one thread. Children and threads inherit it.
                preexec_fn=lambda: os.sched_setaffinity(0, {core}),
            )

    @property
    def pid(self) -> int:
        """The leader's process id."""
        return self._popen.pid

    @property
    def running(self) -> bool:
        """Whether the leader lives."""
        return self._popen.poll() is None

    def write_line(self, line: str) -> None:
        """Write to its stdin. Raises ProcessError if it has ended."""
        assert self._popen.stdin is not None
        try:
            os.write(self._popen.stdin.fileno(), f"{line}\n".encode())
        except BrokenPipeError:
            raise self.failed("ended") from None

    def read_line(self, seconds: float) -> str:
        """The next line of its stdout. Raises ProcessError if none comes in time."""
        deadline = time.monotonic() + seconds
        while b"\n" not in self._unread:
            self._unread += self._read(deadline)
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode()

    def _read(self, deadline: float) -> bytes:
        assert self._popen.stdout is not None
        readable, _, _ = select.select([self._popen.stdout], [], [], max(0.0, deadline - time.monotonic()))
        if not readable:
            raise self.failed("said nothing in time")
        if not (data := os.read(self._popen.stdout.fileno(), 1 << 16)):
            raise self.failed("ended")
        return data

    def failed(self, how: str) -> ProcessError:
        """An error that says so, with the last that the process wrote to stderr."""
        return ProcessError(f"{self._name} {how}" + (f": {words}" if (words := self.last_words()) else ""))

    def last_words(self) -> str:
        """The end of what it has written to stderr."""
        return self._errors.read_text("utf-8", "replace")[-LAST_WORDS:].strip()

    def kill(self) -> None:
        """End it and its descendants at once: nothing here has a state worth saving."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait(GONE_SECONDS)
        for pipe in (self._popen.stdin, self._popen.stdout):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()
