"""mysql-connector-python, in Python alone or over its C extension: the first argument says which."""

import os
import re
import sys

import mysql.connector
from mysql.connector.constants import ClientFlag, RefreshOption

from dbapi import *  # noqa: F403: the whole tour

PURE = sys.argv[1] == "pure"


# A cursor holds its connection only weakly.
kept = []


def connect(**options):
    kept.append(mysql.connector.connect(
        **{"host": HOST, "port": PORT, "user": USER, "password": PASSWORD, "database": SCHEMA, "use_pure": PURE, "ssl_disabled": True, "charset": "utf8mb4", "collation": "utf8mb4_general_ci", **options}
    ))
    return kept[-1]


def autocommit(**options):
    return connect(autocommit=True, **options)


def details(db, cursor):
    say("  status", db.in_transaction, cursor.warning_count, cursor.statement is not None, cursor.with_rows)
    if cursor.warning_count:
        say("  warnings", cursor.fetchwarnings())


def buffered(db):
    return db.cursor(buffered=True)


shows_warnings()
heading("server")
db = connect()
say("server", db.server_version if hasattr(db, "server_version") else db.get_server_version(), db.server_info if hasattr(db, "server_info") else None, db.charset, db.collation, db.python_charset)
cursor = db.cursor()
cursor.execute("SELECT CONNECTION_ID()")
say("thread", db.connection_id == cursor.fetchone()[0])
attempt("statistics", lambda: sorted(db.cmd_statistics()))
attempt("ping", lambda: db.cmd_ping() is not None)
attempt("debug", lambda: db.cmd_debug())
attempt("refresh", lambda: sorted(db.cmd_refresh(RefreshOption.STATUS)))
attempt("process info", lambda: len(db.cmd_process_info()) > 0)
say("in transaction", db.in_transaction, db.autocommit, db.sql_mode, db.time_zone, db.database)

for kind in ({"buffered": True}, {"raw": True, "buffered": True}, {"dictionary": True}, {"prepared": True}):
    fresh(autocommit().cursor())
    heading(f"corpus {kind}")
    corpus(lambda: autocommit(get_warnings=True), details, cursor_of=lambda db: db.cursor(**kind), next_set=None if kind.get("prepared") else lambda c: c.nextset())

fresh(autocommit().cursor())
heading("parameters")


def part():
    parameters(connect(), cursor_of=buffered)


attempt("part", part)
heading("parameters, prepared")


def part():
    attempt("run", lambda: parameters(autocommit(), cursor_of=lambda db: db.cursor(prepared=True)))


attempt("part", part)
heading("prepared")


def part():
    p = autocommit()
    c = p.cursor(prepared=True)
    attempt("reused", lambda: [(c.execute("SELECT ?, ? + 1", row), c.fetchall())[1] for row in ((1, 2), ("a", 2.5), (None, None), (b"x", 2**63))])
    c.execute("SELECT id, s FROM p WHERE id > ? ORDER BY id LIMIT 3", (1,))
    say("some", c.fetchone(), c.fetchmany(5), c.rowcount, c.column_names)
    c.execute("SELECT * FROM p WHERE id = ?", (1,))
    say("all", len(c.fetchall()[0]))
    p.cursor().execute("ALTER TABLE p ADD COLUMN even_later INT DEFAULT 1")
    attempt("after ALTER", lambda: (c.execute("SELECT * FROM p WHERE id = ?", (1,)), len(c.fetchall()[0]), c.column_names))
    attempt("many", lambda: c.executemany("INSERT INTO p (i, s) VALUES (?, ?)", [(n, "x") for n in range(20)]))
    say("count", c.rowcount, c.lastrowid)
    c.close()


attempt("part", part)
heading("transactions")


def part():
    transactions(connect)
    t = connect()
    t.start_transaction(consistent_snapshot=True, isolation_level="REPEATABLE READ")
    say("in", t.in_transaction)
    t.rollback()
    t.start_transaction(readonly=True)
    attempt("read only", lambda: t.cursor().execute("DELETE FROM tx"))
    t.rollback()
    attempt("twice", lambda: (t.start_transaction(), t.start_transaction()))
    t.rollback()
    say("out", t.in_transaction)


attempt("part", part)
heading("modes")


def part():
    for name, options in {
        "found rows": {"client_flags": [-ClientFlag.FOUND_ROWS]},
        "ignore space": {"client_flags": [ClientFlag.IGNORE_SPACE]},
        "interactive": {"client_flags": [ClientFlag.INTERACTIVE]},
        "init": {"init_command": "SET @init = 5"},
        "time zone": {"time_zone": "+02:00", "sql_mode": "ANSI_QUOTES"},
        "latin1": {"charset": "latin1", "collation": "latin1_german1_ci"},
        "compress": {"compress": True},
        "attributes": {"conn_attrs": {"of": "compat"}},
        "socket": {"unix_socket": SOCKET},
        "no schema": {"database": None},
        "stringly": {"converter_str_fallback": True, "consume_results": True},
        "unread": {"consume_results": True},
    }.items():
        heading(name)

        def run():
            o = autocommit(**options)
            c = o.cursor()
            c.execute("SELECT @init, @@time_zone, @@sql_mode, @@character_set_client, @@collation_connection, DATABASE(), @@wait_timeout")
            say("state", c.fetchall())
            c.execute(f"UPDATE {SCHEMA}.tx SET v = 1")
            c.execute(f"UPDATE {SCHEMA}.tx SET v = 1")
            say("affected", c.rowcount)
            c.execute(f"SELECT id FROM {SCHEMA}.tx")
            attempt("unread", lambda: o.cursor().execute("SELECT 1"))
            o = autocommit(**options)
            c = o.cursor()
            attempt("space", lambda: c.execute(f"SELECT COUNT (*) FROM {SCHEMA}.tx"))

        attempt("run", run)


attempt("part", part)
heading("several statements")


def part():
    m = autocommit()
    c = m.cursor()
    for sql in SEVERAL:
        say(sql)
        try:
            for result in m.cmd_query_iter(sql):
                say("result", sorted(result) if isinstance(result, dict) else result)
                if "columns" in result:
                    say("rows", m.get_rows()[0])
        except mysql.connector.Error as error:
            say("fails", failure(error))
            m = autocommit()


attempt("part", part)
heading("session")


def part():
    s = autocommit()
    c = s.cursor()
    c.execute("SET @mine = 1")
    attempt("reset", lambda: (s.reset_session({"kept": 2}), c.execute("SELECT @mine, @kept"), c.fetchall()))
    attempt("reset connection", lambda: (s.cmd_reset_connection(), c.execute("SELECT @mine, @kept, DATABASE(), @@character_set_client"), c.fetchall()))
    attempt("change user", lambda: (s.cmd_change_user(USER, PASSWORD, SCHEMA + "_other"), c.execute("SELECT DATABASE()"), c.fetchall()))
    s = autocommit()
    attempt("wrong", lambda: s.cmd_change_user(USER, "wrong", SCHEMA))
    s = autocommit()
    attempt("schema", lambda: (s.cmd_init_db(SCHEMA + "_other"), s.database))
    attempt("no such", lambda: s.cmd_init_db("no_such"))
    s.set_charset_collation("latin1")
    c = s.cursor()
    c.execute("SELECT @@character_set_client, @@collation_connection")
    say("charset", c.fetchall(), s.charset)
    attempt("sql_mode", lambda: (setattr(s, "sql_mode", ["ANSI_QUOTES"]), s.sql_mode))
    attempt("time zone", lambda: (setattr(s, "time_zone", "+03:00"), s.time_zone))
    say("connected", s.is_connected(), s.ping(reconnect=True))
    s.reconnect()
    say("again", s.is_connected(), s.database)
    if hasattr(s, "info_query"):
        attempt("info query", lambda: s.info_query("SELECT DATABASE()"))


attempt("part", part)
heading("procedures")


def part():
    c = autocommit().cursor()
    c.execute(PROCEDURE)
    attempt("call", lambda: (c.callproc("results", (2, 3, None)), [r.fetchall() for r in c.stored_results()]))


attempt("part", part)
heading("pool")


def part():
    pool = mysql.connector.pooling.MySQLConnectionPool(pool_name="compat", pool_size=3, host=HOST, port=PORT, user=USER, password=PASSWORD, database=SCHEMA, use_pure=PURE, ssl_disabled=True, charset="utf8mb4", collation="utf8mb4_general_ci", autocommit=True)
    for number in range(8):
        pooled = pool.get_connection()
        c = pooled.cursor()
        c.execute("SELECT @left, COUNT(*) FROM tx")
        say("pooled", c.fetchall())
        c.execute("SET @left = 1")
        c.close()
        pooled.close()


attempt("part", part)
heading("files")


def part():
    files(lambda allowed: autocommit(allow_local_infile=allowed), lambda db, cursor: None)


attempt("part", part)
heading("large")


def part():
    big(connect(), cursor_of=buffered)


attempt("part", part)
heading("errors")


def part():
    attempt("password", lambda: connect(password="wrong"))
    attempt("account", lambda: connect(user="nobody"))
    attempt("schema", lambda: connect(database="no_such"))
    attempt("empty", lambda: autocommit().cursor().execute(""))
    attempt("unread", lambda: db.cmd_query("SELECT 1"))


attempt("part", part)
heading("reads")


def part():
    reads_what_it_wrote(connect)


attempt("part", part)
heading("killing")


def part():
    killing(autocommit, lambda c: c.connection_id, lambda c, number: c.cursor().execute(f"KILL {number}"))


attempt("part", part)
