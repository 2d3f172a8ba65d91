"""Puts dbproxy under load in front of real servers with late replicas, and says which of its promises hold.

    python3 benches/soak                                    everything, on both flavours, in less than 20 minutes
    python3 benches/soak --cycles 25000 --only stale        200,000 cycles in all
    python3 benches/soak --flavor mysql --only stale:2s,connect

Parts, and what they promise:
  stale:0 stale:50ms stale:2s stale:stops   32 PHP clients write and read what they have written, each time on a new
      connection, while the two replicas are late by so much, or one of them stops and starts: no read is stale. Then the
      same with consistency = "eventual", which must show stale reads, or the test could not fail.
  mixed:0 mixed:50ms mixed:2s   one write and five reads on one connection: no read is stale
  cost         processor time per read, with consistency and without
  many         5,000 clients, 200 of them active, over 50 connections: 0.9 of the throughput of 50 direct connections
  connect      8 PHP processes that connect, ask and disconnect: at the rate of direct connections on MariaDB, 1.5 times on MySQL
  wordpress    Debian's WordPress is installed and used over HTTP with replicas 2 s late: no failure, no stale read

The servers are started for the run in a private directory, on loopback, and end with it. What compares speeds is printed as
met or missed; it depends on the machine and what else runs on it, and counts for the exit status only with --strict.

Exit status: 0 all promises are kept; 1 one is broken, or something failed; 2 wrong usage; 3 with --strict, a bar was missed;
128+n ended by signal n.
"""

import argparse
import os
import platform
import signal
import sys
import time

sys.dont_write_bytecode = True
sys.path.append(os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "compare"))

import blog  # noqa: E402
import rig  # noqa: E402
import stale  # noqa: E402
import throughput  # noqa: E402
from endpoints import raise_descriptor_limit  # noqa: E402
from processes import Failure, Processes  # noqa: E402

PARTS = {
    **{f"stale:{how}": (lambda r, a, p, how=how: stale.fresh(r, how, a, p)) for how in rig.LATE},
    **{f"mixed:{how}": (lambda r, a, p, how=how: stale.mixed(r, how, a, p)) for how in rig.LATE[:3]},
    "cost": throughput.cost, "many": throughput.many, "connect": throughput.connect, "wordpress": blog.wordpress,
}


class Report:
    """What is printed, and what was promised."""

    def __init__(self):
        self.promises, self.bars = [], []

    def say(self, text):
        print(text, flush=True)

    def promise(self, text, kept):
        self.promises.append((text, bool(kept)))
        self.say(f"  {'kept  ' if kept else 'BROKEN'}  {text}")

    def bar(self, text, number, least):
        self.bars.append(number >= least)
        self.say(f"  {'met   ' if number >= least else 'MISSED'}  {number:.2f} (at least {least:.2f})  {text}")

    def status(self, strict):
        broken = [text for text, kept in self.promises if not kept]
        self.say(f"\n{len(self.promises) - len(broken)} of {len(self.promises)} promises kept, "
                 f"{sum(self.bars)} of {len(self.bars)} bars met")
        for text in broken:
            self.say(f"BROKEN  {text}")
        return 1 if broken else 3 if strict and not all(self.bars) else 0


def selection(texts):
    chosen = []
    for text in texts:
        found = [name for name in PARTS if name == text or name.split(":")[0] == text]
        if not found:
            raise ValueError(f"unknown part {text!r}; known: {', '.join(PARTS)}, and stale and mixed for all of theirs")
        chosen += found
    return chosen or list(PARTS)


def arguments():
    parser = argparse.ArgumentParser(prog="soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--only", action="append", default=[], metavar="PARTS", help="run only these (repeated, or with commas)")
    add("--flavor", choices=[*rig.WORDS, "both"], default="both", help="the database servers (default: %(default)s)")
    add("--cycles", type=int, default=4000, metavar="N", help="write-then-read cycles of each part stale, a fifth of it as "
        "the control and a tenth for mixed (default: %(default)s)")
    add("--posts", type=int, default=200, metavar="N", help="create-and-read cycles of WordPress (default: %(default)s)")
    add("--dbproxy", metavar="PATH", help="the dbproxy program (default: the newer of target/fast and target/release)")
    add("-s", "--seconds", type=int, default=3, metavar="N", help="seconds per round of what compares speeds (default: %(default)s)")
    add("-r", "--rounds", type=int, default=3, metavar="N", help="such rounds (default: %(default)s)")
    add("--strict", action="store_true", help="exit with status 3 when a bar is missed")
    args = parser.parse_args()
    try:
        args.parts = selection([part for text in args.only for part in text.split(",") if part])
    except ValueError as wrong:
        parser.error(str(wrong))
    if min(args.cycles, args.posts, args.seconds, args.rounds) < 1:
        parser.error("cycles, posts, seconds and rounds start at 1")
    return args


def soak(args, report):
    if raise_descriptor_limit() < throughput.CLIENTS:
        raise Failure(f"{throughput.CLIENTS:,} clients need more open files than allowed here: ulimit -n")
    args.dbproxy = rig.program(args.dbproxy)
    report.say(f"{len(os.sched_getaffinity(0))} cores, Linux {platform.release()}, load {os.getloadavg()[0]:.1f}")
    for flavor in rig.WORDS if args.flavor == "both" else [args.flavor]:
        with Processes() as processes:
            servers = rig.Rig(processes, flavor)
            report.say(f"\n{flavor}: {servers.title}")
            for name in args.parts:
                started = time.monotonic()
                report.say(f"{name}")
                PARTS[name](servers, args, report)
                report.say(f"  took {time.monotonic() - started:.0f} s")
    return report.status(args.strict)


def main():
    args = arguments()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _frame: sys.exit(128 + received))
    try:
        return soak(args, Report())
    except (Failure, OSError) as failure:
        print(f"soak: {failure}", file=sys.stderr, flush=True)
        return 1


if __name__ == "__main__":
    sys.exit(main())
