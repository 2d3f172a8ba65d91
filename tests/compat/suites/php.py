"""PHP's own tests of ext/mysqli and ext/pdo_mysql, run by its run-tests.php with the system's PHP."""

import os
import shutil
from pathlib import Path

import sources
from suite import Outcome, Suite, copy, normal

FOLDERS = ("run-tests.php", "ext/mysqli/tests", "ext/pdo_mysql/tests", "ext/pdo/tests")
MEANING = {"PASSED": "passed", "SKIPPED": "skipped", "XFAILED": "failed", "FAILED": "failed", "WARNED": "failed"}


class Phpt(Suite):
    def __init__(self, extension):
        self.name = f"php-{extension}"
        self.extension = extension

    def directory(self):
        return super().directory().with_name("php")

    def fetch(self):
        sources.debian("php8.2", self.directory(), *FOLDERS)

    def missing(self):
        return None if shutil.which("php") else "php-cli php-mysql"

    def run(self, run, only=None):
        copy(run.sources, run.work)
        tests = [str(run.work / test) for test in sorted(only)] if only else [str(run.work / "ext" / self.extension)]
        php, results = shutil.which("php"), run.work / "results"
        command = [php, "run-tests.php", "-q", "-p", php, "--set-timeout", "60", "-W", str(results), *tests]
        self.execute(run, command, run.work, environment(run))
        return dict(self._outcomes(run, results))

    def _outcomes(self, run, results):
        for line in results.read_text(errors="replace").splitlines():
            word, _, name = line.partition("\t")
            if word not in MEANING:
                continue
            # A redirected test has the name of the redirecting one in front.
            path = Path(name.split()[-1])
            test = os.path.relpath(path, run.work) if path.is_absolute() else str(path)
            detail = path.with_suffix(".diff")
            text = normal(detail.read_text(errors="replace"), run) if detail.exists() else ""
            yield test, Outcome(MEANING[word], text)


def environment(run):
    host, port, socket = run.endpoint
    return {
        "NO_INTERACTION": "1",
        "SKIP_ONLINE_TESTS": "1",
        "TEST_PHP_EXECUTABLE": shutil.which("php"),
        "MYSQL_TEST_HOST": host,
        "MYSQL_TEST_PORT": str(port),
        "MYSQL_TEST_SOCKET": socket,
        "MYSQL_TEST_USER": "root",
        "MYSQL_TEST_PASSWD": "root",
        "MYSQL_TEST_DB": "test",
        "PDO_MYSQL_TEST_DSN": f"mysql:host={host};port={port};dbname=test",
        "PDO_MYSQL_TEST_USER": "root",
        "PDO_MYSQL_TEST_PASS": "root",
        "PDO_MYSQL_TEST_HOST": host,
        "PDO_MYSQL_TEST_PORT": str(port),
        "PDO_MYSQL_TEST_DB": "test",
        "PDO_MYSQL_TEST_SOCKET": socket,
    }


SUITES = [Phpt("mysqli"), Phpt("pdo_mysql")]
