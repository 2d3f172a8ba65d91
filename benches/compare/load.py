"""The workloads: what is run against one endpoint for one round, and what is measured."""

import os
import re
import time

from client import Connection
from processes import Failure, wait_for
from servers import PASSWORD, TABLE_ROWS, USER

HERE = os.path.dirname(os.path.abspath(__file__))
PERCENTILES = (50, 95, 99)


class Workload:
    """`count` is the number of client threads, or of clients for `idle`."""

    def __init__(self, kind, count):
        self.kind, self.count = kind, count
        self.title, self.arguments, self.per_row = KINDS[kind]

    @property
    def name(self):
        return f"{self.kind}:{self.count}"

    def describe(self):
        clients = "client" if self.count == 1 else "clients"
        return f"{self.title}, {self.count:,} {clients}"

    @property
    def units_per_query(self):
        return TABLE_ROWS if self.per_row else 1


_ROWS = f"--rows={TABLE_ROWS}"
_TABLE = f"--table-size={TABLE_ROWS}"
KINDS = {
    "point-text": ("point selects, text", ["oltp_point_select", _TABLE, "--db-ps-mode=disable"], False),
    "point-prepared": ("point selects, prepared", ["oltp_point_select", _TABLE, "--db-ps-mode=auto"], False),
    "read-write": ("read-write transactions", ["oltp_read_write", _TABLE, "--db-ps-mode=disable"], False),
    "rows": (f"results of {TABLE_ROWS:,} rows", [os.path.join(HERE, "rows.lua"), _ROWS, "--db-ps-mode=disable"], True),
    "connect": ("connect, query, disconnect", [os.path.join(HERE, "connect.lua"), _ROWS, "--db-ps-mode=disable"], False),
    "idle": ("idle clients", None, False),
}
DEFAULT_COUNTS = {
    "point-text": (1, 8, 64), "point-prepared": (1, 8, 64), "read-write": (8,), "rows": (1,), "connect": (8,), "idle": (5000,),
}


def selection(texts):
    """Workloads from texts such as `point-text:8` and `rows`; all of them when there are none."""
    chosen = []
    for text in texts or KINDS:
        kind, _, count = text.partition(":")
        if kind not in KINDS or (count and not count.isdigit()) or count == "0":
            raise ValueError(f"unknown workload {text!r}; known: {', '.join(KINDS)}, each with :CLIENTS or without")
        chosen += [Workload(kind, int(n)) for n in ([count] if count else DEFAULT_COUNTS[kind])]
    return chosen


def _sysbench(port, arguments, threads, *limits):
    return [
        "sysbench", *arguments, "--db-driver=mysql", "--mysql-host=127.0.0.1", f"--mysql-port={port}", f"--mysql-user={USER}",
        f"--mysql-password={PASSWORD}", "--mysql-db=sbtest", "--mysql-ssl=off", f"--threads={threads}",
        "--rand-type=uniform", "--histogram=on", "--percentile=99", *limits, "run",
    ]


def warm(processes, endpoint):
    """The first logins and statements through an endpoint, until they succeed: it must know its server by then."""
    problem = [""]

    def works():
        if endpoint.process:
            endpoint.process.require()
        command = _sysbench(endpoint.port, KINDS["point-text"][1], 4, "--time=10", "--events=400")
        status, out, err = processes.run("sysbench", command, seconds=30)
        problem[0] = _complaint(out, err)
        return status == 0

    try:
        wait_for(f"a first query through {endpoint.name}", works, 15)
    except Failure as failure:
        log = f"\n{endpoint.process.tail()}" if endpoint.process else ""
        raise Failure(f"{failure}\n{problem[0]}{log}") from None


def _complaint(out, err):
    lines = [line for line in (out + "\n" + err).splitlines() if re.search(r"FATAL|ALERT|error", line, re.I)]
    lines = [line for line in lines if not re.match(r"\s+ignored errors:\s+0 ", line)]
    return "\n".join(lines[:6]) or err[-500:]


def _percentiles(out):
    """From sysbench's histogram: buckets that each reach 1.8 % further than the one before."""
    buckets = re.findall(r"^\s*([\d.]+) \|\**\s+(\d+)\s*$", out, re.M)
    total = sum(int(count) for _, count in buckets)
    found, seen, wanted = {}, 0, list(PERCENTILES)
    for value, count in buckets:
        seen += int(count)
        while wanted and seen * 100 >= wanted[0] * total:
            found[f"p{wanted.pop(0)}"] = float(value)
    return found


def run_sysbench(processes, servers, endpoint, workload, seconds):
    """One round of one workload on one endpoint: a dict of measured values."""
    command = _sysbench(endpoint.port, workload.arguments, workload.count, f"--time={seconds}", "--events=0")
    proxy, server = endpoint.cpu(), servers.cpu()
    status, out, err = processes.run("sysbench", command, seconds=seconds + 60)
    proxy, server = endpoint.cpu() - proxy, servers.cpu() - server
    queries = re.search(r"queries:\s+(\d+)\s+\(([\d.]+) per sec", out)
    if status != 0 or not queries or int(queries[1]) == 0:
        raise Failure(_complaint(out, err))
    units = int(queries[1]) * workload.units_per_query
    return {
        "rate": float(queries[2]) * workload.units_per_query,
        **_percentiles(out),
        "cpu_us": proxy * 1e6 / units if endpoint.process else None,
        "server_us": server * 1e6 / units,
        "rss_mib": endpoint.rss() / 1024 if endpoint.process else None,
        "queries": int(queries[1]),
        "errors": int(re.search(r"ignored errors:\s+(\d+)", out)[1]),
        "reconnects": int(re.search(r"reconnects:\s+(\d+)", out)[1]),
    }


def _login(endpoint):
    connection = Connection(endpoint.port, USER, PASSWORD, "sbtest")
    connection.query("SELECT c FROM sbtest1 WHERE id = 1")
    return connection


def _settled_rss(endpoint):
    last = endpoint.rss()
    for _ in range(10):
        time.sleep(0.3)
        now = endpoint.rss()
        if now == last:
            break
        last = now
    return now


def run_idle(processes, servers, kind, workload):
    """Resident memory of a fresh instance without and with clients that are logged in, ran one query and say nothing more."""
    quiet = servers.connected()
    endpoint = kind.start(processes, servers, "-idle")
    clients = []
    try:
        warm(processes, endpoint)
        for connection in [_login(endpoint) for _ in range(20)]:
            connection.close()
        before = _settled_rss(endpoint)
        started = time.monotonic()
        try:
            for _ in range(workload.count):
                clients.append(_login(endpoint))
        except (Failure, OSError) as failure:
            raise Failure(f"client {len(clients) + 1} of {workload.count}: {failure}") from None
        took = time.monotonic() - started
        after = _settled_rss(endpoint)
        return {
            "before_mib": before / 1024, "after_mib": after / 1024, "kib_per_client": (after - before) / workload.count,
            "server_connections": servers.connected() - quiet, "login_ms": took * 1000 / workload.count,
        }
    finally:
        for connection in clients:
            connection.close()
        processes.stop(endpoint.process)
        wait_for("the server's connections to end", lambda: servers.connected() <= quiet + 10, 60)
