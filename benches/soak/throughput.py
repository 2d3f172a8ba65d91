"""Many clients over few connections, clients that come and go, and what consistency costs a read."""

import contextlib
import os
import threading
from statistics import median

import load
from client import Connection
from endpoints import Endpoint
from processes import Failure, wait_for
from rig import HERE
from servers import PASSWORD, TABLE_ROWS, USER

POINT = ["oltp_point_select", f"--table-size={TABLE_ROWS}", "--db-ps-mode=disable"]
SUMS = [os.path.join(HERE, "sums.lua"), f"--rows={TABLE_ROWS}", "--db-ps-mode=disable"]
READ_WRITE = ["oltp_read_write", f"--table-size={TABLE_ROWS}", "--db-ps-mode=disable"]

CLIENTS, ACTIVE, CONNECTIONS = 5000, 200, 50
PROCESSES = 8
# Of the clients that connect, ask and disconnect, as a ratio to direct connections.
CONNECT_BARS = {"mariadb": 1.0, "mysql": 1.5}
WRITES_PER_SECOND = 200


class Work:
    """What sysbench runs, as the workloads of benches/compare are described."""

    def __init__(self, arguments, count):
        self.arguments, self.count, self.units_per_query = arguments, count, 1


def _sysbench(rig, endpoint, arguments, count, seconds):
    return load.run_sysbench(rig.processes, rig.servers, endpoint, Work(arguments, count), seconds)


@contextlib.contextmanager
def _idle(endpoint, count):
    """So many clients that are logged in and say nothing."""
    clients = []
    try:
        for _ in range(count):
            clients.append(Connection(endpoint.port, USER, PASSWORD, "sbtest"))
        yield
    finally:
        for client in clients:
            client.close()


def many(rig, args, report):
    """200 of 5,000 clients active over 50 connections, against 50 clients on 50 connections of their own."""
    direct = Endpoint("direct", rig.primary.port, None)
    limits = f"server_connections = {CONNECTIONS}"
    with rig.proxied(args.dbproxy, "many", limits=limits, replicas=False) as proxied, _idle(proxied, CLIENTS - ACTIVE):
        for title, arguments, bar in (("sums over 100 rows", SUMS, 0.9), ("read-write transactions", READ_WRITE, 0.9), ("point selects", POINT, None)):
            ratios, rates = [], []
            for _ in range(args.rounds):
                alone = _sysbench(rig, direct, arguments, CONNECTIONS, args.seconds)
                through = _sysbench(rig, proxied, arguments, ACTIVE, args.seconds)
                ratios.append(through["rate"] / alone["rate"])
                rates.append((alone["rate"], through["rate"], through["cpu_us"], alone["server_us"], through["p95"]))
            alone, through, cpu, server, p95 = map(median, zip(*rates))
            report.say(f"  {title}: direct {alone:,.0f} queries/s ({server:.0f} us of the server each), proxied {through:,.0f} "
                       f"({cpu:.0f} us of the proxy each, p95 {p95:.0f} ms), ratio {median(ratios):.2f} "
                       f"({min(ratios):.2f} to {max(ratios):.2f})")
            if bar:
                report.bar(f"{rig.flavor}: {CLIENTS:,} clients, {title}, of direct throughput", median(ratios), bar)
        report.say(f"  connections to the server: {rig.primary.connected()}")


def _connects(rig, endpoint, seconds):
    command = ["php", os.path.join(HERE, "connect.php"), str(endpoint.port), str(seconds)]
    running = [rig.processes.start(f"connect{number}", command) for number in range(PROCESSES)]
    total = 0
    for process in running:
        wait_for(process.name, lambda: not process.running, seconds + 60)
        text = process.tail()
        if not text.isdigit():
            raise Failure(f"{process.name}: {text}")
        total += int(text)
        rig.processes.running.remove(process)
    return total / seconds


def connect(rig, args, report):
    """Connect, one query, disconnect, from PHP."""
    direct = Endpoint("direct", rig.primary.port, None)
    with rig.proxied(args.dbproxy, "connect", replicas=False) as proxied:
        pairs = [(_connects(rig, direct, args.seconds), _connects(rig, proxied, args.seconds)) for _ in range(args.rounds)]
    ratios = [through / alone for alone, through in pairs]
    alone, through = map(median, zip(*pairs))
    report.say(f"  direct {alone:,.0f}/s, proxied {through:,.0f}/s, ratio {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    report.bar(f"{rig.flavor}: connect, query, disconnect, of direct connections", median(ratios), CONNECT_BARS[rig.flavor])


@contextlib.contextmanager
def _writer(endpoint):
    """A client of the readers' account that writes all the time."""
    ended, problems = threading.Event(), []

    def write():
        try:
            connection, number = Connection(endpoint.port, USER, PASSWORD, "soak"), 0
            while not ended.wait(1 / WRITES_PER_SECOND):
                number += 1
                connection.query(f"UPDATE log SET n = {number} WHERE client = -1")
                connection.query(f"INSERT INTO log VALUES (-1, {number}) ON DUPLICATE KEY UPDATE n = n")
            connection.query("DELETE FROM log WHERE client = -1")
            connection.close()
        except (Failure, OSError) as failure:
            problems.append(failure)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    if problems:
        raise problems[0]


def cost(rig, args, report):
    """Processor time per read with consistency and without, in turn, alone and beside a writer."""
    with rig.proxied(args.dbproxy, "user") as user, rig.proxied(args.dbproxy, "eventual", cluster='consistency = "eventual"') as none:
        for title, beside in (("reads alone", lambda _: contextlib.nullcontext()), (f"reads beside {WRITES_PER_SECOND} writes per second", _writer)):
            rounds = []
            for _ in range(args.rounds):
                rounds.append([])
                for endpoint in (user, none):
                    with beside(endpoint):
                        rounds[-1].append(_sysbench(rig, endpoint, POINT, 8, args.seconds))
            with_it, without = (median(one[i]["cpu_us"] for one in rounds) for i in (0, 1))
            ratios = [one[0]["cpu_us"] / one[1]["cpu_us"] for one in rounds]
            rate = median(one[0]["rate"] / one[1]["rate"] for one in rounds)
            report.say(f"  {title}: {with_it:.1f} us with consistency, {without:.1f} us without, ratio {median(ratios):.2f} "
                       f"({min(ratios):.2f} to {max(ratios):.2f}); reads per second {rate:.2f}")
