"""The processes of a run: started in a private directory, measured, and all ended when the run ends."""

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class Failure(Exception):
    """Something the run needs does not work; the text is for the person who reads it."""


def _die_with_parent():
    # A killed benchmark must not leave servers behind, and SIGKILL runs no handler.
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(what, condition, seconds):
    """Waits until condition() is true; a Failure naming `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise Failure(f"{what}: not within {seconds} s")
        time.sleep(0.02)


def accepts(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


class Process:
    """A running program with its log."""

    def __init__(self, name, popen, log):
        self.name, self.popen, self.log = name, popen, log

    @property
    def running(self):
        return self.popen.poll() is None

    def tail(self, characters=1500):
        with open(self.log, errors="replace") as f:
            return f.read()[-characters:].strip()

    def require(self):
        if not self.running:
            raise Failure(f"{self.name} ended with status {self.popen.returncode}:\n{self.tail()}")

    def pids(self):
        """The process and its descendants."""
        found, todo = [], [self.popen.pid]
        while todo:
            pid = todo.pop()
            found.append(pid)
            try:
                for task in os.listdir(f"/proc/{pid}/task"):
                    with open(f"/proc/{pid}/task/{task}/children") as f:
                        todo += map(int, f.read().split())
            except OSError:
                pass  # ended meanwhile, or a kernel that lists no children
        return found

    def cpu(self):
        """Processor seconds used so far, user and system, by all threads, also the ended ones."""
        self.require()
        total = 0.0
        for pid in self.pids():
            try:
                # clock_getcpuclockid(3): the process's CPU clock, in nanoseconds where /proc/PID/stat has ticks of 10 ms.
                total += time.clock_gettime((~pid << 3) | 2)
            except OSError:
                pass
        return total

    def rss(self):
        """Resident KiB."""
        self.require()
        total = 0
        for pid in self.pids():
            # smaps_rollup walks the pages; VmRSS in status is a sum of counters that lag per thread.
            for file in ("smaps_rollup", "status"):
                try:
                    with open(f"/proc/{pid}/{file}") as f:
                        total += next(int(line.split()[1]) for line in f if line.startswith(("Rss:", "VmRSS:")))
                    break
                except (OSError, StopIteration):
                    continue
        return total

    def stop(self, patience=2.0):
        if self.running:
            self.popen.terminate()
            try:
                self.popen.wait(patience)
            except subprocess.TimeoutExpired:
                pass
        self.kill()

    def kill(self):
        try:
            os.killpg(self.popen.pid, signal.SIGKILL)  # its own session: no process of anybody else is in that group
        except ProcessLookupError:
            pass
        self.popen.wait()


class Processes:
    """Everything a run starts, and the directory it lives in. Leaving the context ends and removes all of it."""

    def __init__(self):
        base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.directory = tempfile.mkdtemp(prefix="dbproxy-compare-", dir=base)
        self.running = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        for process in reversed(self.running):
            process.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def path(self, *names):
        """A path in the private directory; the directories above it exist afterwards."""
        path = os.path.join(self.directory, *names)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    def write(self, name, text):
        path = self.path(name)
        with open(path, "w") as f:
            f.write(text)
        return path

    def start(self, name, command, env=None):
        log = self.path(f"{name.replace('/', '-')}.log")
        with open(log, "w") as out:
            popen = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})}, start_new_session=True, preexec_fn=_die_with_parent,
            )
        process = Process(name, popen, log)
        self.running.append(process)
        return process

    def stop(self, process):
        process.stop()
        self.running.remove(process)

    def run(self, name, command, stdin="", seconds=120):
        """Runs a program to its end; (status, stdout, stderr)."""
        popen = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True, preexec_fn=_die_with_parent,
        )
        process = Process(name, popen, os.devnull)
        self.running.append(process)
        try:
            out, err = popen.communicate(stdin, timeout=seconds)
        except subprocess.TimeoutExpired:
            raise Failure(f"{name}: not finished after {seconds} s") from None
        finally:
            process.kill()
            self.running.remove(process)
        return popen.returncode, out, err

    def check(self, name, command, stdin="", seconds=120):
        """As run(), but anything but status 0 is a Failure; returns stdout."""
        status, out, err = self.run(name, command, stdin, seconds)
        if status != 0:
            raise Failure(f"{name} ended with status {status}:\n{(err or out)[-1500:].strip()}")
        return out
