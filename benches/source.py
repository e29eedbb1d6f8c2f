#!/usr/bin/env python3
"""A scripted homeserver whose media comes at a set pace, and which notes when each body began and ended.

It knows every token `user-N` and has every media that is asked for: the id says how large it is, how fast
it comes, and how its end is told (see `Media`). To Mediary it is the homeserver; over TLS it is another
server to a real Synapse. `GET /_bench/sent` tells what was sent when, by the machine's monotonic clock.
"""

from __future__ import annotations

import argparse
import functools
import json
import random
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SERVER_NAME = "source.example"
PIECE = 16 * 1024  # what a TLS record holds, and so what a real source sends at once
BOUNDARY = "bench-boundary"


@functools.cache
def noise() -> tuple[memoryview, int]:
    """One megabyte of noise, twice in a row, and the length of one."""
    size = 1_000_003
    return memoryview(random.Random(2).randbytes(size) * 2), size


@dataclass(frozen=True)
class Body:
    """Bytes that are the same for the same name and others for any other; none are held for it."""

    name: str
    size: int

    def pieces(self, length: int) -> Iterator[memoryview]:
        block, period = noise()
        start = zlib.crc32(self.name.encode())
        for position in range(0, self.size, length):
            at = (start + position) % period
            yield block[at : at + min(length, self.size - position)]

    def checksum(self) -> int:
        return functools.reduce(lambda so_far, piece: zlib.crc32(piece, so_far), self.pieces(1 << 19), 0)


def paced(pieces: Iterable[memoryview], rate: float) -> Iterator[memoryview]:
    """Hands out pieces at so many bytes a second, the first at once; what is late is not held up further."""
    start, done = time.monotonic(), 0
    for piece in pieces:
        if rate and (wait := start + done / rate - time.monotonic()) > 0:
            time.sleep(wait)
        yield piece
        done += len(piece)


@dataclass
class Sent:
    """When a body was asked for, and when its first and last pieces were sent; 0 if they were not."""

    media_id: str
    asked: float
    first: float = 0.0
    last: float = 0.0


@dataclass(frozen=True)
class Media:
    """What a media id asks for: `SIZE-RATE-length-SERIAL` or `SIZE-RATE-chunked-SERIAL`, in bytes and bytes/s.

    A rate of 0 is as fast as it goes.
    """

    media_id: str
    size: int
    rate: float
    chunked: bool

    @classmethod
    def parse(cls, media_id: str) -> Media:
        size, rate, framing, _ = media_id.split("-")
        return cls(media_id, int(size), float(rate), {"length": False, "chunked": True}[framing])


class Source(ThreadingHTTPServer):
    """The server, and its notes."""

    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.sent: list[Sent] = []
        self.lock = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    """Answers as a homeserver would."""

    server: Source
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 600

    def do_GET(self) -> None:  # noqa: N802
        words = self.path.partition("?")[0].split("/")[1:]
        match words:
            case ["_matrix", "client", "v3", "account", "whoami"]:
                self.whoami()
            case ["_matrix", "key", "v2", "server"]:
                self.json(200, {"server_name": SERVER_NAME})
            case ["_matrix", "client", "versions"]:
                self.json(200, {"versions": ["v1.11"]})
            case ["_matrix", "client", "v1", "media", "download", _, media_id]:
                self.media(media_id, self.plain)
            case ["_matrix", "federation", "v1", "media", "download", media_id]:
                self.media(media_id, self.multipart)
            case ["_bench", "wait"]:
                threading.Event().wait()
            case ["_bench", "sent"]:
                self.json(200, [vars(sent) for sent in self.server.sent])
            case _:
                self.json(404, {"errcode": "M_UNRECOGNIZED", "error": "Unrecognized"})

    def do_PUT(self) -> None:  # noqa: N802
        while self.rfile.read(1):
            pass

    def whoami(self) -> None:
        user = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if user.startswith("user-"):
            self.json(200, {"user_id": f"@{user}:{SERVER_NAME}", "device_id": "BENCH"})
        else:
            self.json(401, {"errcode": "M_UNKNOWN_TOKEN", "error": "Unknown token"})

    def json(self, status: int, value: object) -> None:
        text = json.dumps(value).encode()
        self.head(status, "application/json", len(text))
        self.wfile.write(text)

    def head(self, status: int, kind: str, size: int | None) -> None:
        """Sends the head at once, as its own packet."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if size is None:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(size))
        self.end_headers()

    def media(self, media_id: str, answer: Callable[[Media, Sent], None]) -> None:
        sent = Sent(media_id, time.monotonic())
        with self.server.lock:
            self.server.sent.append(sent)
        answer(Media.parse(media_id), sent)

    def plain(self, media: Media, sent: Sent) -> None:
        self.head(200, "application/octet-stream", None if media.chunked else media.size)
        if media.chunked:
            self.body(media, sent, lambda piece: b"%x\r\n%b\r\n" % (len(piece), bytes(piece)))
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.body(media, sent, bytes)

    def multipart(self, media: Media, sent: Sent) -> None:
        """The same as other homeservers are answered: a part of JSON, a part that is the body."""
        before = (
            f"--{BOUNDARY}\r\nContent-Type: application/json\r\n\r\n{{}}\r\n"
            f"--{BOUNDARY}\r\nContent-Type: application/octet-stream\r\n\r\n"
        ).encode()
        after = f"\r\n--{BOUNDARY}--\r\n".encode()
        self.head(200, f"multipart/mixed; boundary={BOUNDARY}", len(before) + media.size + len(after))
        self.wfile.write(before)
        self.body(media, sent, bytes)
        self.wfile.write(after)

    def body(self, media: Media, sent: Sent, wrap: Callable[[memoryview], bytes]) -> None:
        """Sends the body; times are those before the calls that send the first and the last piece."""
        for piece in paced(Body(media.media_id, media.size).pieces(PIECE), media.rate):
            data = wrap(piece)
            sent.last = time.monotonic()
            sent.first = sent.first or sent.last
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--tls-port", type=int, help="the same over TLS")
    parser.add_argument("--certificate", type=Path, help="its certificate and key, in one PEM file")
    options = parser.parse_args()
    source = Source(options.port)
    if options.tls_port:
        over_tls = Source(options.tls_port)
        over_tls.sent, over_tls.lock = source.sent, source.lock
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.certificate)
        over_tls.socket = context.wrap_socket(over_tls.socket, server_side=True)
        threading.Thread(target=over_tls.serve_forever, daemon=True).start()
    source.serve_forever()


if __name__ == "__main__":
    main()
