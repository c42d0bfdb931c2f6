"""openpi's messages, and websockets by hand: for serve.py and serve_bench.py."""
import base64
import socket
import struct

import msgpack
import numpy as np


def encode(x):
    if isinstance(x, np.ndarray):
        return {b"__ndarray__": True, b"data": x.tobytes(), b"dtype": x.dtype.str, b"shape": x.shape}
    if isinstance(x, np.generic):
        return {b"__npgeneric__": True, b"data": x.item(), b"dtype": x.dtype.str}
    return x


def decode(x):
    if b"__ndarray__" in x:
        return np.ndarray(buffer=x[b"data"], dtype=np.dtype(x[b"dtype"]), shape=x[b"shape"])
    return x


def pack(x):
    return msgpack.packb(x, default=encode)


def unpack(x):
    return msgpack.unpackb(x, object_hook=decode)


def upgrade(port):
    s = socket.create_connection(("127.0.0.1", port), timeout=60)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
              b"Sec-WebSocket-Key: " + base64.b64encode(bytes(16)) + b"\r\n\r\n")
    return s


def frame(message, opcode=2):
    """Masked with zeros."""
    n = len(message)
    size = bytes([128 | n]) if n < 126 else b"\xfe" + struct.pack(">H", n) if n < 65536 else b"\xff" + struct.pack(">Q", n)
    return bytes([128 | opcode]) + size + bytes(4) + message


def frames(s):
    """(opcode, payload) of what a server sends, until it closes."""
    data = b""

    def need(n):
        nonlocal data
        while len(data) < n:
            more = s.recv(1 << 16)
            if not more:
                raise EOFError
            data += more
        part, data = data[:n], data[n:]
        return part

    while not data.endswith(b"\r\n\r\n"):
        more = s.recv(1)
        if not more:
            return
        data += more
    data = b""
    try:
        while True:
            first, n = need(2)
            if n > 125:
                n = struct.unpack(">H", need(2))[0] if n == 126 else struct.unpack(">Q", need(8))[0]
            payload = need(n)
            if first & 15 != 9:  # who sends slowly is pinged meanwhile
                yield first & 15, payload
    except (EOFError, ConnectionError):
        return
