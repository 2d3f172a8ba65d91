"""mysqlclient (MySQLdb), over MariaDB Connector/C."""

import re

import MySQLdb
import MySQLdb.cursors
from MySQLdb.constants import CLIENT

from dbapi import *  # noqa: F403: the whole tour


def connect(**options):
    return MySQLdb.connect(**{"host": HOST, "port": PORT, "user": USER, "password": PASSWORD, "database": SCHEMA, "charset": "utf8mb4", **options})


def autocommit(**options):
    return connect(autocommit=True, **options)


def details(db, cursor):
    say("  status", db.info(), db.warning_count(), db.field_count(), cursor.description_flags, db.insert_id())
    if db.warning_count():
        say("  warnings", db.show_warnings())


shows_warnings()
heading("server")
db = connect()
say("server", db.get_server_info(), db.get_proto_info(), db.character_set_name(), db.get_host_info() == f"{HOST} via TCP/IP", db.get_character_set_info())
cursor = db.cursor()
cursor.execute("SELECT CONNECTION_ID()")
say("thread", db.thread_id() == cursor.fetchone()[0])
say("stat", bool(re.match(r"Uptime: \d+  Threads: \d+  Questions: \d+  Slow queries", db.stat())))
say("ping", db.ping())
attempt("dump_debug_info", lambda: db.dump_debug_info())
attempt("string", lambda: db.escape_string(b"a'b\\c"))

heading("corpus")
corpus(lambda: autocommit(client_flag=CLIENT.MULTI_STATEMENTS), details, next_set=lambda c: c.nextset())
for kind in (MySQLdb.cursors.SSCursor, MySQLdb.cursors.DictCursor):
    fresh(cursor)
    heading(f"corpus with {kind.__name__}")
    corpus(autocommit, cursor_of=lambda db: db.cursor(kind), next_set=lambda c: c.nextset())
fresh(cursor)

heading("parameters")
parameters(connect())
heading("transactions")
transactions(connect)

heading("modes")
for name, options in {
    "found rows": {"client_flag": 0},
    "ignore space": {"client_flag": CLIENT.IGNORE_SPACE},
    "interactive": {"client_flag": CLIENT.INTERACTIVE},
    "init": {"init_command": "SET @init = 5, SESSION time_zone = '+02:00'"},
    "sql_mode": {"sql_mode": "ANSI_QUOTES"},
    "latin1": {"charset": "latin1"},
    "no unicode": {"use_unicode": False},
    "compress": {"compress": True},
    "timeouts": {"read_timeout": 20, "write_timeout": 20, "connect_timeout": 20},
    "socket": {"unix_socket": SOCKET, "host": "localhost"},
    "no schema": {"database": ""},
}.items():
    heading(name)

    def run():
        o = autocommit(**options)
        c = o.cursor()
        c.execute("SELECT @init, @@time_zone, @@sql_mode, @@character_set_client, @@collation_connection, DATABASE(), @@wait_timeout")
        say("state", c.fetchall())
        c.execute(f"UPDATE {SCHEMA}.tx SET v = 1")
        c.execute(f"UPDATE {SCHEMA}.tx SET v = 1")
        say("affected", c.rowcount, o.info())
        attempt("space", lambda: c.execute(f"SELECT COUNT (*) FROM {SCHEMA}.tx"))
        return c.execute("SELECT %s", (b"\xff'",)), c.fetchall(), o.character_set_name()

    attempt("run", run)

heading("several statements")
m = autocommit(client_flag=CLIENT.MULTI_STATEMENTS)
several_statements(m, MySQLdb.MySQLError)
attempt("not allowed", lambda: autocommit(multi_statements=False).cursor().execute("SELECT 1; SELECT 2"))
attempt("switched on", lambda: (db.set_server_option(MySQLdb.constants.CLIENT.MULTI_STATEMENTS and 0), db.query("SELECT 1; SELECT 2"), db.store_result().fetch_row(), db.next_result(), db.store_result().fetch_row(), db.next_result()))
attempt("switched off", lambda: (db.set_server_option(1), db.query("SELECT 1; SELECT 2")))

heading("low level")
m.query("SELECT id, v FROM tx ORDER BY id")
result = m.store_result()
say("rows", result.num_rows(), result.num_fields(), result.describe(), result.field_flags(), result.fetch_row(0, 1))
m.query("SELECT id FROM tx ORDER BY id")
result = m.use_result()
say("one by one", result.fetch_row(), result.fetch_row(0))
attempt("out of sync", lambda: (m.query("SELECT 1"), m.query("SELECT 2")))
m = autocommit()
say("select_db", m.select_db(SCHEMA + "_other"), m.cursor().execute("SELECT DATABASE()"))
attempt("no such", lambda: m.select_db("no_such"))
m.set_character_set("latin1", "latin1_german1_ci")
c = m.cursor()
c.execute("SELECT @@character_set_client, @@collation_connection")
say("charset", c.fetchall(), m.character_set_name())
m.select_db(SCHEMA)
attempt("change_user", lambda: (m.change_user(USER, PASSWORD, SCHEMA + "_other"), c.execute("SELECT DATABASE(), @@character_set_client"), c.fetchall()))
attempt("wrong", lambda: m.change_user(USER, "wrong", SCHEMA))
m = autocommit()
m.begin()
c = m.cursor()
c.execute("INSERT INTO tx VALUES (70, 0)")
m.rollback()
c.execute("SELECT COUNT(*) FROM tx WHERE id = 70")
say("rolled back", c.fetchall())
m.autocommit(False)
say("autocommit", m.get_autocommit())
attempt("shutdown", lambda: m.shutdown())

heading("procedures")
procedures(autocommit().cursor())

heading("files")
files(lambda allowed: autocommit(local_infile=allowed), lambda db, cursor: db.info())

heading("large")
big(connect())
heading("errors")
attempt("password", lambda: connect(password="wrong"))
attempt("account", lambda: connect(user="nobody"))
attempt("schema", lambda: connect(database="no_such"))
attempt("socket password", lambda: connect(unix_socket=SOCKET, host="localhost", password="wrong"))
attempt("empty", lambda: autocommit().cursor().execute(""))
attempt("read timeout", lambda: autocommit(read_timeout=1).cursor().execute("SELECT SLEEP(3)"))
heading("reads")
reads_what_it_wrote(connect)
heading("killing")
killing(autocommit, lambda c: c.thread_id(), lambda c, number: c.kill(number))
again = autocommit()
again.close()
attempt("closed", lambda: again.cursor().execute("SELECT 1"))
