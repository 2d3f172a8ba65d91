"""A cluster of real database servers on loopback, with dbproxy in front of it if wanted. Standard library only.

    with Cluster("mariadb", replicas=1, proxy="target/debug/dbproxy") as c:
        c.direct     # Endpoint(host, port, socket) of the primary itself
        c.proxied    # the same of dbproxy; None without a proxy

It resembles what `dbproxy demo` starts: the primary `db1`, replicas `db2`, ... that follow it by GTID, all in a private
directory that is removed in the end; every process is ended by its number. Accounts, as NAME: PASSWORD in ACCOUNTS:
`root` and `app` may do everything, from everywhere; `dbproxy` is the monitor's, `repl` is for replication.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections import namedtuple
from pathlib import Path

FLAVORS = ("mariadb", "mysql")
ACCOUNTS = {"root": "root", "app": "app", "dbproxy": "dbproxy", "repl": "repl"}
PATIENCE = 90.0

Endpoint = namedtuple("Endpoint", "host port socket")

COMMON = [
    "--bind-address=127.0.0.1", "--report-host=127.0.0.1", "--skip-name-resolve", "--local-infile=1",
    "--log-bin-trust-function-creators=1", "--max-connections=500", "--max-allowed-packet=64M", "--log-bin=bin",
    "--relay-log=relay", "--sync-binlog=0", "--innodb-flush-log-at-trx-commit=2", "--innodb-buffer-pool-size=64M",
    "--event-scheduler=ON", "--secure-file-priv=",
]
FLAVORED = {
    "mariadb": [
        "--binlog-format=ROW", "--log-slave-updates=1", "--gtid-strict-mode=1", "--performance-schema=0",
        "--innodb-log-file-size=64M",
    ],
    "mysql": [
        "--gtid-mode=ON", "--enforce-gtid-consistency=ON", "--log-replica-updates=1", "--mysqlx=0",
        "--innodb-redo-log-capacity=64M", "--performance-schema-max-table-instances=200",
        "--table-open-cache=400",
    ],
}


class Programs:
    """The programs of one flavour: Debian's own MariaDB, or the MySQL that compose/install-servers has unpacked."""

    def __init__(self, flavor):
        self.flavor = flavor
        if flavor == "mariadb":
            self.words, self.relocation = [find("mariadbd")], []
        else:
            self.words, self.relocation = self._unpacked()

    @staticmethod
    def _unpacked():
        root = Path(os.environ.get("DBPROXY_SERVERS", "/var/cache/dbproxy")) / "mysql"
        if not (root / "usr/sbin/mysqld").is_file():
            raise SystemExit("MySQL is missing; run: compose/install-servers")
        loaders = [path for name in ("lib64", "lib") for path in sorted((root / name).glob("ld-linux*"))]
        triplet = next((root / "usr/lib").glob("*-linux-gnu"))
        libraries = f"{triplet}:{root / 'usr/lib/mysql/private'}"
        words = [str(loaders[0]), "--library-path", libraries, str(root / "usr/sbin/mysqld")]
        share = root / "usr/share/mysql"
        return words, [
            f"--basedir={root / 'usr'}", f"--lc-messages-dir={share}", f"--character-sets-dir={share / 'charsets'}",
            f"--plugin-dir={root / 'usr/lib/mysql/plugin'}",
        ]

    def server(self):
        user = ["--user=root"] if os.geteuid() == 0 else []
        return [*self.words, "--no-defaults", *self.relocation, *user]

    def client(self, name):
        """The words that run a client program of the same packages: `mysql`, `mysqldump`, ..."""
        if self.flavor == "mariadb":
            return [find(name), "--no-defaults"]
        return [*self.words[:-1], str(Path(self.words[-1]).parents[1] / "bin" / name), "--no-defaults"]

    def initialize(self, data, statements, temporary):
        if self.flavor == "mariadb":
            user = ["--user=root"] if os.geteuid() == 0 else []
            command = [
                find("mariadb-install-db"), "--no-defaults", "--auth-root-authentication-method=normal",
                "--skip-test-db", "--skip-name-resolve", *user, f"--extra-file={statements}", f"--datadir={data}",
                "--innodb-log-file-size=64M",
            ]
        else:
            command = [
                *self.server(), "--initialize-insecure", f"--init-file={statements}", f"--datadir={data}",
                "--innodb-redo-log-capacity=64M",
            ]
        run([*command, f"--tmpdir={temporary}"])


class Cluster:
    """Starts on entry, ends on exit. `settings` are further lines of dbproxy's configuration (whole sections);
    `options` are further options of every server."""

    def __init__(self, flavor, replicas=1, proxy=None, settings="", options=(), databases=("test",)):
        self.flavor, self.replicas, self.proxy = flavor, replicas, proxy
        self.settings, self.options, self.databases = settings, list(options), databases
        self.programs = Programs(flavor)
        self.processes = []
        self.direct = self.proxied = None
        self.servers = []
        self.configuration = None

    def __enter__(self):
        shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.directory = Path(tempfile.mkdtemp(prefix="dbproxy-compat-", dir=shared))
        self.directory.chmod(0o755)
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in reversed(self.processes):
            process.terminate() if process.args[-2:-1] == ["--config"] else process.kill()
        for process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def run(self, sql, server=0):
        """Runs statements as root on one of the servers (0 is the primary), not through the proxy; their output."""
        program = self.programs.client("mariadb" if self.flavor == "mariadb" else "mysql")
        command = [*program, f"--socket={self.servers[server].socket}", "--user=root", "--batch"]
        environment = {**os.environ, "MYSQL_PWD": ACCOUNTS["root"]}
        return run(command, input=sql, env=environment)

    def proxy_log(self):
        return (self.directory / "proxy.log").read_text(errors="replace")

    def caught_up(self):
        """Waits until every replica has what the primary has written so far."""
        mariadb = self.flavor == "mariadb"
        position = self.run("SELECT @@gtid_binlog_pos" if mariadb else "SELECT @@global.gtid_executed")
        position = "".join(position.split("\n")[1:]).replace("\\n", "")
        wait = "MASTER_GTID_WAIT" if mariadb else "WAIT_FOR_EXECUTED_GTID_SET"
        for number in range(1, self.replicas + 1):
            answer = self.run(f"SELECT {wait}('{position}', {int(PATIENCE)})", number).split()[-1]
            if answer != "0":
                raise RuntimeError(f"db{number + 1} does not catch up")

    def _start(self):
        template = self.directory / "template"
        statements = self.directory / "accounts.sql"
        statements.write_text(accounts(self.flavor, self.databases))
        # A starting MariaDB removes the temporary tables of every other server that has the same directory for them.
        temporary = self.directory / "tmp"
        temporary.mkdir()
        self.programs.initialize(template, statements, temporary)
        (template / "auto.cnf").unlink(missing_ok=True)
        for number in range(1, self.replicas + 2):
            self._server(number, template)
        shutil.rmtree(template)
        for number in range(self.replicas + 1):
            self._until(lambda number=number: self._answers(number), f"db{number + 1} to answer")
        for number in range(1, self.replicas + 1):
            self._replicate(number)
        self.caught_up()
        self.direct = self.servers[0]
        if self.proxy:
            self._proxy()

    def _server(self, number, template):
        home = self.directory / f"db{number}"
        home.mkdir(mode=0o755)
        shutil.copytree(template, home / "data")
        (home / "tmp").mkdir()
        endpoint = Endpoint("127.0.0.1", free_port(), str(home / "sock"))
        command = [
            *self.programs.server(), f"--datadir={home / 'data'}", f"--socket={endpoint.socket}",
            f"--pid-file={home / 'pid'}", f"--port={endpoint.port}", f"--report-port={endpoint.port}",
            f"--server-id={number}", f"--tmpdir={home / 'tmp'}", *COMMON, *FLAVORED[self.flavor], *self.options,
        ]
        if number > 1:
            command.append("--read-only=1")
        self._spawn(command, home / "log")
        self.servers.append(endpoint)

    def _replicate(self, number):
        port, password = self.servers[0].port, ACCOUNTS["repl"]
        if self.flavor == "mariadb":
            sql = (
                "SET GLOBAL gtid_slave_pos=@@gtid_current_pos; CHANGE MASTER TO master_host='127.0.0.1', "
                f"master_port={port}, master_user='repl', master_password='{password}', "
                "master_use_gtid=slave_pos, master_connect_retry=1; START SLAVE"
            )
        else:
            sql = (
                f"CHANGE REPLICATION SOURCE TO source_host='127.0.0.1', source_port={port}, source_user='repl', "
                f"source_password='{password}', source_auto_position=1, get_source_public_key=1, "
                "source_connect_retry=1; START REPLICA; SET GLOBAL super_read_only=1"
            )
        self.run(sql, number)

    def _proxy(self):
        endpoint = Endpoint("127.0.0.1", free_port(), str(self.directory / "proxy.sock"))
        self.configuration = self.directory / "dbproxy.toml"
        servers = json.dumps([f"db{n}=127.0.0.1:{server.port}" for n, server in enumerate(self.servers, 1)])
        self.configuration.write_text(
            f'[listen]\nmysql = ["127.0.0.1:{endpoint.port}", "unix:{endpoint.socket}"]\n\n'
            f'[monitor]\nuser = "dbproxy"\npassword = "{ACCOUNTS["dbproxy"]}"\n\n'
            f"[cluster]\nservers = {servers}\n\n{self.settings}\n"
        )
        self.configuration.chmod(0o600)
        command = [os.path.abspath(self.proxy), "serve", "--config", str(self.configuration)]
        self._spawn(command, self.directory / "proxy.log")
        self.proxied = endpoint
        self._until(lambda: self._accepts(endpoint), "the proxy to accept a login")

    def _accepts(self, endpoint):
        program = self.programs.client("mariadb" if self.flavor == "mariadb" else "mysql")
        command = [*program, f"--socket={endpoint.socket}", "--user=app", "--execute=SELECT 1"]
        environment = {**os.environ, "MYSQL_PWD": ACCOUNTS["app"]}
        return subprocess.run(command, env=environment, capture_output=True).returncode == 0

    def _answers(self, number):
        try:
            self.run("SELECT 1", number)
        except RuntimeError:
            return False
        return True

    def _spawn(self, command, log):
        with open(log, "wb") as file:
            # A group of its own: the terminal's interrupt is for this program.
            self.processes.append(
                subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True)
            )
        self.processes[-1].log = log

    def _until(self, condition, what):
        deadline = time.monotonic() + PATIENCE
        while not condition():
            ended = [process for process in self.processes if process.poll() is not None]
            if ended or time.monotonic() > deadline:
                log = "\n".join((ended or self.processes)[-1].log.read_text(errors="replace").splitlines()[-20:])
                raise RuntimeError(f"waited for {what}; the log ends:\n{log}")
            time.sleep(0.05)


def accounts(flavor, databases):
    """The statements, one per line, that make the accounts in a new data directory."""
    lines = []
    if flavor == "mariadb":
        # While the system tables are being made no account exists in memory.
        lines += ["FLUSH PRIVILEGES;", "DELETE FROM mysql.global_priv WHERE User='' OR User='root';"]
        lines += ["FLUSH PRIVILEGES;"]
        native = "mysql_native_password"
    else:
        lines += ["DROP USER root@localhost;"]
        native = "caching_sha2_password"
    for name in ("root", "app"):
        for host in ("localhost", "%"):
            password = ACCOUNTS[name]
            identified = (
                f"VIA {native} USING PASSWORD('{password}')" if flavor == "mariadb" else f"WITH {native} BY '{password}'"
            )
            lines.append(f"CREATE USER {name}@'{host}' IDENTIFIED {identified};")
            lines.append(f"GRANT ALL ON *.* TO {name}@'{host}' WITH GRANT OPTION;")
    lines.append(f"CREATE USER repl@'%' IDENTIFIED BY '{ACCOUNTS['repl']}';")
    lines.append("GRANT REPLICATION SLAVE ON *.* TO repl@'%';")
    lines.append(f"CREATE USER dbproxy@'%' IDENTIFIED BY '{ACCOUNTS['dbproxy']}';")
    lines.append("GRANT ALL ON *.* TO dbproxy@'%';")
    lines += [f"CREATE DATABASE {name};" for name in databases]
    return "\n".join(lines) + "\n"


def find(program):
    path = os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin:/sbin"
    found = shutil.which(program, path=path)
    if not found:
        raise SystemExit(f"{program} is missing; run: compose/install-servers")
    return found


def free_port():
    """A port that was free just now, below the range of the system's outgoing connections."""
    for _ in range(1000):
        candidate = 12_000 + int.from_bytes(os.urandom(2), "big") % 20_000
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", candidate))
            except OSError:
                continue
            return candidate
    raise RuntimeError("no free port found")


def run(command, **options):
    """A program's output; what it said if it fails."""
    done = subprocess.run(command, text=True, capture_output=True, errors="replace", **options)
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def interrupted(*_):
    raise SystemExit(130)


# A cluster must end with whoever started it.
signal.signal(signal.SIGTERM, interrupted)


if __name__ == "__main__":
    import sys

    with Cluster(sys.argv[1], proxy=sys.argv[2] if len(sys.argv) > 2 else None) as cluster:
        print("direct ", *cluster.direct)
        if cluster.proxied:
            print("proxied", *cluster.proxied)
        sys.stdout.flush()
        try:
            signal.pause()
        except KeyboardInterrupt:
            pass
