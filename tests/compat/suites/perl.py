"""The tests of DBD::mysql and DBD::MariaDB, run against the installed drivers. Every line of a test file counts."""

import re
import shutil
import subprocess

import sources
from suite import Outcome, Suite, copy, normal

LINE = re.compile(r"^(not )?ok (\d+)(?: - |\s*)([^#]*)(?:#\s*(skip|todo)\b(.*))?$", re.IGNORECASE)
PATIENCE = 120


class Dbd(Suite):
    def __init__(self, driver, package):
        self.name = f"perl-DBD-{driver}"
        self.driver = driver
        self.package = package

    def fetch(self):
        sources.debian(self.package, self.directory(), "t", "lib")

    def missing(self):
        if not shutil.which("perl"):
            return "perl"
        there = subprocess.run(["perl", f"-MDBD::{self.driver}", "-e1"], capture_output=True)
        return None if there.returncode == 0 else self.package

    def run(self, run, only=None):
        # The driver that is installed, not the one in the sources.
        copy(run.sources / "t", run.work / "t")
        # DBD::MariaDB wants this of its schema.
        run.sql("ALTER DATABASE test CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci")
        (run.work / "t" / f"{self.driver}.mtest").write_text(self._login(run))
        wanted = {test.partition("#")[0] for test in only} if only else None
        outcomes = {}
        for file in sorted((run.work / "t").glob("*.t")):
            if wanted is None or file.name in wanted:
                outcomes.update(self._file(run, file.name))
        return {test: outcomes[test] for test in outcomes if only is None or test in only}

    def _login(self, run):
        host, port, _ = run.endpoint
        return (
            f'$::test_host = "{host}"; $::test_port = "{port}"; $::test_db = "test";\n'
            f'$::test_user = "root"; $::test_password = "root";\n'
            f'$::test_dsn = "DBI:{self.driver}:database=test;host={host};port={port}";\n1;\n'
        )

    def _file(self, run, name):
        environment = {"DBI_USER": "root", "DBI_PASS": "root"}
        command = ["timeout", str(PATIENCE), "perl", "-I.", f"t/{name}"]
        printed = self.execute(run, command, run.work, environment)
        if "1..0" in printed:
            return {name: Outcome("skipped", normal(printed, run))}
        outcomes, shown = {}, []
        for line in printed.splitlines():
            found = LINE.match(line)
            if not found:
                shown.append(line)
                continue
            bad, number, _, directive, reason = found.groups()
            if directive:
                outcome = Outcome("skipped" if directive.lower() == "skip" else "passed", normal(reason, run))
            else:
                outcome = Outcome("failed" if bad else "passed", "")
            outcomes[f"{name}#{number}"] = outcome
        plan = re.search(r"^1\.\.(\d+)", printed, re.MULTILINE)
        whole = plan is not None and len(outcomes) == int(plan[1])
        outcomes[f"{name}#whole"] = Outcome("passed" if whole else "failed", "")
        failed = any(outcome.result == "failed" for outcome in outcomes.values())
        return {test: self._explain(outcome, shown, run, failed) for test, outcome in outcomes.items()}

    @staticmethod
    def _explain(outcome, shown, run, failed):
        return outcome._replace(detail=normal("\n".join(shown), run)) if outcome.result == "failed" else outcome


SUITES = [Dbd("mysql", "libdbd-mysql-perl"), Dbd("MariaDB", "libdbd-mariadb-perl")]
