#!/usr/bin/env python3
"""Record conversations with a real server; run by hand.

usage: capture.py raw   HOST PORT CAPABILITIES(hex) EXTENDED(hex) OUT   log in as empty/'' and try every command
       capture.py relay HOST PORT LISTEN OUT                            record one client's connection

A capture is text: '> hex' is what the client sent, '< hex' what the server sent, in order.
The server needs the schema in setup.sql beside this file, and local_infile.
"""
import select, socket, struct, sys


class Log:
    def __init__(self, path):
        self.file = open(path, "w")
        self.last = None

    def add(self, arrow, data):
        if self.last != arrow:
            self.file.write(("\n" if self.last else "") + arrow + " ")
            self.last = arrow
        self.file.write(data.hex())

    def close(self):
        self.file.write("\n")
        self.file.close()


class Raw:
    def __init__(self, host, port, caps, extended, log):
        self.log, self.caps = log, caps
        self.sock = socket.create_connection((host, port))
        self.read()
        body = struct.pack("<IIB19xI", caps, 1 << 24, 45, extended) + b"empty\0\0"
        if caps & 1 << 19:
            body += (b"caching_sha2_password" if b"caching_sha2" in self.reply else b"mysql_native_password") + b"\0"
        self.send(body, 1)

    def read(self):
        """Everything up to a silence."""
        self.reply = b""
        while select.select([self.sock], [], [], 0.25)[0]:
            data = self.sock.recv(1 << 16)
            if not data:
                break
            self.reply += data
        if self.reply:
            self.log.add("<", self.reply)

    def send(self, payload, seq=0, answer=True):
        data = struct.pack("<I", len(payload) | seq << 24) + payload
        self.log.add(">", data)
        self.sock.sendall(data)
        if answer:
            self.read()

    def query(self, text):
        self.send(b"\x03" + text.encode())

    def prepare(self, text):
        self.send(b"\x16" + text.encode())
        return self.reply[5:9]

    def execute(self, statement, flags, body):
        self.send(b"\x17" + statement + bytes([flags]) + b"\1\0\0\0" + body)


def raw(host, port, caps, extended, out):
    log = Log(out)
    c = Raw(host, int(port), int(caps, 16), int(extended, 16), log)
    c.send(b"\x02shop")
    c.query("SELECT id, name FROM item ORDER BY id LIMIT 3")
    c.query("SELECT id FROM item WHERE 1 = 0")
    c.query("SELECT NULL, NULL")
    c.query("INSERT INTO item (name) VALUES ('plum')")
    c.query("UPDATE item SET price = 3 WHERE name = 'plum'")
    c.query("DELETE FROM item WHERE id > 3")
    c.query("SELEC 1")
    c.query("CALL two()")
    c.query("SELECT 1; DO 1; SELECT 2 WHERE 1 = 0; SELEC 3")
    c.query("SELECT id, (SELECT i.id FROM item i WHERE i.id >= item.id) FROM item ORDER BY id DESC")
    c.query("SET autocommit = 0")
    c.query("SELECT COUNT(*) FROM item")
    c.query("COMMIT")
    c.query("SET autocommit = 1, time_zone = '+01:00'")
    c.query("USE mysql")
    c.query("USE shop")
    c.query("START TRANSACTION READ ONLY")
    c.query("ROLLBACK")
    c.send(b"\x09")
    c.send(b"\x0e")
    c.send(b"\x0d")
    c.send(b"\x1b\0\0")
    c.send(b"\x0a")
    c.send(b"\x04item\0%")
    c.send(b"\x04missing\0%")

    s = c.prepare("SELECT id, name, price FROM item WHERE id >= ? AND (name = ? OR 1 = 1)")
    bound = b"\1\x03\0\xfd\0"
    c.execute(s, 0, b"\0" + bound + b"\1\0\0\0\4pear")
    c.execute(s, 0, b"\2\0\2\0\0\0")
    c.send(b"\x18" + s + b"\1\0pear", answer=False)
    c.execute(s, 0, b"\0\0\1\0\0\0")
    c.send(b"\x1a" + s)
    c.execute(s, 1, b"\0" + bound + b"\1\0\0\0\4pear")
    c.send(b"\x1c" + s + b"\2\0\0\0")
    c.send(b"\x1c" + s + b"\x64\0\0\0")
    c.send(b"\x1c" + s + b"\1\0\0\0")
    c.execute(s, 1, b"\0" + bound + b"\x63\0\0\0\4pear")
    c.send(b"\x1a" + s)
    c.send(b"\x19" + s, answer=False)
    c.execute(s, 0, b"\0" + bound + b"\1\0\0\0\4pear")
    s = c.prepare("DO 1")
    c.execute(s, 0, b"")
    c.prepare("SELEC 1")
    s = c.prepare("INSERT INTO item (name) VALUES (?)")
    c.execute(s, 0, b"\0\1\xfd\0\4plum")
    s = c.prepare("SELECT 1")
    c.execute(s, 0, b"")
    c.execute(s, 0, b"")
    s = c.prepare("CALL two()")
    c.execute(s, 0, b"")
    c.execute(s, 1, b"")
    s = c.prepare("CALL outp(?)")
    c.execute(s, 0, b"\0\1\x03\0\1\0\0\0")
    c.query("DELETE FROM item WHERE id > 3")
    c.query("LOAD DATA LOCAL INFILE 'fruit' INTO TABLE item FIELDS TERMINATED BY ','")
    if c.reply[4:5] == b"\xfb":
        c.send(b"901,fig,1,\n902,", 2, answer=False)
        c.send(b"date,2,\n", 3, answer=False)
        c.send(b"", 4)
    c.query("DELETE FROM item WHERE id > 3")
    c.send(b"\x1f")
    c.send(b"\x01")
    log.close()


def relay(host, port, listen, out):
    listener = socket.create_server(("127.0.0.1", int(listen)))
    client = listener.accept()[0]
    server = socket.create_connection((host, int(port)))
    log, ends = Log(out), {client: (server, ">"), server: (client, "<")}
    while True:
        for end in select.select(list(ends), [], [])[0]:
            peer, arrow = ends[end]
            data = end.recv(1 << 16)
            if not data:
                return log.close()
            log.add(arrow, data)
            peer.sendall(data)


{"raw": raw, "relay": relay}[sys.argv[1]](*sys.argv[2:])
