"""PyMySQL."""

import pymysql
import pymysql.cursors
from pymysql.constants import CLIENT

from dbapi import *  # noqa: F403: the whole tour
import dbapi


def connect(**options):
    options = {"host": HOST, "port": PORT, "user": USER, "password": PASSWORD, "database": SCHEMA, "charset": "utf8mb4", **options}
    if options.get("unix_socket"):
        del options["host"], options["port"]
    return pymysql.connect(**options)


def details(db, cursor):
    result = cursor._result
    say("  status", result.affected_rows, result.insert_id, result.server_status, result.warning_count, result.message, result.has_next)
    if result.fields:
        say("  fields", [(f.name, f.org_name, f.table_name, f.org_table, f.db, f.charsetnr, f.length, f.type_code, f.flags, f.scale) for f in result.fields])


shows_warnings()
heading("server")
db = connect()
say("server", db.get_server_info(), db.get_proto_info(), db.character_set_name(), db.get_host_info() == f"socket {HOST}:{PORT}", db.server_status, db.server_charset, db.server_language)
say("capabilities", hex(db.server_capabilities & (CLIENT.CAPABILITIES | CLIENT.CONNECT_WITH_DB | CLIENT.MULTI_STATEMENTS | CLIENT.LOCAL_FILES | CLIENT.FOUND_ROWS)))
cursor = db.cursor()
cursor.execute("SELECT CONNECTION_ID()")
say("thread", db.thread_id() == cursor.fetchone()[0])
say("ping", db.ping(reconnect=False))

autocommit = lambda **options: connect(autocommit=True, **options)
heading("corpus")
corpus(lambda: autocommit(client_flag=CLIENT.MULTI_STATEMENTS), details, next_set=lambda c: c.nextset())
for kind in (pymysql.cursors.SSCursor, pymysql.cursors.DictCursor, pymysql.cursors.SSDictCursor):
    fresh(cursor)
    heading(f"corpus with {kind.__name__}")
    corpus(autocommit, cursor_of=lambda db: db.cursor(kind), next_set=lambda c: c.nextset())

fresh(cursor)
heading("parameters")
parameters(connect())
heading("transactions")
transactions(lambda: connect(cursorclass=pymysql.cursors.Cursor))
heading("modes")
for name, options in {
    "found rows": {"client_flag": CLIENT.FOUND_ROWS},
    "ignore space": {"client_flag": CLIENT.IGNORE_SPACE},
    "interactive": {"client_flag": CLIENT.INTERACTIVE},
    "init": {"init_command": "SET @init = 5, SESSION time_zone = '+02:00'"},
    "sql_mode": {"sql_mode": "ANSI_QUOTES"},
    "latin1": {"charset": "latin1"},
    "collation": {"collation": "utf8mb4_bin"},
    "timeouts": {"read_timeout": 20, "write_timeout": 20, "connect_timeout": 20},
    "socket": {"unix_socket": SOCKET},
    "no schema": {"database": None},
    "attributes": {"program_name": "compat"},
    "binary prefix": {"binary_prefix": True},
}.items():
    heading(name)

    def run():
        with autocommit(**options) as o:
            c = o.cursor()
            c.execute(f"SELECT @init, @@time_zone, @@sql_mode, @@character_set_client, @@collation_connection, DATABASE(), @@wait_timeout")
            say("state", c.fetchall())
            c.execute(f"UPDATE {SCHEMA}.tx SET v = 1")
            say("affected", c.rowcount)
            c.execute(f"UPDATE {SCHEMA}.tx SET v = 1")
            say("affected", c.rowcount, c._result.message)
            attempt("space", lambda: c.execute(f"SELECT COUNT (*) FROM {SCHEMA}.tx"))
            return c.execute("SELECT %s", (b"\xff'",))

    attempt("run", run)

heading("several statements")
several_statements(autocommit(client_flag=CLIENT.MULTI_STATEMENTS), pymysql.MySQLError)
attempt("not allowed", lambda: autocommit().cursor().execute("SELECT 1; SELECT 2"))

heading("procedures")
procedures(autocommit().cursor())

heading("files")
files(lambda allowed: autocommit(local_infile=allowed), lambda db, cursor: cursor._result.message)

heading("large")
big(connect(max_allowed_packet=64 << 20))
heading("errors")
attempt("password", lambda: connect(password="wrong"))
attempt("account", lambda: connect(user="nobody"))
attempt("schema", lambda: connect(database="no_such"))
attempt("socket password", lambda: connect(unix_socket=SOCKET, password="wrong"))
attempt("empty", lambda: autocommit().cursor().execute(""))
attempt("select_db", lambda: autocommit().select_db("no_such"))
attempt("read timeout", lambda: autocommit(read_timeout=1).cursor().execute("SELECT SLEEP(3)"))
half = autocommit()
c = half.cursor(pymysql.cursors.SSCursor)
c.execute("SELECT a.id FROM tx a LIMIT 20000")
say("half", c.fetchone())
c.close()
c = half.cursor()
say("after", c.execute("SELECT 1"), c.fetchall())
heading("reads")
reads_what_it_wrote(connect)
heading("killing")
killing(autocommit, lambda c: c.thread_id(), lambda c, number: c.kill(number))
again = autocommit()
again.close()
attempt("closed", lambda: again.cursor().execute("SELECT 1"))
say("reconnect", again.ping(reconnect=True), again.cursor().execute("SELECT 1"))
again.autocommit(False)
say("autocommit", again.get_autocommit(), again.server_status)
