"""Reads right after writes: how many are stale, who answers them, and what they cost the proxy."""

import collections
import json
import os
import time

from processes import Failure, wait_for
from rig import CLIENTS, HERE

# Who writes and reads on the same connection; fewer, so that a client's reads are not only waits for others' writes.
MIXED_CLIENTS = 8
READS_PER_WRITE = 5
PATIENCE = 900


class Seen:
    """What all clients of one run saw together."""

    def __init__(self):
        self.cycles, self.reads, self.stale = 0, collections.Counter(), collections.Counter()
        self.examples, self.errors = [], []
        self.seconds = self.cpu_us = 0.0

    def add(self, one):
        self.cycles += one["cycles"]
        self.reads.update(one["reads"])
        self.stale.update(one["stale"])
        self.examples += one["examples"].values()
        self.errors += one["errors"].values()

    @property
    def replica_share(self):
        return 1 - self.reads["db1"] / max(1, self.reads.total())

    def line(self):
        servers = ", ".join(f"{name} {count:,}" for name, count in sorted(self.reads.items()))
        return (f"{self.cycles:,} cycles in {self.seconds:.0f} s ({self.cycles / self.seconds:,.0f}/s), "
                f"{self.stale.total():,} of {self.reads.total():,} reads stale, {self.replica_share:.0%} on replicas ({servers}), "
                f"{self.cpu_us:.0f} us of the proxy's processor time per cycle"
                + (f", {len(self.errors)} errors" if self.errors else ""))


def run(rig, endpoint, shape, clients, cycles):
    """Lets the clients loose and waits for all of them."""
    each = -(-cycles // clients)
    first, rig.next = rig.next, rig.next + each
    cpu, started = endpoint.cpu(), time.monotonic()
    running = [
        rig.processes.start(f"client{client}-{first}", [
            "php", os.path.join(HERE, "cycles.php"), shape, ("mysqli", "pdo")[client % 2], *map(str, (endpoint.port, client, first, each)),
        ])
        for client in range(clients)
    ]
    seen = Seen()
    for process in running:
        wait_for(process.name, lambda: not process.running, max(1, started + PATIENCE - time.monotonic()))
        text = process.tail(100_000)
        try:
            seen.add(json.loads(text))
        except ValueError:
            raise Failure(f"{process.name}: {text[-1500:]}") from None
        rig.processes.running.remove(process)
    seen.seconds, seen.cpu_us = time.monotonic() - started, (endpoint.cpu() - cpu) * 1e6 / max(1, seen.cycles)
    return seen


def _tell(say, title, seen):
    say(f"{title}: {seen.line()}")
    for text in (seen.examples + seen.errors)[:6]:
        say(f"    {text}")


def fresh(rig, how, args, report):
    """Each write and each read on a connection of its own; then the same without consistency, as the control."""
    with rig.late(how):
        with rig.proxied(args.dbproxy, "user") as endpoint:
            kept = run(rig, endpoint, "fresh", CLIENTS, args.cycles)
        with rig.proxied(args.dbproxy, "eventual", cluster='consistency = "eventual"') as endpoint:
            control = run(rig, endpoint, "fresh", CLIENTS, max(CLIENTS, args.cycles // 5))
    _tell(report.say, f"  replicas {how}", kept)
    _tell(report.say, f"  replicas {how}, eventual", control)
    where = f"{rig.flavor}, replicas {how}"
    report.promise(f"{where}: no read is stale", not kept.stale and not kept.errors and kept.cycles > 0)
    # Without delay the control may or may not meet a replica that is behind.
    report.promise(f"{where}: the control can fail", how == "0" or control.stale.total() > 0)


def mixed(rig, how, args, report):
    """Write once and read five times, on one connection."""
    with rig.late(how), rig.proxied(args.dbproxy, "user") as endpoint:
        seen = run(rig, endpoint, "mixed", MIXED_CLIENTS, max(MIXED_CLIENTS, args.cycles // 10))
    _tell(report.say, f"  replicas {how}, {READS_PER_WRITE} reads per write", seen)
    report.promise(f"{rig.flavor}, replicas {how}, mixed: no read is stale", not seen.stale and not seen.errors and seen.cycles > 0)
