"""The database servers of a run: one primary and, when asked, replicas of it, on loopback with private data."""

import glob
import os
import shutil

from processes import Failure, accepts, free_port, wait_for

TABLE_ROWS = 100_000
USER = PASSWORD = "app"
MONITOR_USER, MONITOR_PASSWORD = "dbproxy", "monitor"

ACCOUNTS = f"""
CREATE DATABASE sbtest;
CREATE USER {USER}@'%' IDENTIFIED BY '{PASSWORD}';
GRANT ALL ON sbtest.* TO {USER}@'%';
CREATE USER {MONITOR_USER}@'%' IDENTIFIED BY '{MONITOR_PASSWORD}';
GRANT ALL ON *.* TO {MONITOR_USER}@'%' WITH GRANT OPTION;
CREATE USER repl@'%' IDENTIFIED BY 'repl';
GRANT REPLICATION SLAVE ON *.* TO repl@'%';
"""


def unpacked_root():
    """Where MySQL's packages of a newer Debian are unpacked, or None."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    named = os.environ.get("DBPROXY_SERVERS")
    for directory in [named] if named else ["/var/cache/dbproxy", os.path.join(cache, "dbproxy")]:
        root = os.path.join(directory, "mysql")
        if os.path.exists(f"{root}/usr/sbin/mysqld"):
            return root
    return None


def unpacked(root, program):
    """The command that runs a program of another Debian with that system's own loader and libraries."""
    path = f"{root}/usr/{program}"
    loader = sorted(glob.glob(f"{root}/lib*/ld-linux*"))
    libraries = sorted(glob.glob(f"{root}/usr/lib/*-linux-gnu"))
    if not (os.path.exists(path) and loader and libraries):
        return None
    libraries += [f"{root}/usr/lib/mysql/private", f"{root}/usr/lib/mysql-router"]
    return [loader[0], "--library-path", ":".join(libraries), path]


class MariaDb:
    title = "MariaDB"

    def __init__(self, _processes):
        self.server, self.client = shutil.which("mariadbd"), shutil.which("mariadb")
        self.install = shutil.which("mariadb-install-db")
        if not (self.server and self.client and self.install):
            raise Failure("no MariaDB server in PATH: apt-get install mariadb-server")

    def version_command(self):
        return [self.server, "--no-defaults", "--version"]

    def initialise(self, processes, data):
        processes.check("mariadb-install-db", [
            self.install, "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal",
            "--skip-test-db", *root_user(),
        ])

    def command(self, _data):
        return [self.server, "--no-defaults", *root_user(), "--gtid-strict-mode=1", "--log-slave-updates=1",
                "--innodb-log-file-size=256M"]

    def client_command(self, user="root", password=""):
        return [self.client, "--no-defaults", f"--user={user}", f"--password={password}"]

    def follow(self, port):
        return (f"CHANGE MASTER TO master_host='127.0.0.1', master_port={port}, master_user='repl', master_password='repl', "
                "master_use_gtid=slave_pos, master_connect_retry=1; START SLAVE;")

    position = "SELECT @@gtid_binlog_pos"

    def caught_up(self, position):
        return f"SELECT MASTER_GTID_WAIT('{position}', 60) = 0"


class MySql:
    title = "MySQL"

    def __init__(self, processes):
        self.root = unpacked_root()
        if self.root:
            self.server, self.client = unpacked(self.root, "sbin/mysqld"), unpacked(self.root, "bin/mysql")
            self.places = [f"--basedir={self.root}/usr", f"--lc-messages-dir={self.root}/usr/share/mysql",
                           f"--character-sets-dir={self.root}/usr/share/mysql/charsets",
                           f"--plugin-dir={self.root}/usr/lib/mysql/plugin", "--secure-file-priv="]
        else:
            server, client = shutil.which("mysqld"), shutil.which("mysql")
            self.server, self.client, self.places = server and [server], client and [client], []
        if not (self.server and self.client):
            raise Failure("no MySQL server found: install mysql-server-core and mysql-client-core, or name in "
                          "DBPROXY_SERVERS the directory that has them unpacked in mysql/")
        if "MariaDB" in processes.check("mysqld --version", self.version_command()):
            raise Failure("mysqld in PATH is MariaDB's, and no MySQL server is unpacked")

    def version_command(self):
        return [*self.server, "--no-defaults", "--version"]

    def initialise(self, processes, data):
        processes.check("mysqld --initialize-insecure", [
            *self.server, "--no-defaults", "--initialize-insecure", f"--datadir={data}", *root_user(), *self.places,
        ])

    def command(self, data):
        return [*self.server, "--no-defaults", *root_user(), *self.places, "--gtid-mode=ON", "--enforce-gtid-consistency=ON",
                "--mysqlx=OFF", "--innodb-redo-log-capacity=256M"]

    def client_command(self, user="root", password=""):
        places = [f"--character-sets-dir={self.root}/usr/share/mysql/charsets"] if self.root else []
        return [*self.client, "--no-defaults", *places, f"--user={user}", f"--password={password}"]

    def follow(self, port):
        return (f"CHANGE REPLICATION SOURCE TO source_host='127.0.0.1', source_port={port}, source_user='repl', "
                "source_password='repl', source_auto_position=1, get_source_public_key=1, source_connect_retry=1; START REPLICA;")

    position = "SELECT REPLACE(@@GLOBAL.gtid_executed, '\\n', '')"

    def caught_up(self, position):
        return f"SELECT WAIT_FOR_EXECUTED_GTID_SET('{position}', 60) = 0"


FLAVORS = {"mariadb": MariaDb, "mysql": MySql}


def root_user():
    # The servers refuse to run as root unless told to.
    return ["--user=root"] if os.geteuid() == 0 else []


class Server:
    """One running server."""

    def __init__(self, processes, flavor, name, number, connections):
        self.processes, self.flavor, self.name = processes, flavor, name
        data = processes.path(name, "data")
        self.socket, self.port = processes.path(name, "sock"), free_port()
        flavor.initialise(processes, data)
        self.process = processes.start(name, [
            *flavor.command(data), f"--datadir={data}", f"--socket={self.socket}", f"--pid-file={processes.path(name, 'pid')}",
            f"--port={self.port}", "--bind-address=127.0.0.1", "--skip-name-resolve", f"--server-id={number}",
            "--log-bin=bin", "--relay-log=relay", "--sync-binlog=0", "--innodb-flush-log-at-trx-commit=2",
            "--innodb-buffer-pool-size=256M", f"--max-connections={connections}", "--back-log=1000",
            "--report-host=127.0.0.1", f"--report-port={self.port}",
        ])

        def ready():
            self.process.require()
            return accepts(self.port)

        wait_for(f"{name} to accept connections", ready, 60)

    def sql(self, text, **account):
        command = [*self.flavor.client_command(**account), f"--socket={self.socket}", "--batch", "--skip-column-names"]
        return self.processes.check(f"SQL on {self.name}", command, stdin=text).strip()

    def connected(self):
        """How many connections the server has."""
        return int(self.sql("SHOW GLOBAL STATUS LIKE 'Threads_connected'").split()[1])


class Servers:
    """A primary with the accounts and the table, and its replicas with the same data."""

    def __init__(self, processes, flavor, replicas, connections):
        self.primary = Server(processes, flavor, "primary", 1, connections)
        self.primary.sql(ACCOUNTS)
        processes.check("sysbench prepare", [
            "sysbench", "oltp_point_select", "--mysql-socket=" + self.primary.socket, "--mysql-user=root",
            "--mysql-db=sbtest", "--tables=1", f"--table-size={TABLE_ROWS}", "prepare",
        ])
        self.replicas = [Server(processes, flavor, f"replica{i}", 1 + i, connections) for i in range(1, replicas + 1)]
        position = self.primary.sql(flavor.position)
        for replica in self.replicas:
            replica.sql("SET GLOBAL read_only=1;" + flavor.follow(self.primary.port))
        for replica in self.replicas:
            if replica.sql(flavor.caught_up(position)) != "1":
                raise Failure(f"{replica.name} did not catch up with the primary:\n{replica.process.tail()}")
        for server in self.all:
            # caching_sha2_password is fast only for a password the server has seen; over the unix socket it may be sent.
            server.sql("SELECT 1", user=USER, password=PASSWORD)
            server.sql("SELECT 1", user=MONITOR_USER, password=MONITOR_PASSWORD)

    @property
    def all(self):
        return [self.primary, *self.replicas]

    def cpu(self):
        return sum(server.process.cpu() for server in self.all)

    def connected(self):
        return sum(server.connected() for server in self.all)
