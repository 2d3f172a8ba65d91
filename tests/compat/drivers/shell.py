"""The command lines: MariaDB's client with both servers, MySQL's own with MySQL; several formats of the corpus."""

import os
import re
import subprocess
import sys
import tempfile

from mysql_program import mysql_program

HOST, PORT, SOCKET, USER, PASSWORD, SCHEMA, FLAVOR = sys.argv[-7:]


def programs():
    """The clients: a name and the words that run it."""
    yield "mariadb", ["mariadb", "--no-defaults"]
    if FLAVOR == "mysql" and (program := mysql_program("mysql")):
        yield "mysql", program


def run(words, text, what):
    print("==", what, flush=True)
    done = subprocess.run(words, input=text.encode(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    # One after the other: how they would mix depends on buffers.
    for text in (done.stdout, done.stderr):
        print(re.sub(r"\(\d+\.\d+ sec\)", "(TIME)", text.decode("utf-8", "backslashreplace")))
    print("ends", done.returncode, flush=True)


def statements():
    for line in open(os.environ["COMPAT_STATEMENTS"], encoding="utf-8").read().splitlines():
        found = re.match(r"@(mariadb|mysql) (.*)$", line)
        if line == "" or line.startswith("-- ") or found and found[1] != FLAVOR or "BEGIN " in line or line.startswith("#") or line.rstrip().startswith("DELIMITER"):
            continue
        # The shell would take a comment up to the end of the line for the rest of the statement.
        yield re.sub(r" -- .*$", "", found[2] if found else line) + ";"


FRESH = "".join(f"DROP DATABASE IF EXISTS {name}; CREATE DATABASE {name} CHARACTER SET {charset};" for name, charset in ((SCHEMA, "utf8mb4"), (SCHEMA + "_other", "latin1")))
CORPUS = "\n".join(statements()) + "\n"
for name, words in programs():
    tcp = [*words, f"--host={HOST}", f"--port={PORT}", f"--user={USER}", f"--password={PASSWORD}", "--default-character-set=utf8mb4"]
    for options in (["--table", "--verbose", "--column-type-info"], ["--xml"], ["--vertical", "--comments"], ["--batch", "--raw", "--quick"], ["--html", "--compress"]):
        run(tcp, FRESH, f"{name} fresh")
        run([*tcp, "--force", "--show-warnings", *options, SCHEMA], CORPUS, f"{name} {' '.join(options)}")
    run([*words, f"--socket={SOCKET}", f"--user={USER}", f"--password={PASSWORD}", SCHEMA], "SELECT DATABASE(), COUNT(*) FROM items", f"{name} by socket")
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.writelines(f"{n}\tname {n}\n" for n in range(5000, 9000))
        file.flush()
        run([*tcp, "--local-infile=1", "--table", SCHEMA], f"CREATE TABLE loaded (id INT, n VARCHAR(20)); LOAD DATA LOCAL INFILE '{file.name}' INTO TABLE loaded; SELECT COUNT(*), SUM(id) FROM loaded; DROP TABLE loaded", f"{name} loads")
    run([*tcp, "--safe-updates", SCHEMA], "UPDATE items SET note = 'x'", f"{name} with safe updates")
    run([*tcp, "--init-command=SET @x = 5", SCHEMA], "SELECT @x", f"{name} with an initial command")
    run([*tcp, "--password=wrong", SCHEMA], "SELECT 1", f"{name} with a wrong password")
    run([*tcp, "no_such"], "SELECT 1", f"{name} without the schema")
    run([*tcp, SCHEMA], "SELECT 1;\nSELEKT 2;\nSELECT 3;", f"{name} stops at an error")
    run([*tcp, SCHEMA], "DELIMITER //\nCREATE PROCEDURE two () BEGIN SELECT 1; SELECT 2; END//\nCALL two()//\nDROP PROCEDURE two//\n", f"{name} with a delimiter")
    run([*tcp, "--table", SCHEMA], "SELECT 1\\G\nuse compat_other\nSELECT DATABASE();\n\\u compat\nSELECT DATABASE();", f"{name} commands")
