"""The programs that read a server's log: what a tour wrote, printed in all their ways, copied, and followed.

Each run has log files of its own, with the same events. What is the run's own in them gets a neutral name: numbers of
files, transactions and connections, checksums, and the times that nobody can set.
"""

import hashlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time

from mysql_program import mysql_program

HOST, PORT, SOCKET, USER, PASSWORD, SCHEMA, FLAVOR = sys.argv[-7:]
ACCESS = [f"--host={HOST}", f"--port={PORT}"]
APPLICATION = [*ACCESS, f"--user={USER}", f"--password={PASSWORD}"]
# Who may read a log, and who may ask where it is.
READER = [*ACCESS, "--protocol=tcp", "--user=repl", "--password=repl"]
MONITOR = [*ACCESS, "--user=dbproxy", "--password=dbproxy"]


if FLAVOR == "mysql":
    SHELL, BINLOG, OWN_ID = mysql_program("mysql"), mysql_program("mysqlbinlog"), "--connection-server-id"
else:
    SHELL, BINLOG, OWN_ID = ["mariadb", "--no-defaults"], ["mariadb-binlog", "--no-defaults"], "--stop-never-slave-server-id"


def shell(sql, access=APPLICATION, schema=SCHEMA):
    done = subprocess.run([*SHELL, *access, "--batch", "--skip-column-names", "--default-character-set=utf8mb4", *([schema] if access is APPLICATION else [])], input=sql.encode(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{sql}: {done.stderr.decode()}")
    return done.stdout.decode("utf-8", "backslashreplace").strip()


def logs():
    """The names of the log files."""
    return [line.split("\t")[0] for line in shell("SHOW BINARY LOGS", MONITOR).splitlines()]


def position():
    """Which transactions the log holds."""
    return shell("SELECT @@gtid_binlog_pos" if FLAVOR == "mariadb" else "SELECT @@gtid_executed", MONITOR).replace("\\n", "").replace("\n", "")


def until(condition):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


def neutral(text):
    """The text without what is the run's own."""
    text = re.sub(r"\bbin\.(\d{6})", lambda found: f"LOG{int(found[1]) - TOUR}", text)
    # The transactions of a run count from its first one.
    # In the code of an event stand its time and its table's number; what it says is seen in the other ways.
    text = re.sub(r"(BINLOG |@binlog_fragment_\d+ *=) ?'([A-Za-z0-9+/=\s]+)'", lambda found: f"{found[1]} {len(found[2])} characters", text)
    text = re.sub(r"\b0-1-(\d+)", lambda found: f"0-1-N{int(found[1]) - FIRST}" if int(found[1]) >= FIRST else "0-1-N", text)
    text = re.sub(r"(gtid_seq_no=)(\d+)", lambda found: f"{found[1]}N{int(found[2]) - FIRST}", text)
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}:(\d+)(-\d+)?", lambda found: f"UUID:N{int(found[1]) - FIRST}" if not found[2] else "UUID:ALL", text)
    for pattern, instead in (
        (r"\bCRC32 0x[0-9a-f]+", "CRC32 SUM"),
        (r"\bXid = \d+", "Xid = N"),
        (r"\b([cx]id)=\d+", r"\1=N"),
        (r"(thread_id|pseudo_thread_id)=\d+", r"\1=N"),
        (r"(exec_time|error_code)=\d+", r"\1=N"),
        (r"\bcreated \d+ +[\d:]+", "created TIME"),
        (r"(original_committed_timestamp|original_commit_timestamp|immediate_commit_timestamp|original_server_version|immediate_server_version)=\d+ *(\([^)]*\))?", r"\1=N"),
        (r"# (original|immediate)_commit_timestamp.*", r"# \1_commit_timestamp"),
        (r"#\d{6} +[\d:]+ server id", "#TIME server id"),
        (r"SET TIMESTAMP=\d{10}(\.\d+)?", lambda found: found[0] if "1000000000" in found[0] else "SET TIMESTAMP=NOW"),
        (r"original_commit_timestamp=\d+", "original_commit_timestamp=N"),
        (r"/\S*/tmp[^\s'/]*", "DIRECTORY"),
        (r"SQL_LOAD-[-0-9a-z]+", "SQL_LOAD-NAME"),
        (r"(mapped to number|`? ?table id|Table_map:.*number) \d+", r"\1 N"),
        (r"table id \d+", "table id N"),
    ):
        text = re.sub(pattern, instead, text)
    return text


def remote(options):
    """The option to read from a server, unless there is one that says how."""
    return [] if any("-GTIDS" in option for option in options) else ["--read-from-remote-server"]


# How many events say that the server checked foreign keys above the storage engine.
CHECKED = [0]


def binlog(what, *options, access=READER, directory=None):
    """Runs the program to its end; what it prints."""
    done = subprocess.run([*BINLOG, *remote(options), *access, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=directory, check=False)
    print("==", what, neutral(" ".join(options)))
    # One after the other: how they would mix depends on buffers.
    for text in (done.stdout, done.stderr):
        for line in neutral(text.decode("utf-8", "backslashreplace")).splitlines():
            CHECKED[0] += " USE_SQL_FOREIGN_KEY_F" in line
            line = line.replace(" USE_SQL_FOREIGN_KEY_F", "")
            if "[Warning] using a password" in line.lower() or "insecure" in line:
                continue
            print("  ", line if len(line) <= 2000 else f"md5:{hashlib.md5(line.encode()).hexdigest()} of {len(line)}")
    print("ends", done.returncode, flush=True)
    return done.stdout


WORK = """SET TIMESTAMP = 1000000000;
CREATE TABLE words (id INT PRIMARY KEY, t VARCHAR(200), b BLOB, d DECIMAL(10,2), w DATETIME(3), e ENUM('x','y'), s SET('p','q'), bi BIT(9), js JSON, f DOUBLE, y YEAR);
INSERT INTO words VALUES (1, 'Grüße 🎉 ''x''', x'00ff27', -1.50, '2024-02-29 10:00:00.123', 'x', 'p,q', b'101010101', '{"a": [1]}', 1.5, 2024), (2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
UPDATE words SET t = 'changed', d = d + 1 WHERE id = 1;
BEGIN; INSERT INTO words (id, t) VALUES (3, 'three'); SAVEPOINT a; DELETE FROM words WHERE id = 2; ROLLBACK TO a; UPDATE words SET e = 'y'; COMMIT;
DELETE FROM words WHERE id = 3;
CREATE TABLE other (id INT AUTO_INCREMENT PRIMARY KEY, t LONGTEXT);
INSERT INTO other (t) VALUES ('a'), ('b');
CREATE VIEW seen AS SELECT id FROM words;
ALTER TABLE words ADD COLUMN late INT DEFAULT 3;
DROP TABLE words;
"""
LARGE = "SET TIMESTAMP = 1000000000; INSERT INTO other (t) VALUES (REPEAT('x', 3000000)); INSERT INTO other (t) VALUES (REPEAT('y', 17000000));"

def next_log():
    """Begins a new file; its name."""
    shell("FLUSH BINARY LOGS")
    name = logs()[-1]
    # MariaDB writes in its own time that the files before are not needed any more.
    if FLAVOR == "mariadb":
        settled = until(lambda: "\tBinlog_checkpoint\t1\t" in shell(f"SHOW BINLOG EVENTS IN '{name}'", MONITOR) and shell(f"SHOW BINLOG EVENTS IN '{name}'", MONITOR).rstrip().endswith(name))
        print("settled", settled)
    return name


TOUR = 0
next_log()
before = position()
if FLAVOR == "mariadb":
    FIRST = int(before.split("-")[2]) + 1
else:
    FIRST = int(before.rsplit("-", 1)[-1]) + 1 if "-" in before.split(":")[-1] else int(before.split(":")[-1]) + 1
tour = next_log()
TOUR = int(tour.split(".")[1])
shell(WORK)
middle = position()
second = next_log()
shell(LARGE)
after = position()
last = next_log()
print("files", [tour, second, last] == logs()[-3:])

binlog("all", tour)
printed = binlog("verbose", "--verbose", "--verbose", "--base64-output=DECODE-ROWS", tour).decode("utf-8", "backslashreplace")
binlog("short", "--short-form", tour)
binlog("two files", "--verbose", tour, second)
binlog("to the last", "--to-last-log", "--base64-output=DECODE-ROWS", tour)
binlog("one schema", f"--database={SCHEMA}_other", tour)
binlog("rewritten", f"--rewrite-db={SCHEMA}->elsewhere", tour)
binlog("checked", "--verify-binlog-checksum", "--base64-output=DECODE-ROWS", tour)
binlog("metadata", "--print-table-metadata", "--base64-output=DECODE-ROWS", tour)
binlog("with a character set", "--set-charset=latin1", "--disable-log-bin", "--force-if-open", tour)
binlog("skipped", "--offset=9", tour)
# Events begin at these positions, the same in every run.
starts = [int(found) for found in re.findall(r"^# at (\d+)$", printed, re.MULTILINE)]
print("positions", len(starts), starts == sorted(starts))
begins = starts[len(starts) // 2]
binlog("from a position", f"--start-position={begins}", "--base64-output=DECODE-ROWS", tour)
binlog("up to a position", f"--stop-position={begins}", "--base64-output=DECODE-ROWS", tour)
binlog("from a wrong position", "--start-position=99999999", tour)
binlog("by time", "--start-datetime=2001-09-09 00:00:00", "--stop-datetime=2002-01-01 00:00:00", "--base64-output=DECODE-ROWS", tour)
binlog("of another server", "--server-id=77", tour)
if FLAVOR == "mariadb":
    binlog("from a GTID position", f"--start-position=0-1-{FIRST + 3}", "--verbose", tour)
    binlog("from the end of the file", f"--start-position={middle}", "--verbose", tour)
    binlog("up to a GTID position", f"--stop-position=0-1-{FIRST + 3}", "--base64-output=DECODE-ROWS", tour)
    binlog("between GTID positions", f"--start-position=0-1-{FIRST + 1}", f"--stop-position=0-1-{FIRST + 4}", "--verbose", "--base64-output=DECODE-ROWS", tour)
    binlog("of no domain", "--ignore-domain-ids=0", tour)
    binlog("of a domain", "--do-domain-ids=0", "--base64-output=DECODE-ROWS", tour)
    binlog("strictly", "--gtid-strict-mode", f"--start-position=0-1-{FIRST + 1},7-7-7", tour)
    binlog("rows counted", "--print-row-count", "--print-row-event-positions", "--skip-annotate-row-events", "--base64-output=DECODE-ROWS", tour)
    binlog("flashback", "--flashback", tour)
    binlog("one table", "--table=other", "--verbose", tour)
else:
    uuid = before.split(":")[0]
    binlog("some transactions", f"--include-gtids={uuid}:{FIRST + 1}-{FIRST + 3}", "--verbose", tour)
    binlog("other transactions", f"--exclude-gtids={uuid}:1-{FIRST + 3}", "--verbose", tour)
    binlog("without their names", "--skip-gtids", "--base64-output=DECODE-ROWS", tour)
    binlog("dumped by names", "--read-from-remote-source=BINLOG-DUMP-GTIDS", f"--exclude-gtids={before}", "--verbose", "--base64-output=DECODE-ROWS", tour)
    binlog("dumped by positions", "--read-from-remote-source=BINLOG-DUMP-NON-GTIDS", "--base64-output=DECODE-ROWS", tour)
    binlog("all of them left out", "--read-from-remote-source=BINLOG-DUMP-GTIDS", f"--exclude-gtids={after}", "--base64-output=DECODE-ROWS", tour)
    for algorithm in ("zlib", "zstd", "uncompressed"):
        binlog("compressed", f"--compression-algorithms={algorithm}", "--base64-output=DECODE-ROWS", tour)
    binlog("with TLS", "--ssl-mode=REQUIRED", "--base64-output=DECODE-ROWS", tour)
    binlog("without TLS", "--ssl-mode=DISABLED", "--base64-output=DECODE-ROWS", tour)
    binlog("rows only", "--require-row-format", "--idempotent", "--base64-output=DECODE-ROWS", tour)
binlog("from this program", f"{OWN_ID}=91", "--short-form", tour)
binlog("by the socket", "--short-form", tour, access=["--protocol=socket", f"--socket={SOCKET}", "--user=repl", "--password=repl"])
binlog("no such log", "no_such_log.000001")
binlog("no right", tour, access=APPLICATION)
binlog("a wrong password", tour, access=[*ACCESS, "--user=repl", "--password=wrong"])

print("foreign keys checked above the engine:", CHECKED[0])

print("== raw")
with tempfile.TemporaryDirectory() as directory:
    binlog("raw", "--raw", f"--result-file={directory}/copy-", tour, second)
    binlog("raw, to the last", "--raw", "--to-last-log", f"--result-file={directory}/last-", tour)
    for name in sorted(os.listdir(directory)):
        with open(f"{directory}/{name}", "rb") as file:
            content = file.read()
        print("  ", neutral(name), len(content), content[:4], content.count(b"words"))
    # What was copied is what is printed from the server.
    for prefix in ("copy-", "last-"):
        done = subprocess.run([*BINLOG, "--short-form", f"{directory}/{prefix}{tour}"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        print("  printed again", done.returncode, hashlib.md5(neutral(done.stdout.decode("utf-8", "backslashreplace")).encode()).hexdigest())

DUMPS = "SELECT COUNT(*) FROM information_schema.processlist WHERE command LIKE 'Binlog Dump%'"


def follow(directory, *options):
    """Starts the program on the newest file, to go on for ever."""
    words = [*BINLOG, *remote(options), *READER, "--stop-never", f"{OWN_ID}=90", *options, f"--result-file={directory}/followed", logs()[-1]]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def seen(directory, marker):
    """Whether the program has written this."""
    for name in os.listdir(directory):
        with open(f"{directory}/{name}", "rb") as file:
            if marker.encode() in file.read():
                return True
    return False


def left():
    """Whether the server still sends to a program that is gone: it sees that when it has something to send."""
    shell("INSERT INTO other (t) VALUES ('x')")
    return int(shell(DUMPS)) > REPLICAS


REPLICAS = int(shell(DUMPS))
WAYS = [[], ["--raw"], ["--verbose", "--base64-output=DECODE-ROWS"]]
if FLAVOR == "mysql":
    by_names = ["--read-from-remote-source=BINLOG-DUMP-GTIDS", f"--exclude-gtids={after}"]
    WAYS += [by_names, [*by_names, "--raw"]]
for number_of, how in enumerate(WAYS):
    print("== followed", neutral(" ".join(how)))
    with tempfile.TemporaryDirectory() as directory:
        reading = follow(directory, *how)
        for number in range(3):
            marker = f"marker_{number_of}_{number}"
            shell(f"CREATE TABLE {marker} (id INT); DROP TABLE {marker}")
            print("  arrives", marker, until(lambda: seen(directory, marker)))
        shell("FLUSH BINARY LOGS")
        shell("CREATE TABLE after_rotation (id INT); DROP TABLE after_rotation")
        print("  in the next file", until(lambda: seen(directory, "after_rotation")))
        print("  reads on", reading.poll() is None, int(shell(DUMPS)) - REPLICAS)
        reading.send_signal(signal.SIGTERM if how else signal.SIGKILL)
        said, _ = reading.communicate(timeout=30)
        print("  ended", reading.returncode, neutral(said.decode()))
        print("  nobody is left", until(lambda: not left()))
