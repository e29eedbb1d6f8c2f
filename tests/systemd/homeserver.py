"""A homeserver that knows everybody, for tests/systemd.sh; with the argument `picture`, a PNG on standard output."""

import json
import struct
import sys
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SIDE = 600


def picture() -> bytes:
    """Returns a colourful PNG."""
    rows = (b"\0" + bytes(v for x in range(SIDE) for v in (x % 256, y % 256, 9)) for y in range(SIDE))
    head = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(b"".join(rows))), (b"IEND", b""))
    framed = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


class Handler(BaseHTTPRequestHandler):
    """Answers what Mediary asks."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Nobody wants to know."""

    def do_GET(self) -> None:
        if self.path.endswith("/versions"):
            answer = {"versions": ["v1.11"]}
        elif "/account/whoami" in self.path:
            answer = {"user_id": "@anybody:example.org"}
        else:
            answer = {"errcode": "M_UNRECOGNIZED", "error": "not here"}
        body = json.dumps(answer).encode()
        self.send_response(404 if "errcode" in answer else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if sys.argv[1:] == ["picture"]:
    sys.stdout.buffer.write(picture())
else:
    ThreadingHTTPServer(("127.0.0.1", 8009), Handler).serve_forever()
