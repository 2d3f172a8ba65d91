"""Many clients over few connections, clients that come and go, and what consistency costs a read."""

import contextlib
import os
import resource
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


@contextlib.contextmanager
def _apart(rig):
    """While in it, the servers have half of the processors, and everything that begins here has the others: a proxy does
    not share the database's machine, and is not to be told from it where both run out of processor time together."""
    cores = sorted(os.sched_getaffinity(0))
    half = len(cores) // 2

    def pin(chosen):
        for server in rig.servers.all:
            for pid in server.process.pids():
                for task in os.listdir(f"/proc/{pid}/task"):
                    with contextlib.suppress(OSError):
                        os.sched_setaffinity(int(task), chosen)

    if not half:
        raise Failure("this needs two processors")
    pin(cores[:half])
    os.sched_setaffinity(0, cores[half:])
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
        pin(cores)


def _children():
    """Processor seconds of the clients that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _spent(rig, endpoint, run):
    """The rate that `run` finds, and the microseconds of clients, proxy and servers for each unit of it."""
    def clocks():
        return [_children(), endpoint.cpu(), rig.servers.cpu()]

    before = clocks()
    rate, units = run()
    return [rate, *((after - at) * 1e6 / units for after, at in zip(clocks(), before))]


def _against_direct(rig, proxied, run_direct, run_proxied, args, report, what):
    """Both in turn: prints the medians, and returns that of the ratios of the rates within a round."""
    direct, rounds = Endpoint("direct", rig.primary.port, None), []
    for _ in range(args.rounds):
        alone = _spent(rig, direct, lambda: run_direct(direct))
        rounds.append((alone, _spent(rig, proxied, lambda: run_proxied(proxied))))
    ratios = [through[0] / alone[0] for alone, through in rounds]
    sums = [sum(alone[1:]) / sum(through[1:]) for alone, through in rounds]
    report.say(f"  {what}: ratio {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}); "
               f"by processor time in all {median(sums):.2f}")
    for name, side in (("direct", 0), ("proxied", 1)):
        rate, client, proxy, server = (median(one[side][i] for one in rounds) for i in range(4))
        report.say(f"    {name:8} {rate:8,.0f}/s; us each: clients {client:.0f}, proxy {proxy:.0f}, servers {server:.0f}")
    return median(ratios)


def many(rig, args, report):
    """200 of 5,000 clients active over 50 connections, against 50 clients on 50 connections of their own."""
    def load_of(arguments, count):
        def run(endpoint):
            found = _sysbench(rig, endpoint, arguments, count, args.seconds)
            return found["rate"], found["queries"]
        return run

    limits = f"server_connections = {CONNECTIONS}"
    with _apart(rig), rig.proxied(args.dbproxy, "many", limits=limits, replicas=False) as proxied, _idle(proxied, CLIENTS - ACTIVE):
        for title, arguments in (("sums over 100 rows", SUMS), ("read-write transactions", READ_WRITE), ("point selects", POINT)):
            ratio = _against_direct(rig, proxied, load_of(arguments, CONNECTIONS), load_of(arguments, ACTIVE), args, report, title)
            report.bar(f"{rig.flavor}: {CLIENTS:,} clients, {title}, of direct throughput", ratio, 0.9)
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
    return total / seconds, total


def connect(rig, args, report):
    """Connect, one query, disconnect, from PHP."""
    def run(endpoint):
        return _connects(rig, endpoint, args.seconds)

    with rig.proxied(args.dbproxy, "connect", replicas=False) as proxied:
        ratio = _against_direct(rig, proxied, run, run, args, report, "connect, query, disconnect")
    report.bar(f"{rig.flavor}: connect, query, disconnect, of direct connections", ratio, CONNECT_BARS[rig.flavor])


@contextlib.contextmanager
def _writer(endpoint):
    """A client of the readers' account that writes all the time."""
    ended, problems = threading.Event(), []

    def write():
        try:
            connection, number = Connection(endpoint.port, USER, PASSWORD, "soak"), 0
            connection.query("REPLACE INTO counters VALUES (-1, 0)")
            while not ended.wait(1 / WRITES_PER_SECOND):
                number += 1
                connection.query(f"UPDATE counters SET n = {number} WHERE client = -1")
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
        alone, written = "reads alone", f"reads beside {WRITES_PER_SECOND} writes per second"
        for title, beside in ((alone, lambda _: contextlib.nullcontext()), (written, _writer)):
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
