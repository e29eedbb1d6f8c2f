"""Clients that hold connections and do little with them: what they take, and what others feel of it.

A mode of compare.py. For each way of holding one, so many connections are opened and kept for a while; meanwhile
wrk asks for a small file over a few others. The same is measured before, while as many sockets that lead nowhere are
dripped into: wrk and whoever drips share a CPU, and what that costs is none of Mediary's.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from statistics import median
from urllib.parse import urlsplit

from harness import (
    BenchError,
    Figure,
    Goal,
    Place,
    Wrk,
    cpu_seconds,
    figures_table,
    machine,
    memory_mib,
    publish,
    say,
    start_mediary,
    start_source,
    upload,
)

TOKEN = "user-holder"
TICK = 0.01  # seconds between two turns of the one who drips; each turn is a hundredth of the connections
SMALL = 6_000
LARGE = 20_000_000
BESIDE = 4  # connections of those who want something

Drip = Callable[[socket.socket], None]


def asks(target: str) -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()


def send_a_byte(sock: socket.socket) -> None:
    sock.send(b"x")


def take_a_little(sock: socket.socket) -> None:
    with contextlib.suppress(BlockingIOError):
        sock.recv(64)


def nothing(_: socket.socket) -> None:
    pass


def ways(large: str) -> dict[str, tuple[bytes, bool, Drip]]:
    """How connections are held: what is sent first, whether an answer is read then, and what is done again and again."""
    begun = f"POST /_matrix/media/v3/upload HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {TOKEN}\r\n"
    return {
        "new, silent": (b"", False, nothing),
        "between requests": (asks("/_matrix/client/versions"), True, nothing),
        "dripping a head": (b"GET /", False, send_a_byte),
        "dripping an upload": (f"{begun}Content-Length: 1000000\r\n\r\n".encode(), False, send_a_byte),
        "dripping a body passed through": (
            b"PUT /_bench/wait HTTP/1.1\r\nHost: bench\r\nContent-Length: 1000000\r\n\r\n",
            False,
            send_a_byte,
        ),
        "reading 64 bytes a second": (asks(large), False, take_a_little),
        "long poll": (asks("/_bench/wait"), False, nothing),
    }


class Holder:
    """Connections that are held until the end of a `with`."""

    def __init__(self, url: str, count: int, drip: Drip) -> None:
        address = urlsplit(url)
        self.address = (address.hostname or "", address.port or 0)
        self.count, self.drip = count, drip
        self.sockets: list[socket.socket] = []
        self.over = threading.Event()
        self.lost = 0

    def open(self, first: bytes, reads: bool) -> None:
        for _ in range(self.count):
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.settimeout(30)
            sock.connect(self.address)
            if first:
                sock.sendall(first)
            if reads and not sock.recv(4096):
                raise BenchError("a held connection was closed at once")
            sock.setblocking(False)
            self.sockets.append(sock)

    def open_nowhere(self) -> None:
        """The same work for the one who drips and for the kernel, and none for anybody else."""
        others: list[socket.socket] = []
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
            for _ in range(self.count):
                sock = socket.socket()
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                sock.connect(server.getsockname())
                other, _ = server.accept()
                for end in (sock, other):
                    end.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    while self.drip is take_a_little:
                        other.send(bytes(16 * 1024))
                self.sockets.append(sock)
                others.append(other)
        self.sockets += others  # dripped are the first

    @contextlib.contextmanager
    def holding(self) -> Iterator[None]:
        thread = threading.Thread(target=self.keep_dripping)
        thread.start()
        try:
            yield
        finally:
            self.over.set()
            thread.join()
            self.lost += self.closed()
            for sock in self.sockets:
                sock.close()

    def keep_dripping(self) -> None:
        """Each connection once a second, evenly."""
        share = max(1, self.count // 100)
        turn = 0
        while not self.over.wait(TICK):
            for index in range(turn, turn + share):
                try:
                    self.drip(self.sockets[index % self.count])
                except BlockingIOError:
                    pass
                except OSError:
                    self.lost += 1
            turn += share

    def closed(self) -> int:
        """How many the other side has closed although nothing is due to be read."""
        if self.drip is take_a_little:
            return 0
        with selectors.DefaultSelector() as selector:
            for sock in self.sockets:
                selector.register(sock, selectors.EVENT_READ)
            return len(selector.select(0))


def held(place: Place, options: argparse.Namespace) -> bool:
    """True if nobody else had to wait more than twice as long as before."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count, seconds = options.held, options.seconds
    if hard < 3 * count + 500:
        raise BenchError(f"needs {3 * count + 500} open files, and may have {hard}: raise the limit, or lower --held")
    source, _ = start_source(place)
    wrk = Wrk(place)
    figures: list[Figure] = []
    for name in [name for name in ways("") if options.way in name]:
        quiet = Figure(f"{name}: p99 of others before, ms", "{:.2f}")
        crowded = Figure(f"{name}: p99 of others meanwhile, ms", "{:.2f}")
        # Of medians: what a pair of short runs says is mostly about wrk and who drips taking turns.
        ratio = Figure(f"{name}: ratio of medians", "{:.2f}", Goal("≤", 2))
        memory = Figure(f"{name}: KiB of memory for each", "{:.1f}")
        cpu = Figure(f"{name}: CPU with {count} of them, %", "{:.1f}")
        lost = Figure(f"{name}: connections lost meanwhile", "{:.0f}", Goal("=", 0))
        for round_ in range(options.rounds):
            with place.inner(f"{list(ways('')).index(name)}-{round_}") as inner:
                more = '[connections]\nheader_timeout = "5m"\nslow_timeout = "5m"\n'
                url, pid = start_mediary(inner, options.binary, source, more)
                small = publish_file(url, SMALL)
                first, reads, drip = ways(publish_file(url, LARGE))[name]
                wrk.run(url + small, TOKEN, BESIDE, 1)
                nowhere = Holder(url, count, drip)
                nowhere.open_nowhere()
                with nowhere.holding():
                    quiet.values.append(p99_ms(wrk, url + small, seconds))
                before = memory_mib(pid)["Pss"]
                holder = Holder(url, count, drip)
                holder.open(first, reads)
                with holder.holding():
                    idle = cpu_seconds(pid)
                    time.sleep(2)
                    cpu.values.append((cpu_seconds(pid) - idle) / 2 * 100)
                    memory.values.append((memory_mib(pid)["Pss"] - before) * 1024 / count)
                    crowded.values.append(p99_ms(wrk, url + small, seconds))
                lost.values.append(holder.lost)
                pair = f"{quiet.values[-1]:.2f} ms before, {crowded.values[-1]:.2f} meanwhile"
                say(f"{name}, round {round_ + 1}/{options.rounds}: p99 {pair}")
        ratio.values.append(median(crowded.values) / median(quiet.values))
        figures += [quiet, crowded, ratio, memory, cpu, lost]
    about = f"{machine(place.cpus)}; {count} connections of each kind; {options.rounds} rounds, each with a new process."
    text = f"{about}\n\n{figures_table(figures)}\n"
    publish("held", text, {"machine": about, "figures": {figure.label: figure.values for figure in figures}})
    return all(figure.met() for figure in figures)


def p99_ms(wrk: Wrk, url: str, seconds: int) -> float:
    run = wrk.run(url, TOKEN, BESIDE, seconds)
    if any(run["errors"].values()) or not run["requests"]:
        raise BenchError(f"the others were not served: {run}")
    return float(run["p99_us"]) / 1e3


def publish_file(url: str, size: int) -> str:
    media = upload(url, TOKEN, "application/octet-stream", [bytes(size)], size)
    return f"/_matrix/client/v1/media/download/{media}"
