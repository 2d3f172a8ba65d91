"""A client that only logs in and sends small queries: for thousands of idle connections, of which a library would cost too much."""

import hashlib
import socket
import struct

from processes import Failure

# LONG_PASSWORD, CONNECT_WITH_DB, PROTOCOL_41, TRANSACTIONS, SECURE_CONNECTION, PLUGIN_AUTH
CAPABILITIES = 0x1 | 0x8 | 0x200 | 0x2000 | 0x8000 | 0x80000
UTF8MB4 = 45


def _xor(a, b):
    return bytes(x ^ y for x, y in zip(a, b))


def _native(password, nonce):
    once = hashlib.sha1(password).digest()
    return _xor(once, hashlib.sha1(nonce + hashlib.sha1(once).digest()).digest())


def _caching_sha2(password, nonce):
    once = hashlib.sha256(password).digest()
    return _xor(once, hashlib.sha256(hashlib.sha256(once).digest() + nonce).digest())


SCRAMBLES = {"mysql_native_password": _native, "caching_sha2_password": _caching_sha2}


class Connection:
    def __init__(self, port, user, password, database, timeout=20):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sequence = 0
        self.buffer = b""
        self._login(user, password.encode(), database)

    def close(self):
        self.socket.close()

    def _fill(self, length):
        while len(self.buffer) < length:
            more = self.socket.recv(65536)
            if not more:
                raise Failure("the connection was closed")
            self.buffer += more

    def _read(self):
        self._fill(4)
        length = int.from_bytes(self.buffer[:3], "little")
        self.sequence = self.buffer[3] + 1
        self._fill(4 + length)
        packet, self.buffer = self.buffer[4:4 + length], self.buffer[4 + length:]
        if packet[:1] == b"\xff":
            raise Failure(f"error {struct.unpack_from('<H', packet, 1)[0]}: {packet[3:].decode(errors='replace')}")
        return packet

    def _write(self, payload):
        self.socket.sendall(len(payload).to_bytes(3, "little") + bytes([self.sequence & 0xFF]) + payload)

    @staticmethod
    def _answer(plugin, password, nonce):
        if plugin not in SCRAMBLES:
            raise Failure(f"login plugin {plugin} is not supported here")
        return SCRAMBLES[plugin](password, nonce[:20])

    def _login(self, user, password, database):
        greeting = self._read()
        at = greeting.index(b"\0", 1) + 5  # protocol, version, connection id
        nonce = greeting[at:at + 8]
        at += 8 + 1 + 2 + 1 + 2 + 2 + 1 + 10
        nonce += greeting[at:at + 12]
        plugin = greeting[at + 13:].split(b"\0")[0].decode()
        if plugin not in SCRAMBLES:
            plugin = "mysql_native_password"  # the server names the account's own plugin in an auth switch
        answer = self._answer(plugin, password, nonce)
        self._write(
            struct.pack("<IIB23x", CAPABILITIES, 1 << 24, UTF8MB4) + user.encode() + b"\0" + bytes([len(answer)]) + answer
            + database.encode() + b"\0" + plugin.encode() + b"\0"
        )
        while True:
            packet = self._read()
            if packet[0] == 0x00:
                return
            if packet[0] == 0xFE:
                plugin, nonce = packet[1:].split(b"\0", 1)
                self._write(self._answer(plugin.decode(), password, nonce))
            elif packet == b"\x01\x04":
                raise Failure("the server asks for the password itself: no earlier login has filled its cache")
            elif packet != b"\x01\x03":
                raise Failure(f"unexpected packet during login: {packet[:16].hex()}")

    def query(self, text):
        """Runs a statement and drops its result."""
        self.sequence = 0
        self._write(b"\x03" + text.encode())
        if self._read()[0] == 0x00:
            return
        ends = 0
        while ends < 2:  # after the definitions, after the rows
            packet = self._read()
            ends += packet[0] == 0xFE and len(packet) < 9
