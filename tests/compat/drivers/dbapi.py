"""What the scripts for Python's drivers share: the tour that every DB-API driver can make."""

import contextlib
import datetime
import decimal
import hashlib
import json
import os
import re
import sys
import tempfile
import threading
import time
import warnings

HOST, PORT, SOCKET, USER, PASSWORD, SCHEMA, FLAVOR = sys.argv[-7:]
PORT = int(PORT)
ROUNDS = 100


def text(value):
    """A value with its type, the same in every run."""
    if isinstance(value, (bytes, bytearray)):
        shown = value.hex() if len(value) <= 1000 else f"md5:{hashlib.md5(value).hexdigest()} of {len(value)}"
        return f"{type(value).__name__}({shown})"
    if isinstance(value, str) and len(value) > 2000:
        return f"md5:{hashlib.md5(value.encode()).hexdigest()} of {len(value)}"
    if isinstance(value, (tuple, list)):
        return f"{type(value).__name__}[" + ", ".join(map(text, value)) + "]"
    if isinstance(value, (set, frozenset)):
        return "set" + repr(sorted(value))
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {text(item)}" for key, item in value.items()) + "}"
    return repr(value)


def say(what, *values):
    print(what + (": " + " ".join(map(text, values)) if values else ""), flush=True)


def heading(what):
    print("==", what)


def attempt(what, run):
    """What something gives, or how it fails."""
    try:
        say(what, run())
    except Exception as error:  # noqa: BLE001: whatever it is, it is printed
        say(what, "fails", failure(error))


def failure(error):
    """An error with everything in it but addresses."""
    found = [type(error).__name__, *error.args]
    for name in ("errno", "sqlstate", "msg"):
        if hasattr(error, name):
            found.append(getattr(error, name))
    return found


def statements():
    """The statements of the corpus that this server is for."""
    with open(os.environ["COMPAT_STATEMENTS"], encoding="utf-8") as file:
        for line in file.read().splitlines():
            found = re.match(r"@(mariadb|mysql) (.*)$", line)
            if found and found[1] != FLAVOR or line == "" or line.startswith("-- "):
                continue
            yield found[2] if found else line


def until(condition):
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


def shows_warnings():
    """The drivers' warnings become lines."""
    warnings.simplefilter("always")
    warnings.showwarning = lambda message, category, *_: say("  warning", category.__name__, str(message))


def fresh(cursor):
    for name, charset in ((SCHEMA, "utf8mb4"), (SCHEMA + "_other", "latin1")):
        cursor.execute(f"DROP DATABASE IF EXISTS {name}")
        cursor.execute(f"CREATE DATABASE {name} CHARACTER SET {charset}")
    cursor.execute(f"USE {SCHEMA}")


def shown(cursor):
    """Everything of one result."""
    say("  columns", cursor.description)
    if cursor.description is not None:
        for row in cursor.fetchall():
            say("  row", row)
    say("  rows", cursor.rowcount, cursor.lastrowid)


def corpus(connect, details=lambda db, cursor: None, cursor_of=lambda db: db.cursor(), next_set=None):
    """Every statement of the corpus through one connection."""
    db = connect()
    cursor = cursor_of(db)
    for sql in statements():
        say(sql)
        try:
            cursor.execute(sql)
            shown(cursor)
            details(db, cursor)
            while next_set and next_set(cursor):
                shown(cursor)
        except Exception as error:  # noqa: BLE001
            say("  fails", failure(error))
            try:
                cursor = cursor_of(db)
            except Exception:  # noqa: BLE001: some drivers lose themselves
                say("  anew")
                with contextlib.suppress(Exception):
                    db.disconnect()
                db = connect()
                cursor = cursor_of(db)
    db.close()


def parameters(db, style="%s", cursor_of=lambda db: db.cursor()):
    """Values bound, by whatever way the driver has."""
    cursor = cursor_of(db)
    cursor.execute("DROP TABLE IF EXISTS p")
    cursor.execute(
        "CREATE TABLE p (id INT AUTO_INCREMENT PRIMARY KEY, i BIGINT, u BIGINT UNSIGNED, d DECIMAL(20,5), f DOUBLE, s VARCHAR(100), b LONGBLOB,"
        " t DATETIME(6), da DATE, ti TIME(6), y YEAR, bi BIT(8), st SET('a','b'), js JSON)"
    )
    values = [
        (2**63 - 1, 2**64 - 1, decimal.Decimal("123456789012345.54321"), 3.25, "Grüße 'quoted' \\ % 🎉", b"\0\1\2'\\\xff", datetime.datetime(2024, 5, 6, 7, 8, 9, 123456), datetime.date(2024, 2, 29), datetime.timedelta(days=-3, microseconds=5), 2024, b"\x81", "a,b", '{"a": 1}'),
        (-(2**63), 0, decimal.Decimal("-0.00001"), -1e100, "", b"", datetime.datetime(1000, 1, 1), datetime.date(9999, 12, 31), datetime.timedelta(hours=800), 1901, b"\x00", "", "[]"),
        (None,) * 13,
    ]
    insert = f"INSERT INTO p (i, u, d, f, s, b, t, da, ti, y, bi, st, js) VALUES ({', '.join([style] * 13)})"
    for row in values:
        attempt("insert", lambda: (cursor.execute(insert, row), cursor.rowcount, cursor.lastrowid)[1:])
    attempt("many", lambda: (cursor.executemany(f"INSERT INTO p (i, s) VALUES ({style}, {style})", [(n, f"n{n}") for n in range(300)]), cursor.rowcount)[1])
    db.commit()
    for argument in (0, 2, 9999):
        cursor.execute(f"SELECT * FROM p WHERE id > {style} AND (i IS NULL OR i <> 5) ORDER BY id LIMIT 5", (argument,))
        shown(cursor)
    attempt("in", lambda: (cursor.execute(f"SELECT id FROM p WHERE id IN ({style}, {style})", (1, 3)), cursor.fetchall())[1])
    attempt("too few", lambda: cursor.execute(f"SELECT {style}, {style}", (1,)))
    cursor = cursor_of(db)
    attempt("duplicate", lambda: cursor.execute(f"INSERT INTO p (id) VALUES ({style})", (1,)))
    attempt("no table", lambda: cursor.execute(f"SELECT * FROM nothing WHERE a = {style}", (1,)))
    cursor.execute("ALTER TABLE p ADD COLUMN late INT DEFAULT 3, DROP COLUMN b")
    cursor.execute(f"SELECT * FROM p WHERE id = {style}", (1,))
    shown(cursor)
    db.commit()


def transactions(connect, integrity=Exception):
    db, other = connect(), connect()
    cursor, outside = db.cursor(), other.cursor()
    cursor.execute("CREATE TABLE tx (id INT PRIMARY KEY, v INT)")

    def count(of, on):
        of.execute("SELECT COUNT(*) FROM tx")
        found = of.fetchone()[0]
        on.commit()
        return found

    def inside():
        cursor.execute("SELECT COUNT(*) FROM tx")
        return cursor.fetchone()[0]

    cursor.execute("INSERT INTO tx VALUES (1, 1)")
    say("not committed", inside(), count(outside, other))
    db.commit()
    say("committed", inside(), count(outside, other))
    cursor.execute("INSERT INTO tx VALUES (2, 2)")
    db.rollback()
    say("rolled back", inside())
    db.commit()
    cursor.execute("INSERT INTO tx VALUES (2, 2)")
    cursor.execute("SAVEPOINT a")
    cursor.execute("INSERT INTO tx VALUES (3, 3)")
    cursor.execute("ROLLBACK TO a")
    db.commit()
    say("savepoint", count(outside, other))
    outside.execute("SET SESSION innodb_lock_wait_timeout = 1")
    cursor.execute("UPDATE tx SET v = 5 WHERE id = 1")
    attempt("lock timeout", lambda: outside.execute("UPDATE tx SET v = 6 WHERE id = 1"))
    outside.execute("SET SESSION innodb_lock_wait_timeout = 20")
    other.rollback()
    outside.execute("UPDATE tx SET v = 6 WHERE id = 2")
    ends = []

    def blocked():
        try:
            outside.execute("UPDATE tx SET v = 7 WHERE id = 1")
            ends.append("went on")
        except Exception as error:  # noqa: BLE001
            ends.append(text(failure(error)))
            other.rollback()
        other.commit()

    thread = threading.Thread(target=blocked)
    thread.start()
    watch = connect()

    def waits():
        looking = watch.cursor()
        looking.execute("SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'UPDATE tx SET v = 7%'")
        found = looking.fetchall()[0][0]
        watch.commit()
        return found > 0

    until(waits)
    try:
        cursor.execute("UPDATE tx SET v = 8 WHERE id = 2")
        ends.append("went on")
    except Exception as error:  # noqa: BLE001
        ends.append(text(failure(error)))
        db.rollback()
    db.commit()
    thread.join()
    say("deadlock", sorted(ends))
    for each in (db, other, watch):
        each.close()


def reads_what_it_wrote(connect):
    db, other = connect(), connect()
    cursor = db.cursor()
    cursor.execute("CREATE TABLE rw (id INT PRIMARY KEY, v INT)")
    missed = 0
    for number in range(ROUNDS):
        cursor.execute("INSERT INTO rw VALUES (%d, %d)" % (number, number))
        db.commit()
        cursor.execute("SELECT v FROM rw WHERE id = %d" % number)
        missed += cursor.fetchall()[0][0] != number
        db.commit()
        reader = connect() if number % 5 == 0 else other
        looking = reader.cursor()
        looking.execute("SELECT COUNT(*) FROM rw WHERE id = %d" % number)
        missed += looking.fetchall()[0][0] != 1
        reader.commit()
        if reader is not other:
            reader.close()
    say("missed", missed)
    db.close()
    other.close()


def killing(connect, thread_id, kill):
    db, victim = connect(), connect()
    mine = victim.cursor()
    mine.execute("SELECT CONNECTION_ID()")
    identity = thread_id(victim)
    say("its id", mine.fetchall()[0][0] == identity)
    ends = []

    def sleeps():
        try:
            # A read that only the primary can answer: its list of processes has it.
            mine.execute("SELECT SLEEP(25), @@port > 0 FROM (SELECT 1) AS s")
            ends.append(mine.fetchall())
        except Exception as error:  # noqa: BLE001
            ends.append(failure(error))

    thread = threading.Thread(target=sleeps)
    thread.start()
    cursor = db.cursor()

    def runs():
        cursor.execute("SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP(25)%'")
        return cursor.fetchall()[0][0] > 0

    say("seen", until(runs))
    cursor.execute("KILL QUERY %d" % identity)
    thread.join(15)
    say("query killed", ends)
    attempt("lives", lambda: (victim.cursor().execute("SELECT 1"), True)[1])
    attempt("kill", lambda: kill(db, identity))

    def gone():
        try:
            again = connect_nothing(victim)
            return again
        except Exception:  # noqa: BLE001
            return True

    def connect_nothing(of):
        look = of.cursor()
        look.execute("SELECT 1")
        look.fetchall()
        return False

    say("gone", until(gone))


def big(db, style="%s", cursor_of=lambda db: db.cursor()):
    """A value of more than one packet, there and back."""
    cursor = cursor_of(db)
    cursor.execute("CREATE TABLE big (id INT PRIMARY KEY, b LONGBLOB)")
    value = bytes(range(256)) * (17 << 12)
    attempt("insert", lambda: (cursor.execute(f"INSERT INTO big VALUES (1, {style})", (value,)), cursor.rowcount)[1])
    db.commit()
    cursor.execute("SELECT b, LENGTH(b) FROM big")
    row = cursor.fetchall()[0]
    say("back", bytes(row[0]) == value, row[1])
    cursor.execute("DROP TABLE big")


def infile(lines):
    """A file to load: its path."""
    file = tempfile.NamedTemporaryFile("w", prefix="compat", delete=False)
    with file:
        file.writelines(lines)
    return file.name


SEVERAL = (
    "SELECT 1; SELECT 2, 3",
    "INSERT INTO tx VALUES (50, 0); SELECT * FROM tx WHERE id = 50; UPDATE tx SET v = 9; DELETE FROM tx WHERE id = 50",
    "SELECT 1; SELECT * FROM nothing; SELECT 3",
    "SELECT 1;",
    "SET @a = 1; SELECT @a; BEGIN; INSERT INTO tx VALUES (60, 0); ROLLBACK; SELECT COUNT(*) FROM tx",
)
PROCEDURE = "CREATE PROCEDURE results (IN n INT, INOUT m INT, OUT o VARCHAR(10)) BEGIN SELECT n; SET m = m + n; SET o = 'out'; SELECT id FROM tx ORDER BY id; END"


def all_sets(cursor):
    """Shows a cursor's result, and all that follow it."""
    shown(cursor)
    while cursor.nextset():
        shown(cursor)


def several_statements(db, errors):
    """Texts of several statements on a connection that allows them."""
    cursor = db.cursor()
    for sql in SEVERAL:
        say(sql)
        try:
            cursor.execute(sql)
            all_sets(cursor)
        except errors as error:
            say("fails", failure(error))
            cursor = db.cursor()


def procedures(cursor):
    """A procedure with parameters in all directions, and several results."""
    cursor.execute(PROCEDURE)
    say("call", cursor.callproc("results", (2, 3, None)))
    all_sets(cursor)
    cursor.execute("SELECT @_results_0, @_results_1, @_results_2")
    say("out", cursor.fetchall())


def files(connect, details):
    """LOAD DATA LOCAL. `connect` makes a connection on which it is allowed, or is not; `details` tells what it said."""
    path = infile(f"{n}\t{n}\n" for n in range(10000, 40000))
    db = connect(True)
    cursor = db.cursor()
    attempt("load", lambda: (cursor.execute(f"LOAD DATA LOCAL INFILE '{path}' INTO TABLE tx"), cursor.rowcount, details(db, cursor)))
    attempt("missing", lambda: cursor.execute("LOAD DATA LOCAL INFILE '/no/such/file' INTO TABLE tx"))
    other = connect(True).cursor()
    attempt("no table", lambda: other.execute(f"LOAD DATA LOCAL INFILE '{path}' INTO TABLE nothing"))
    attempt("still", lambda: (other.execute("SELECT 1"), other.fetchall()))
    attempt("not allowed", lambda: connect(False).cursor().execute(f"LOAD DATA LOCAL INFILE '{path}' INTO TABLE tx"))
    os.unlink(path)
