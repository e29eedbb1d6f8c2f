"""Servers that do not answer, asked all at once: what that costs those who read what is there.

A mode of compare.py. Each dead server is another address of this machine that takes a connection and then says
nothing, which holds a fetch for as long as one can be held.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from statistics import median
from urllib.parse import urlsplit

from harness import (
    Figure,
    Goal,
    Place,
    Wrk,
    federation,
    figures_table,
    machine,
    peak_mib,
    publish,
    reset_peak,
    say,
    start_mediary,
    start_source,
)
from held import BESIDE, SMALL, TOKEN, p99_ms, publish_file


class Askers:
    """Clients that each ask for media of a dead server of their own, as users of their own."""

    def __init__(self, url: str, count: int, port: int) -> None:
        address = urlsplit(url)
        self.address = (address.hostname or "", address.port or 0)
        self.count, self.port = count, port
        self.sockets: list[socket.socket] = []

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        for index in range(self.count):
            server = f"127.1.{index // 250}.{index % 250 + 1}:{self.port}"
            sock = socket.create_connection(self.address, timeout=120)
            target = f"/_matrix/client/v1/media/download/{server}/abc"
            token = f"Authorization: Bearer user-{index}"
            sock.sendall(f"GET {target} HTTP/1.1\r\nHost: bench\r\n{token}\r\n\r\n".encode())
            self.sockets.append(sock)
        try:
            yield
        finally:
            self.answers = Counter(map(self.answer, self.sockets))

    @staticmethod
    def answer(sock: socket.socket) -> int:
        with contextlib.closing(sock):
            response = http.client.HTTPResponse(sock)
            response.begin()
            return response.status


def dead(place: Place, options: argparse.Namespace) -> bool:
    """True if readers of what is there did not have to wait half as long again."""
    source, _ = start_source(place)
    wrk = Wrk(place)
    quiet = Figure("p99 of cached downloads before, ms", "{:.2f}")
    meanwhile = Figure("p99 of cached downloads meanwhile, ms", "{:.2f}")
    ratio = Figure("ratio of medians", "{:.2f}", Goal("≤", 1.5))
    growth = Figure("growth of the process, MiB", "{:.1f}", Goal("≤", 128))
    last = Figure("seconds until the last was answered")
    answers: list[Counter[int]] = []
    with socket.create_server(("0.0.0.0", 0), backlog=4096) as silent:
        port = silent.getsockname()[1]
        threading.Thread(target=take_and_keep, args=(silent,), daemon=True).start()
        for round_ in range(options.rounds):
            with place.inner(f"dead-{round_}") as inner:
                url, pid = start_mediary(inner, options.binary, source, federation(inner))
                small = publish_file(url, SMALL)
                wrk.run(url + small, TOKEN, BESIDE, 1)
                quiet.values.append(p99_ms(wrk, url + small, options.seconds))
                reset_peak(pid)
                before, begun = peak_mib(pid), time.monotonic()
                askers = Askers(url, options.dead, port)
                with askers.asking():
                    meanwhile.values.append(p99_ms(wrk, url + small, options.seconds))
                last.values.append(time.monotonic() - begun)
                growth.values.append(peak_mib(pid) - before)
                answers.append(askers.answers)
                pair = f"{quiet.values[-1]:.2f} ms before, {meanwhile.values[-1]:.2f} meanwhile"
                say(f"round {round_ + 1}/{options.rounds}: p99 {pair}; {dict(askers.answers)}")
    ratio.values.append(median(meanwhile.values) / median(quiet.values))
    figures = [quiet, meanwhile, ratio, growth, last]
    told = ", ".join(f"{status}: {count}" for status, count in sorted(sum(answers, Counter()).items()))
    about = (
        f"{machine(place.cpus)}; {options.dead} dead servers at once; {options.rounds} rounds, each with a new process.\n"
        f"Answers by status, all rounds: {told}."
    )
    raw = {figure.label: figure.values for figure in figures}
    publish("dead", f"{about}\n\n{figures_table(figures)}\n", {"machine": about, "figures": raw})
    return all(figure.met() for figure in figures)


def take_and_keep(server: socket.socket) -> None:
    """Takes connections and says nothing on them."""
    kept = []
    with contextlib.suppress(OSError):
        while True:
            kept.append(server.accept()[0])
