"""The dump programs: a schema with everything in it and a million rows, dumped and restored, compared by checksums."""

import hashlib
import re
import subprocess
import sys
import tempfile

from mysql_program import mysql_program

HOST, PORT, SOCKET, USER, PASSWORD, SCHEMA, FLAVOR = sys.argv[-7:]
ACCESS = [f"--host={HOST}", f"--port={PORT}", f"--user={USER}", f"--password={PASSWORD}"]


if FLAVOR == "mysql":
    SHELL, DUMP = mysql_program("mysql"), [*mysql_program("mysqldump"), "--set-gtid-purged=OFF", "--column-statistics=0"]
else:
    SHELL, DUMP = ["mariadb", "--no-defaults"], ["mariadb-dump", "--no-defaults"]


def shell(sql, schema=SCHEMA, source=None):
    done = subprocess.run([*SHELL, *ACCESS, "--batch", "--default-character-set=utf8mb4", schema], input=None if source else sql.encode(), stdin=source, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    text = done.stdout.decode("utf-8", "backslashreplace")
    print(f"ends {done.returncode}:\n{text}".rstrip(), flush=True)
    # What could not be made or restored would be missing on both sides alike.
    if done.returncode != 0:
        sys.exit(1)


def checksums(schema):
    print("== checksums", schema)
    shell("CHECKSUM TABLE big, parts, child, words", schema)
    shell("SELECT COUNT(*), SUM(id), SUM(CRC32(t)), MIN(d), MAX(d), SUM(n) FROM big; SELECT * FROM seen LIMIT 3; SELECT twice(4); CALL counted(); SHOW CREATE TABLE parts; SELECT HEX(b), t, js FROM words ORDER BY id", schema)
    shell("SELECT event_name, status, event_definition FROM information_schema.events WHERE event_schema = DATABASE(); SELECT trigger_name, action_statement FROM information_schema.triggers WHERE trigger_schema = DATABASE(); SELECT table_name, view_definition IS NOT NULL FROM information_schema.views WHERE table_schema = DATABASE(); SELECT routine_name, routine_type, routine_definition FROM information_schema.routines WHERE routine_schema = DATABASE() ORDER BY 1", schema)


print("== schema")
shell(
    f"""SET SESSION cte_max_recursion_depth = 2000000;""" if FLAVOR == "mysql" else "SET SESSION max_recursive_iterations = 2000000;"
)
shell(
    """CREATE TABLE digits (d INT); INSERT INTO digits VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9);
CREATE TABLE big (id INT PRIMARY KEY, t VARCHAR(60), n DECIMAL(12,3), d DATETIME, KEY (n));
INSERT INTO big SELECT a.d + 10 * b.d + 100 * c.d + 1000 * e.d + 10000 * f.d + 100000 * g.d, CONCAT('text ', a.d, b.d, c.d, e.d, f.d, g.d), (a.d * 7 + b.d * 3 + g.d) / 8, DATE_ADD('2000-01-01', INTERVAL (a.d + 10 * b.d + 100 * c.d) HOUR) FROM digits a, digits b, digits c, digits e, digits f, digits g;
CREATE TABLE parts (id INT NOT NULL, y INT NOT NULL, PRIMARY KEY (id, y)) PARTITION BY RANGE (y) (PARTITION p0 VALUES LESS THAN (10), PARTITION p1 VALUES LESS THAN MAXVALUE);
INSERT INTO parts VALUES (1, 1), (2, 20);
CREATE TABLE child (id INT AUTO_INCREMENT PRIMARY KEY, big INT, FOREIGN KEY (big) REFERENCES big (id) ON DELETE CASCADE);
INSERT INTO child (big) VALUES (1), (2), (3);
CREATE TABLE words (id INT PRIMARY KEY, t TEXT CHARACTER SET utf8mb4, b BLOB, e ENUM('x','y'), g INT GENERATED ALWAYS AS (id * 2) STORED, js JSON, bits BIT(9));
INSERT INTO words (id, t, b, e, js, bits) VALUES (1, 'Grüße 🎉 \\\\ ''x''', x'00ff27225c0a', 'x', '{"a": [1, "ü"]}', b'101010101'), (2, NULL, NULL, NULL, NULL, NULL), (3, '', '', 'y', '[]', 0);
CREATE VIEW seen AS SELECT b.id, b.t FROM big b WHERE b.id < 10 ORDER BY b.id;
CREATE FUNCTION twice (n INT) RETURNS INT DETERMINISTIC RETURN n * 2;
CREATE TRIGGER on_child BEFORE INSERT ON child FOR EACH ROW SET NEW.big = IFNULL(NEW.big, 0);
CREATE EVENT sometimes ON SCHEDULE EVERY 1 YEAR STARTS '2035-01-01 00:00:00' DISABLE DO DELETE FROM child WHERE id = -1;
DELIMITER //
CREATE PROCEDURE counted () BEGIN DECLARE n INT; SELECT COUNT(*) INTO n FROM child; SELECT n; END//
"""
)
checksums(SCHEMA)
OPTIONS = ["--routines", "--triggers", "--events", "--hex-blob", "--no-tablespaces", "--skip-dump-date", "--default-character-set=utf8mb4"]
for how in (["--single-transaction"], ["--lock-tables"], ["--single-transaction", "--skip-extended-insert", "--complete-insert", "--where=id < 50", "--ignore-table=%s.digits" % SCHEMA]):
    print("== dump", how)
    with tempfile.TemporaryFile() as dumped:
        done = subprocess.run([*DUMP, *ACCESS, *OPTIONS, *how, SCHEMA], stdout=dumped, stderr=subprocess.PIPE, check=False)
        dumped.seek(0)
        text = dumped.read()
        text = b"\n".join(line for line in text.split(b"\n") if not line.startswith(b"-- Host:") and b"SET NOTE_VERBOSITY" not in line)
        print("ends", done.returncode, done.stderr.decode(), len(text), hashlib.md5(text).hexdigest(), text.count(b"INSERT INTO"), flush=True)
        for line in text.split(b"\n"):
            # The rows are in the hash; a million lines are not a million checks.
            if line and not line.startswith((b"INSERT", b"(")):
                print("  ", line.decode("utf-8", "backslashreplace")[:300])
        dumped.seek(0)
        print("== restore")
        shell(f"DROP DATABASE {SCHEMA}_other; CREATE DATABASE {SCHEMA}_other CHARACTER SET utf8mb4")
        shell("", SCHEMA + "_other", dumped)
        if "--where=id < 50" not in how:
            checksums(SCHEMA + "_other")
print("== tabular and without data")
for how in (["--no-data"], ["--no-create-info", "--xml", "--where=id < 5", SCHEMA, "words"], ["--compact", "--skip-comments", "--no-create-info", SCHEMA, "child"]):
    done = subprocess.run([*DUMP, *ACCESS, *OPTIONS, *(how if SCHEMA in how else [*how, SCHEMA])], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    print("ends", done.returncode)
    print(re.sub(r"(?m)^-- Host:.*$", "", done.stdout.decode("utf-8", "backslashreplace")))
