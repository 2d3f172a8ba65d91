"""What PyMySQL shows of a server. usage: pymysql_tour.py HOST PORT SOCKET USER PASSWORD SCHEMA"""

import sys
import tempfile

import pymysql
import pymysql.cursors

host, port, socket, user, password, schema = sys.argv[1:]


def connect(**options):
    return pymysql.connect(host=host, port=int(port), user=user, password=password, database=schema, **options)


def fails(what, run):
    try:
        run()
        print(what, "no error")
    except pymysql.err.MySQLError as error:
        print(what, type(error).__name__, error.args)


db = connect(autocommit=True, local_infile=True)
with db.cursor() as cursor:
    print(db.get_server_info().split("-")[0], db.get_proto_info(), db.character_set_name())
    cursor.execute("CREATE TABLE shop (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(50), price DECIMAL(8,2), at DATETIME, raw LONGBLOB) CHARACTER SET utf8mb4")
    print(cursor.execute("INSERT INTO shop (name, price) VALUES (%s, %s), (%s, %s)", ("Käse", 3.5, "🍞", None)), cursor.lastrowid)
    print(cursor.executemany("INSERT INTO shop (name) VALUES (%s)", [(f"row {n}",) for n in range(1000)]))
    print(cursor.execute("SELECT id, name, price, at FROM shop WHERE id < %s ORDER BY id", (5,)), cursor.fetchall(), cursor.description)
    cursor.execute("INSERT INTO shop (name, raw) VALUES ('large', %s)", (bytes(range(256)) * 80000,))
    cursor.execute("SELECT raw FROM shop WHERE name = 'large'")
    print(cursor.fetchone()[0] == bytes(range(256)) * 80000)
    fails("table", lambda: cursor.execute("SELECT * FROM nothing"))
    fails("syntax", lambda: cursor.execute("SELEKT"))
    fails("duplicate", lambda: cursor.execute("INSERT INTO shop (id) VALUES (1)"))
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("".join(f"loaded {n}\t{n}\n" for n in range(3000)))
        file.flush()
        print(cursor.execute(f"LOAD DATA LOCAL INFILE '{file.name}' INTO TABLE shop (name, price)"))
    cursor.execute("CREATE PROCEDURE two () BEGIN SELECT 1; SELECT id FROM shop WHERE id < 3 ORDER BY id; END")
    cursor.callproc("two")
    print(cursor.fetchall(), cursor.nextset(), cursor.fetchall(), cursor.nextset())

with connect(cursorclass=pymysql.cursors.SSDictCursor) as streaming, streaming.cursor() as cursor:
    cursor.execute("SELECT a.id FROM shop a, shop b LIMIT 100000")
    print(sum(1 for _ in cursor))
    cursor.execute("SELECT COUNT(*) AS c FROM shop")
    print(cursor.fetchall())

with connect() as transaction, transaction.cursor() as cursor:
    print(transaction.get_autocommit())
    cursor.execute("DELETE FROM shop")
    cursor.execute("SELECT COUNT(*) FROM shop")
    print(cursor.fetchall())
    transaction.rollback()
    cursor.execute("SELECT COUNT(*) FROM shop")
    print(cursor.fetchall())
    transaction.begin()
    cursor.execute("UPDATE shop SET price = 1 WHERE id = 1")
    transaction.commit()
    transaction.ping(reconnect=False)
    transaction.select_db("test")
    cursor.execute("SELECT COUNT(*) FROM where_am_i")
    print(cursor.fetchall())

with connect(client_flag=pymysql.constants.CLIENT.MULTI_STATEMENTS, init_command="SET time_zone = '+03:00'") as several, several.cursor() as cursor:
    cursor.execute("SELECT 1; SELECT FROM_UNIXTIME(0); SELECT name FROM shop WHERE id = 1")
    while True:
        print(cursor.fetchall())
        if not cursor.nextset():
            break

with pymysql.connect(unix_socket=socket, user=user, password=password, database=schema) as local, local.cursor() as cursor:
    cursor.execute("SELECT name FROM shop WHERE id = 2")
    print(cursor.fetchall())

fails("password", lambda: pymysql.connect(host=host, port=int(port), user=user, password="wrong"))
fails("schema", lambda: pymysql.connect(host=host, port=int(port), user=user, password=password, database="no_such_schema"))
