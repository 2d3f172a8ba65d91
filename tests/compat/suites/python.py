"""The tests that sdists of Python's drivers have, run by pytest against the driver as it is installed."""

import xml.etree.ElementTree
from pathlib import Path

import sources
from suite import Outcome, Suite, copy, normal, store

PINS = {"mysqlclient": "2.2.7"}


class Mysqlclient(Suite):
    name = "python-mysqlclient"

    def fetch(self):
        requirement = f"mysqlclient=={PINS['mysqlclient']}"
        environment = store() / "python"
        sources.output(["/usr/bin/python3", "-m", "venv", "--clear", str(environment)])
        python = environment / "bin/python"
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        sources.output([*pip, "pytest==8.*", requirement])
        sources.sdist(python, requirement, self.directory())

    def run(self, run, only=None):
        copy(run.sources / "tests", run.work / "tests")
        host, port, _ = run.endpoint
        login = run.work / "login.cnf"
        login.write_text(
            f"[MySQLdb-tests]\nhost = {host}\nport = {port}\nuser = root\npassword = root\ndatabase = test\n"
            "default-character-set = utf8mb4\n"
        )
        report = run.work / "report.xml"
        python = store() / "python/bin/python"
        tests = sorted(only) if only else ["tests"]
        command = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junit-xml={report}", *tests]
        self.execute(run, command, run.work, {"TESTDB": str(login)})
        return dict(reported(report, run))


def reported(report, run):
    for case in xml.etree.ElementTree.parse(report).iter("testcase"):
        # pytest's own name for it: the file, perhaps a class, the function.
        words = case.get("classname").split(".")
        place = next(end for end in range(len(words), 0, -1) if Path(run.work, *words[:end]).with_suffix(".py").exists())
        test = "::".join(["/".join(words[:place]) + ".py", *words[place:], case.get("name")])
        children = {child.tag: child for child in case}
        bad = children.get("failure", children.get("error"))
        if bad is not None:
            yield test, Outcome("failed", normal(bad.get("message", ""), run))
        elif "skipped" in children:
            yield test, Outcome("skipped", normal(children["skipped"].get("message", ""), run))
        else:
            yield test, Outcome("passed", "")


SUITES = [Mysqlclient()]
