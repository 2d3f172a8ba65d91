"""What every adapter is: how to fetch a suite, run it against one endpoint, and read its results."""

import os
import re
import shutil
import signal
import subprocess
from collections import namedtuple
from pathlib import Path

# `result` is one of RESULTS; `detail` is how it failed or why it was skipped, without what differs from run to run.
Outcome = namedtuple("Outcome", "result detail")
RESULTS = ("passed", "failed", "skipped")

# What a run gets: the sources (read only), a directory of its own that is removed in the end, where to connect, the
# flavour, a function that runs statements as root on the primary itself, and a list for what was printed.
Run = namedtuple("Run", "sources work endpoint flavor sql log")


class Suite:
    """One driver's test suite. An adapter sets `name` and defines `fetch` and `run`."""

    name = ""
    # Sections of dbproxy's configuration that the suite needs, beside the smallest one.
    settings = ""
    # Options of the servers that the suite needs.
    options = ()
    # How long one whole run may take, in seconds.
    patience = 1800

    def directory(self):
        return store() / self.name

    def fetch(self):
        """Puts the sources into `directory()`; called only if they are not there."""
        raise NotImplementedError

    def run(self, run, only=None):
        """Runs all tests, or those named by `only`: {test: Outcome}."""
        raise NotImplementedError

    def missing(self):
        """What must be installed before the suite can run, or nothing."""
        return None

    def execute(self, run, command, directory, environment=None):
        """Runs a program to its end or until the patience is over; what it printed, on both channels together."""
        process = subprocess.Popen(
            command, cwd=directory, env={**os.environ, **(environment or {})}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
        )
        try:
            printed = process.communicate(timeout=self.patience)[0]
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            printed = process.communicate()[0] + "\nTHE SUITE DID NOT END\n"
        run.log.append(printed)
        return printed


def store():
    """Where the suites' sources are kept; they are never part of this repository."""
    return Path(os.environ.get("DBPROXY_SERVERS", "/var/cache/dbproxy")) / "suites"


def copy(source, target):
    shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
    return target


def normal(text, run):
    """A failure's text without what differs from run to run."""
    # A fast run of the same test prints the same apart from ports, ids, addresses, times and temporary names.
    text = text.replace(run.endpoint.socket, "SOCKET").replace(str(run.work), "WORK")
    text = re.sub(r"0x[0-9a-f]+", "0xN", text)
    return re.sub(r"\d+", "N", text).strip()
