"""The servers of a run, the ways in which their replicas are late, and dbproxy in front of them."""

import contextlib
import os
import random
import sys
import threading

from endpoints import Endpoint, REPOSITORY
from processes import Failure, accepts, free_port, wait_for
from servers import FLAVORS, MONITOR_PASSWORD, MONITOR_USER, PASSWORD, Servers, USER

HERE = os.path.dirname(os.path.abspath(__file__))
CLIENTS = 32
CONNECTIONS = 600
WORKERS = 2

SCHEMA = f"""
CREATE DATABASE soak;
GRANT ALL ON soak.* TO {USER}@'%';
CREATE TABLE soak.counters (client INT PRIMARY KEY, n INT NOT NULL);
CREATE TABLE soak.log (client INT NOT NULL, n INT NOT NULL, PRIMARY KEY (client, n));
CREATE TABLE soak.where_am_i (name VARCHAR(10) PRIMARY KEY);
INSERT INTO soak.where_am_i VALUES ('db1');
INSERT INTO soak.counters VALUES {", ".join(f"({client}, 0)" for client in range(CLIENTS))};
INSERT INTO soak.log VALUES {", ".join(f"({client}, 0)" for client in range(CLIENTS))};
CREATE DATABASE wordpress;
CREATE USER wordpress@'%' IDENTIFIED BY 'wordpress';
GRANT ALL ON wordpress.* TO wordpress@'%';
"""

# What the flavours call the same things.
WORDS = {
    "mariadb": {"stop": "STOP SLAVE", "start": "START SLAVE", "change": "CHANGE MASTER TO master_use_gtid=slave_pos",
                "port": "master_port", "delay": "master_delay"},
    "mysql": {"stop": "STOP REPLICA", "start": "START REPLICA", "change": "CHANGE REPLICATION SOURCE TO source_auto_position=1",
              "port": "source_port", "delay": "source_delay"},
}
LATE = ("0", "50ms", "2s", "stops")


class Rig:
    """A primary and two replicas. `late` says how they are: `0`, `50ms`, `2s`, or one of them `stops` and starts."""

    def __init__(self, processes, flavor):
        self.processes, self.flavor, self.words = processes, flavor, WORDS[flavor]
        kind = FLAVORS[flavor](processes)
        self.title = processes.check("server version", kind.version_command()).strip().split("Ver ")[-1].split(" for ")[0]
        self.kind, self.servers = kind, Servers(processes, kind, 2, CONNECTIONS)
        self.primary, self.replicas = self.servers.primary, self.servers.replicas
        self.primary.sql(SCHEMA)
        self.primary.sql("SELECT 1", user="wordpress", password="wordpress")
        self.settle()
        for number, replica in enumerate(self.replicas, 2):
            replica.sql(f"SET SESSION sql_log_bin=0; UPDATE soak.where_am_i SET name='db{number}';")
        self.next = 1

    def settle(self):
        """Waits until the replicas have all that the primary has."""
        position = self.primary.sql(self.kind.position)
        for replica in self.replicas:
            if replica.sql(self.kind.caught_up(position)) != "1":
                raise Failure(f"{replica.name} did not catch up with the primary:\n{replica.process.tail()}")

    @contextlib.contextmanager
    def late(self, how):
        """While in it, the replicas are late in this way."""
        if how == "0":
            yield
        elif how == "stops":
            with self._stopping(self.replicas[0]):
                yield
        else:
            relay = None
            if how == "50ms":
                relay = self._relay(0.05)
                self._change(f"{self.words['port']}={relay.port}")
            else:
                self._change(f"{self.words['delay']}={int(how.removesuffix('s'))}")
            try:
                yield
            finally:
                self._change(f"{self.words['port']}={self.primary.port}, {self.words['delay']}=0")
                if relay:
                    self.processes.stop(relay.process)
        self.settle()

    def _relay(self, seconds):
        port = free_port()
        command = [sys.executable, os.path.join(HERE, "relay.py"), str(port), str(self.primary.port), str(seconds)]
        process = self.processes.start(f"relay-{port}", command)
        wait_for("the relay to accept connections", lambda: accepts(port), 10)
        return Endpoint("relay", port, process)

    def _change(self, what):
        for replica in self.replicas:
            replica.sql(f"{self.words['stop']}; {self.words['change']}, {what}; {self.words['start']};")

    @contextlib.contextmanager
    def _stopping(self, replica):
        """The replica stops applying and starts again, each for 0.1 to 1 s."""
        ended, problems = threading.Event(), []

        def stop_and_start():
            try:
                while not ended.wait(random.uniform(0.1, 1)):
                    replica.sql(f"{self.words['stop']} SQL_THREAD;")
                    ended.wait(random.uniform(0.1, 1))
                    replica.sql(f"{self.words['start']} SQL_THREAD;")
            except Failure as failure:
                problems.append(failure)

        thread = threading.Thread(target=stop_and_start)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
        if problems:
            raise problems[0]

    def proxy(self, program, name, cluster="", limits="", replicas=True):
        """Starts dbproxy in front of all servers or of the primary alone."""
        port = free_port()
        chosen = self.servers.all if replicas else [self.primary]
        listed = ", ".join(f'"db{i}=127.0.0.1:{server.port}"' for i, server in enumerate(chosen, 1))
        config = self.processes.write(f"{name}-{port}.toml", f"""
workers = {WORKERS}
[listen]
mysql = ["127.0.0.1:{port}"]
[monitor]
user = "{MONITOR_USER}"
password = "{MONITOR_PASSWORD}"
[cluster]
servers = [{listed}]
{cluster}
[limits]
{limits}
""")
        process = self.processes.start(f"{name}-{port}", [program, "serve", "--config", config])

        def ready():
            process.require()
            return accepts(port)

        wait_for(f"{name} to accept connections", ready, 20)
        endpoint = Endpoint(name, port, process)
        # Not MySQL's shell, which begins with a question to the primary and then stays there.
        code = (f"echo (new mysqli('127.0.0.1', '{USER}', '{PASSWORD}', 'soak', {port}))"
                "->query('SELECT name FROM where_am_i')->fetch_row()[0];")
        wanted = ("db2", "db3") if replicas else ("db1",)
        wait_for(f"a first read through {name}", lambda: self.processes.run("php", ["php", "-r", code])[1] in wanted, 20)
        return endpoint

    @contextlib.contextmanager
    def proxied(self, program, name, **options):
        endpoint = self.proxy(program, name, **options)
        try:
            yield endpoint
        finally:
            self.processes.stop(endpoint.process)

    def reads(self):
        """How many SELECTs each server has been given so far."""
        return [int(one.sql("SHOW GLOBAL STATUS LIKE 'Com_select'").split()[1]) for one in self.servers.all]


def program(path):
    """The dbproxy to run: the one that is named, or the newer of target/fast and target/release."""
    target = os.environ.get("CARGO_TARGET_DIR") or os.path.join(REPOSITORY, "target")
    built = [os.path.join(target, profile, "dbproxy") for profile in ("fast", "release")]
    built = [path] if path else sorted(filter(os.path.exists, built), key=os.path.getmtime)
    if not built or not os.access(built[-1], os.X_OK):
        raise Failure("no dbproxy in target/fast or target/release: cargo build --release")
    return os.path.abspath(built[-1])
