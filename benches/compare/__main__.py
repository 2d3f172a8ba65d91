"""Puts dbproxy beside a direct connection, HAProxy, MySQL Router and ProxySQL, under the same load in the same run.

    python3 benches/compare                              everything, about five minutes on two cores
    python3 benches/compare --quick                      one short round of everything, about a minute
    python3 benches/compare --only point-text:8,rows     selected workloads: KIND or KIND:CLIENTS
    python3 benches/compare --flavor mysql --json out.json

Workloads: point-text, point-prepared (1, 8 and 64 clients), read-write, rows (100,000-row results), connect (connect,
query, disconnect), idle (resident memory of 5,000 idle clients, on a fresh instance). Load comes from sysbench; what is
not installed is left out. The servers are started for the run in a private directory and end with it.

The rounds are interleaved (A B C A B C). Each number is the median over the rounds; the ratio beside it (x) is the median
of the ratios to HAProxy within one round, so that a machine that changes its pace between rounds does not show in it.
"cpu us" is processor time, user and system, of the proxy with all its threads, "server us" that of the database servers.

Exit status: 0 done; 1 something failed; 2 wrong usage; 3 with --strict, a bar was missed; 128+n ended by signal n.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import sys
import time

sys.dont_write_bytecode = True

import endpoints  # noqa: E402
import load  # noqa: E402
import report  # noqa: E402
import servers  # noqa: E402
from processes import Failure, Processes  # noqa: E402


def notice(text):
    print(text, file=sys.stderr, flush=True)


def arguments():
    parser = argparse.ArgumentParser(prog="compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--only", action="append", default=[], metavar="WORKLOAD[:CLIENTS]", help="run only these (repeated, or with commas)")
    add("--endpoints", type=lambda text: text.split(","), metavar="NAMES", help="direct,haproxy,router,proxysql,dbproxy; default: all present")
    add("--dbproxy", metavar="PATH", help="the dbproxy program (default: the newer of target/fast and target/release)")
    add("--flavor", choices=servers.FLAVORS, default="mariadb", help="the database servers (default: %(default)s)")
    add("--replicas", type=int, default=0, metavar="N", help="also run dbproxy in front of the primary and N replicas")
    add("-s", "--seconds", type=int, metavar="N", help="seconds per run (default: 2; --quick: 1)")
    add("-r", "--rounds", type=int, metavar="N", help="rounds per workload (default: 3; --quick: 1)")
    add("--quick", action="store_true", help="one round of one second each, 1,000 idle clients")
    add("--json", metavar="FILE", help="also write everything measured to FILE")
    add("--strict", action="store_true", help="exit with status 3 when dbproxy misses a bar")
    args = parser.parse_args()
    args.seconds = args.seconds or (1 if args.quick else 2)
    args.rounds = args.rounds or (1 if args.quick else 3)
    if args.quick:
        load.DEFAULT_COUNTS["idle"] = (1000,)
    try:
        args.workloads = load.selection([part for text in args.only for part in text.split(",") if part])
    except ValueError as wrong:
        parser.error(str(wrong))
    if min(args.seconds, args.rounds) < 1 or args.replicas < 0:
        parser.error("seconds and rounds start at 1, replicas at 0")
    return args


def measure(processes, cluster, kinds, running, workload, args):
    """All rounds of one workload: [{endpoint: values}], and whether anything failed."""
    rounds, failed = [], False
    for _ in range(1 if workload.kind == "idle" else args.rounds):
        rounds.append({})
        for kind in kinds:
            try:
                if workload.kind != "idle":
                    rounds[-1][kind.name] = load.run_sysbench(processes, cluster, running[kind.name], workload, args.seconds)
                elif running[kind.name].process:
                    rounds[-1][kind.name] = load.run_idle(processes, cluster, kind, workload)
            except (Failure, OSError) as failure:
                notice(f"{workload.name} on {kind.name} failed: {failure}")
                cluster.primary.process.require()
                failed = True
    return rounds, failed


def compare(processes, args):
    if not shutil.which("sysbench"):
        raise Failure("no sysbench in PATH: apt-get install sysbench")
    limit = endpoints.raise_descriptor_limit()
    idle = max((w.count for w in args.workloads if w.kind == "idle"), default=0)
    if idle > limit:
        raise Failure(f"idle:{idle} needs more descriptors than allowed here; at most idle:{limit}")
    kinds = endpoints.choose(args, notice)
    flavor = servers.FLAVORS[args.flavor](processes)
    versions = {flavor.title: processes.check("server version", flavor.version_command()).strip()}
    versions |= {kind.name: version for kind in kinds if (version := kind.version(processes))}
    cores = len(os.sched_getaffinity(0))
    print(f"{cores} cores, Linux {platform.release()}, load {os.getloadavg()[0]:.1f}; {args.rounds} rounds of {args.seconds} s")
    for name, version in versions.items():
        print(f"  {name}: {version}")
    sys.stdout.flush()

    cluster = servers.Servers(processes, flavor, args.replicas, max([w.count for w in args.workloads]) + 500)
    running = {kind.name: kind.start(processes, cluster) for kind in kinds}
    for endpoint in running.values():
        load.warm(processes, endpoint)

    results, record, failed = [], [], False
    for workload in args.workloads:
        rounds, broken = measure(processes, cluster, kinds, running, workload, args)
        failed |= broken
        summary = report.summarise(workload, rounds)
        results.append((workload, summary))
        record.append({"workload": workload.name, "title": workload.describe(), "rounds": rounds, "summary": summary})
        if summary:
            print(f"\n{workload.describe()}\n{report.table(workload, rounds, summary)}", flush=True)

    if any(report.BASELINE in summary for _, summary in results) and (text := report.overview(results)):
        print(f"\nRatios to {report.BASELINE}\n{text}")
    bars = report.bars(results)
    for text, number, most in bars:
        print(f"{'met   ' if number <= most else 'MISSED'}  {number:.2f} (at most {most:.2f})  {text}")
    if args.json:
        with open(args.json, "w") as f:
            json.dump({"cores": cores, "kernel": platform.release(), "versions": versions, "seconds": args.seconds,
                       "rounds": args.rounds, "baseline": report.BASELINE, "workloads": record,
                       "bars": [{"what": t, "number": n, "at_most": m} for t, n, m in bars]}, f, indent=1)
            f.write("\n")
    if failed:
        return 1
    return 3 if args.strict and any(number > most for _, number, most in bars) else 0


def main():
    args = arguments()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _frame: sys.exit(128 + received))
    started = time.monotonic()
    try:
        with Processes() as processes:
            status = compare(processes, args)
    except (Failure, OSError) as failure:
        notice(f"compare: {failure}")
        status = 1
    notice(f"took {time.monotonic() - started:.0f} s")
    return status


if __name__ == "__main__":
    sys.exit(main())
