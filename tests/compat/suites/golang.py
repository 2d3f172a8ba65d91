"""The tests of go-sql-driver/mysql, which Debian's package of the driver has beside its sources."""

import re
import shutil
from pathlib import Path

from suite import Outcome, Suite, copy, normal

GOPATH = Path("/usr/share/gocode")
PACKAGE = "github.com/go-sql-driver/mysql"
RESULT = re.compile(r"^\s*--- (PASS|FAIL|SKIP): (\S+)")
MEANING = {"PASS": "passed", "FAIL": "failed", "SKIP": "skipped"}


class Go(Suite):
    name = "go-sql-driver"
    # One test opens as many connections as the server allows, each with a transaction.
    settings = "[limits]\nserver_connections = 1000\n"

    def directory(self):
        return GOPATH / "src" / PACKAGE

    def fetch(self):
        raise SystemExit("go-sql-driver is missing; run: compose/install-servers --compat")

    def missing(self):
        return None if shutil.which("go") else "golang-go golang-github-go-sql-driver-mysql-dev"

    def run(self, run, only=None):
        package = run.work / "src" / PACKAGE
        copy(run.sources, package)
        host, port, _ = run.endpoint
        environment = {
            "GO111MODULE": "off", "GOPATH": f"{run.work}:{GOPATH}", "GOFLAGS": "", "MYSQL_TEST_USER": "root",
            "MYSQL_TEST_PASS": "root", "MYSQL_TEST_PROT": "tcp", "MYSQL_TEST_ADDR": f"{host}:{port}",
            "MYSQL_TEST_DBNAME": "test", "MYSQL_TEST_CONCURRENT": "1",
        }
        wanted = "^(" + "|".join(sorted({test.partition("/")[0] for test in only})) + ")$" if only else "."
        command = ["go", "test", "-vet=off", "-count=1", "-timeout", "20m", "-v", "-run", wanted, PACKAGE]
        outcomes = dict(outcomes_of(self.execute(run, command, package, environment), run))
        return {test: outcome for test, outcome in outcomes.items() if only is None or test in only}


def outcomes_of(printed, run):
    lines = printed.splitlines()
    for number, line in enumerate(lines):
        found = RESULT.match(line)
        if found:
            word, test = found.groups()
            yield test, Outcome(MEANING[word], "" if word == "PASS" else said(lines, number, run))


def said(lines, number, run):
    """What a test that did not pass has said: indented, behind its result or in front of it."""
    start = number
    while start > 0 and not lines[start - 1].startswith(("=== ", "--- ")):
        start -= 1
    end = number + 1
    while end < len(lines) and lines[end].startswith("    ") and not RESULT.match(lines[end]):
        end += 1
    # How long it took is in the result's own line.
    return normal("\n".join(lines[start:number] + lines[number + 1:end]), run)


SUITES = [Go()]
