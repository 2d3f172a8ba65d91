"""What is compared: the server itself and the proxies in front of it, each with its smallest sensible configuration.

Every proxy gets two threads, plain TCP on both sides and limits above 5,000 clients; nothing else is tuned.
"""

import os
import resource
import shutil

from processes import Failure, accepts, free_port, wait_for
from servers import MONITOR_PASSWORD, MONITOR_USER, PASSWORD, USER, unpacked, unpacked_root

THREADS = 2
REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def raise_descriptor_limit():
    """Takes as many descriptors as allowed, for the children too; the number of clients a TCP relay can then have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return (min(hard, 1_000_000) - 200) // 2


class Endpoint:
    """A way to reach the servers. `process` is None for the server itself."""

    def __init__(self, name, port, process):
        self.name, self.port, self.process = name, port, process

    def cpu(self):
        return self.process.cpu() if self.process else 0.0

    def rss(self):
        return self.process.rss() if self.process else 0


class Direct:
    name = "direct"

    def missing(self):
        return None

    def version(self, _processes):
        return None

    def start(self, _processes, servers, _label=""):
        return Endpoint(self.name, servers.primary.port, None)


class Proxy:
    """A program that listens on one port; subclasses say how to run it."""

    name = program = None
    version_option = "--version"

    def __init__(self):
        path = shutil.which(self.program)
        self.argv = [path] if path else None

    def missing(self):
        return None if self.argv else f"no {self.program} in PATH"

    def version(self, processes):
        _, out, err = processes.run(f"{self.name} {self.version_option}", [*self.argv, self.version_option])
        lines = [line for line in (out + err).splitlines() if line.strip()]
        return lines[0].strip() if lines else "?"

    def start(self, processes, servers, label=""):
        """Starts a fresh instance; `label` tells it from another one of the same run."""
        port = free_port()
        process = processes.start(self.name + label, self.command(processes, servers, port, self.name + label))

        def ready():
            process.require()
            return accepts(port)

        wait_for(f"{self.name} to accept connections", ready, 20)
        return Endpoint(self.name, port, process)

    def command(self, processes, servers, port, name):
        raise NotImplementedError


class HaProxy(Proxy):
    name = program = "haproxy"
    version_option = "-v"

    def missing(self):
        return None if self.argv else "no haproxy in PATH: apt-get install haproxy"

    def command(self, processes, servers, port, name):
        config = processes.write(f"{name}.cfg", f"""
global
    nbthread {THREADS}
    maxconn {raise_descriptor_limit()}
defaults
    mode tcp
    timeout connect 10s
    timeout client 1h
    timeout server 1h
listen mysql
    bind 127.0.0.1:{port}
    server db1 127.0.0.1:{servers.primary.port}
""")
        return [*self.argv, "-db", "-f", config]


class Router(Proxy):
    name, program = "router", "mysqlrouter"

    def __init__(self):
        super().__init__()
        self.plugins = None
        root = unpacked_root()
        if not self.argv and root:
            self.argv, self.plugins = unpacked(root, "bin/mysqlrouter"), f"{root}/usr/lib/mysqlrouter/plugin"

    def command(self, processes, servers, port, name):
        home = os.path.dirname(processes.path(name, "config"))
        plugins = f"plugin_folder={self.plugins}" if self.plugins else ""
        config = processes.write(f"{name}/config", f"""
[DEFAULT]
{plugins}
logging_folder={home}
runtime_folder={home}
data_folder={home}
max_total_connections=20000
[logger]
level=error
[io]
threads={THREADS}
[routing:primary]
bind_address=127.0.0.1
bind_port={port}
destinations=127.0.0.1:{servers.primary.port}
routing_strategy=first-available
protocol=classic
client_ssl_mode=DISABLED
server_ssl_mode=DISABLED
max_connections=20000
""")
        return [*self.argv, "--config", config]


class ProxySql(Proxy):
    name = program = "proxysql"

    def command(self, processes, servers, port, name):
        home = os.path.dirname(processes.path(name, "config"))
        config = processes.write(f"{name}/config", f"""
datadir="{home}"
admin_variables=
{{
    admin_credentials="admin:admin"
    mysql_ifaces="127.0.0.1:{free_port()};{home}/admin.sock"
}}
mysql_variables=
{{
    threads={THREADS}
    max_connections=20000
    interfaces="127.0.0.1:{port}"
    monitor_enabled=false
    default_schema="sbtest"
}}
mysql_servers=({{ address="127.0.0.1", port={servers.primary.port}, hostgroup=0, max_connections=1000 }})
mysql_users=({{ username="{USER}", password="{PASSWORD}", default_hostgroup=0, max_connections=20000 }})
""")
        return [*self.argv, "--initial", "-f", "-D", home, "-c", config]


class DbProxy(Proxy):
    """dbproxy in front of the primary alone, as every other proxy is; with `replicas`, in front of all servers."""

    name, program = "dbproxy", "dbproxy"

    def __init__(self, path=None, replicas=0):
        target = os.environ.get("CARGO_TARGET_DIR") or os.path.join(REPOSITORY, "target")
        built = [os.path.join(target, profile, "dbproxy") for profile in ("fast", "release")]
        built = sorted(filter(os.path.exists, built), key=os.path.getmtime, reverse=True)
        self.path = path or (built[0] if built else None)
        self.argv = [self.path] if self.path else None
        self.replicas = replicas
        if replicas:
            self.name = f"dbproxy/r{replicas}"

    def missing(self):
        if not self.path:
            return "no dbproxy in target/fast or target/release: cargo build --profile fast"
        return None if os.access(self.path, os.X_OK) else f"no program {self.path}"

    def command(self, processes, servers, port, name):
        chosen = servers.all if self.replicas else [servers.primary]
        listed = ", ".join(f'"db{i}=127.0.0.1:{server.port}"' for i, server in enumerate(chosen, 1))
        config = processes.write(f"{name.replace('/', '-')}.toml", f"""
workers = {THREADS}
[listen]
mysql = ["127.0.0.1:{port}"]
[monitor]
user = "{MONITOR_USER}"
password = "{MONITOR_PASSWORD}"
[cluster]
servers = [{listed}]
""")
        return [*self.argv, "serve", "--config", config]


def candidates(args):
    """Every kind of endpoint in the order of the tables."""
    kinds = [Direct(), HaProxy(), Router(), ProxySql(), DbProxy(args.dbproxy)]
    if args.replicas:
        kinds.append(DbProxy(args.dbproxy, args.replicas))
    return kinds


def choose(args, notice):
    """The endpoints of this run: all that are present, or exactly those that were asked for."""
    kinds = candidates(args)
    if args.endpoints:
        known = {kind.name: kind for kind in kinds}
        unknown = [name for name in args.endpoints if name not in known]
        if unknown:
            raise Failure(f"unknown endpoint {', '.join(unknown)}; known: {', '.join(known)}")
        kinds = [kind for kind in kinds if kind.name in args.endpoints]
    chosen = []
    for kind in kinds:
        why = kind.missing()
        if why is None:
            chosen.append(kind)
        elif args.endpoints or (args.dbproxy and isinstance(kind, DbProxy)):
            raise Failure(why)
        else:
            notice(f"without {kind.name}: {why}")
    return chosen
