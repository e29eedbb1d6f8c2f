#!/usr/bin/env python3
"""Measures Mediary beside what else could serve the same media.

    compare.py run          Mediary, nginx with auth and cache, nginx with plain files, Synapse
    compare.py passthrough  the proxies alone, before a homeserver faster than any real one
    compare.py memory       Mediary's memory under many large uploads and downloads at once
    compare.py firstbyte    how soon a body that comes slowly reaches its reader; Synapse beside it
    compare.py crowd        many followers of one such body: requests to the source, memory, CPU
    compare.py bodies       many uploads, each read while it comes in: memory
    compare.py held         p99 of others, memory and CPU while thousands hold connections and do little
    compare.py dead         p99 of others while a thousand servers are asked that do not answer
    compare.py syscalls     the system calls behind a hot thumbnail
    compare.py thumbnails-cold    thumbnails that nobody has asked for yet, beside Synapse
    compare.py thumbnails-busy    p99 of cached downloads while all workers make thumbnails without pause
    compare.py thumbnails-memory  the most memory that a worker has for one thumbnail

Start it by compare.sh, which provides nginx, wrk and Synapse. README.md says what the
figures mean and why the processes are placed as they are. Everything stays on loopback
and below target/bench/.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import http.client
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

from arriving import bodies, crowd, firstbyte
from cold import thumbnails_busy, thumbnails_cold, thumbnails_memory
from dead import dead
from harness import (
    BENCH_DIR,
    CRATE,
    MIB,
    VERSIONS,
    Answer,
    BenchError,
    Cpus,
    Fixtures,
    Homeserver,
    Place,
    Wrk,
    children_seconds,
    cpu_seconds,
    foreign_load,
    get,
    machine,
    memory_mib,
    pin,
    publish,
    resident_mib,
    say,
    start_mediary,
    start_nginx,
    table,
    upload,
)
from held import held
from syscalls import syscalls

CONNECTIONS = (1, 16, 64)

# --- the servers ------------------------------------------------------------------------


@dataclass
class Server:
    """A running server, and the path under which it has each object."""

    name: str
    label: str
    url: str
    pid: int
    paths: dict[str, str]
    token: str  # sent to all, also where nobody asks for it
    cache_headers: bool = False

    def probe(self, thing: str) -> Answer:
        """Asks twice, so that token and object are cached, and checks the second answer."""
        for _ in range(2):
            answer = get(self.url + self.paths[thing], self.token)
        if answer.status != 200 or not answer.body:
            raise BenchError(f"{self.name} answers {answer.status} for {thing}")
        if self.cache_headers and thing != "versions":
            for header in ("X-Cache-Status", "X-Auth-Cache-Status"):
                if answer.headers[header] != "HIT":
                    raise BenchError(f"{self.name}: {header} is {answer.headers[header]} for {thing}")
        return answer

    def must_refuse_strangers(self) -> None:
        for thing, path in self.paths.items():
            for token in (None, "wrong"):
                if thing != "versions" and get(self.url + path, token).status != 401:
                    raise BenchError(f"{self.name} serves {thing} to strangers")


def serve_media(place: Place, options: argparse.Namespace, synapse: Homeserver) -> list[Server]:
    """The servers of `run`, Mediary first, each holding the fixtures."""
    fixtures, token, servers = Fixtures.make(), synapse.token, []
    of_synapse = fixtures.publish(synapse.url, token)
    if "mediary" in options.only:
        url, pid = start_mediary(place, options.binary, synapse.url)
        paths = fixtures.publish(url, token)
        servers.append(Server("mediary", "Mediary", url, pid, paths, token))
    if "nginx-auth" in options.only:
        url, pid = start_nginx(place, "nginx-auth", "auth.conf.in", synapse.url, place.cpus.server)
        for path in of_synapse.values():
            get(url + path, token)
        label = "nginx auth+cache"
        servers.append(Server("nginx-auth", label, url, pid, of_synapse, token, cache_headers=True))
    if "nginx-static" in options.only:
        url, pid = start_nginx(place, "nginx-static", "static.conf.in", synapse.url, place.cpus.server)
        things = [thing for thing in of_synapse if thing != "versions"]
        for thing in things:
            body = get(synapse.url + of_synapse[thing], token).body
            store(place.folder / "nginx-static" / "files" / thing, body)
        paths = {thing: f"/{thing}" for thing in things}
        servers.append(Server("nginx-static", "nginx static", url, pid, paths, token))
    if "synapse" in options.only:
        servers.append(Server("synapse", "Synapse", synapse.url, synapse.pid, of_synapse, token))
    for server in servers:
        if server.name != "nginx-static":
            server.must_refuse_strangers()
    check_bodies(servers, fixtures)
    return servers


def serve_passthrough(place: Place, options: argparse.Namespace, synapse: Homeserver) -> list[Server]:
    """The servers of `passthrough`: the proxies, and what stands behind them."""
    paths = {"versions": VERSIONS, "answer-200k": "/_bench/answer-200k"}
    origin, origin_pid = start_nginx(place, "origin", "static.conf.in", synapse.url, place.cpus.load)
    files = place.folder / "origin" / "files"
    store(files / VERSIONS[1:], get(synapse.url + VERSIONS).body)
    store(files / paths["answer-200k"][1:], random.Random(1).randbytes(200_000))
    token, servers = synapse.token, []
    if "mediary" in options.only:
        url, pid = start_mediary(place, options.binary, origin)
        servers.append(Server("mediary", "Mediary", url, pid, paths, token))
    if "nginx-auth" in options.only:
        url, pid = start_nginx(place, "nginx-proxy", "auth.conf.in", origin, place.cpus.server)
        servers.append(Server("nginx-proxy", "nginx proxy_pass", url, pid, paths, token))
    servers.append(Server("origin", "nginx direct", origin, origin_pid, paths, token))
    return servers


def store(path: Path, body: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)


def check_bodies(servers: Sequence[Server], fixtures: Fixtures) -> None:
    """Downloads are equal to the byte; thumbnails, by different encoders, nearly in size."""
    for server in servers:
        for thing, original in (("picture", fixtures.picture), ("file", fixtures.file)):
            if server.probe(thing).body != original:
                raise BenchError(f"{server.name} serves other bytes for {thing}")
    sizes = {server.name: len(server.probe("thumbnail").body) for server in servers}
    say("thumbnail bytes: " + ", ".join(f"{name} {size}" for name, size in sizes.items()))
    if max(sizes.values()) > 1.25 * min(sizes.values()):
        say("warning: thumbnails differ in size by more than a quarter")


# --- one measurement --------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """One server, one object, one number of connections, once."""

    round: int
    thing: str
    connections: int
    server: str
    body_bytes: int = 0
    requests_per_s: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    cpu_ms: float = 0.0
    both_cpu_ms: float = 0.0  # server and wrk: the kernel's work for loopback falls to either
    busy: float = 0.0  # CPU time over wall time: 1.0 is one CPU full
    wrk_busy: float = 0.0
    rss_mib: float = 0.0
    pss_mib: float = 0.0
    error: str | None = None


class Meter:
    """Runs wrk against one server at a time and reads what it cost."""

    def __init__(self, place: Place, seconds: Callable[[Server, str], int]) -> None:
        self.cpus, self.seconds, self.wrk = place.cpus, seconds, Wrk(place)

    def measure(self, round_: int, thing: str, connections: int, server: Server) -> Cell:
        cell = Cell(round_, thing, connections, server.name)
        behind = server.name in ("synapse", "origin")  # shares the load's CPUs otherwise
        try:
            if behind:
                pin(server.pid, self.cpus.server)
            return self.load(cell, server)
        except (BenchError, OSError, http.client.HTTPException) as error:
            return dataclasses.replace(cell, error=str(error))
        finally:
            if behind:
                pin(server.pid, self.cpus.load)

    def load(self, cell: Cell, server: Server) -> Cell:
        answer = server.probe(cell.thing)
        before, wrk_before = cpu_seconds(server.pid), children_seconds()
        run = self.wrk.run(
            server.url + server.paths[cell.thing], server.token, cell.connections, self.seconds(server, cell.thing)
        )
        cpu, wrk_cpu = cpu_seconds(server.pid) - before, children_seconds() - wrk_before
        memory = memory_mib(server.pid)
        seconds = run["us"] / 1e6
        # Whole answers' worth of bytes: what was under way when time was up cost CPU, too.
        answers = run["bytes"] / answer.wire_bytes
        return dataclasses.replace(
            cell,
            body_bytes=len(answer.body),
            requests_per_s=answers / seconds,
            p50_ms=run["p50_us"] / 1e3,
            p99_ms=run["p99_us"] / 1e3,
            cpu_ms=cpu * 1e3 / answers if answers else 0.0,
            both_cpu_ms=(cpu + wrk_cpu) * 1e3 / answers if answers else 0.0,
            busy=cpu / seconds,
            wrk_busy=wrk_cpu / seconds,
            rss_mib=memory["Rss"],
            pss_mib=memory["Pss"],
            error=complaint(run, answers, cell.connections),
        )


def complaint(run: dict[str, Any], answers: float, connections: int) -> str | None:
    """Why a run does not count: an error, a non-2xx, or answers of another size."""
    wrong = {name: count for name, count in run["errors"].items() if count}
    if wrong:
        return f"wrk counted {wrong}"
    if not run["requests"]:
        return "not one request was completed"
    # Bytes must be those of the completed answers plus one unfinished per connection.
    if not 0.99 * run["requests"] <= answers <= 1.01 * run["requests"] + connections:
        return f"{run['requests']} answers of {answers:.1f} answers' size"
    return None


def interleave(meter: Meter, servers: Sequence[Server], things: Sequence[str], rounds: int) -> list[Cell]:
    """All servers in turn within each object and concurrency, another one first each round."""
    groups = [(r, t, c) for r in range(rounds) for t in things for c in CONNECTIONS]
    cells: list[Cell] = []
    started = time.monotonic()
    for done, (round_, thing, connections) in enumerate(groups):
        turn = round_ % len(servers)
        order = [s for s in [*servers[turn:], *servers[:turn]] if thing in s.paths]
        group = [meter.measure(round_, thing, connections, server) for server in order]
        cells += group
        elapsed = time.monotonic() - started
        left = elapsed / (done + 1) * (len(groups) - done - 1)
        figures = "  ".join(f"{c.server} {'FAILED' if c.error else f'{c.cpu_ms:.4f}'}" for c in group)
        say(f"round {round_ + 1}/{rounds}  {thing} x{connections}  CPU ms: {figures}  ({left:.0f} s left)")
    return cells


# --- the report -------------------------------------------------------------------------


COLUMNS = (
    ("CPU ms/request", "cpu_ms", "{:.4g}"),
    ("with wrk's", "both_cpu_ms", "{:.4g}"),
    ("requests/s", "requests_per_s", "{:,.0f}"),
    ("p50 ms", "p50_ms", "{:.3g}"),
    ("p99 ms", "p99_ms", "{:.3g}"),
    ("server busy", "busy", "{:.0%}"),
    ("wrk busy", "wrk_busy", "{:.0%}"),
)


class Report:
    """Medians over the rounds, and medians of the ratios within each round."""

    def __init__(self, cells: Sequence[Cell], servers: Sequence[Server]) -> None:
        self.servers = servers
        self.good = {(c.round, c.thing, c.connections, c.server): c for c in cells if not c.error}
        self.failed = [c for c in cells if c.error]
        self.rows = list(dict.fromkeys((c.thing, c.connections) for c in cells))
        self.rounds = sorted({c.round for c in cells})

    def of(self, row: tuple[str, int], server: Server) -> list[Cell]:
        keys = [(round_, *row, server.name) for round_ in self.rounds]
        return [self.good[key] for key in keys if key in self.good]

    def markdown(self) -> str:
        parts = [
            self.figures(),
            self.ratios("CPU per request, median of the rounds' ratios (lowest–highest)", "cpu_ms"),
            self.ratios("The same with the CPU of wrk", "both_cpu_ms"),
            self.ratios("Requests/s", "requests_per_s"),
            self.memory(),
        ]
        if self.failed:
            lines = [f"- round {c.round + 1}, {c.thing} ×{c.connections}, {c.server}: {c.error}" for c in self.failed]
            parts.append("**Failed:**\n\n" + "\n".join(lines))
        return "\n\n".join(parts) + "\n"

    def figures(self) -> str:
        head = ["object", "conn.", "server", *(title for title, _, _ in COLUMNS)]
        lines = []
        for row in self.rows:
            for server in self.servers:
                if row[0] in server.paths:
                    lines.append([*self.name_of(row, server), server.label, *self.medians(row, server)])
        return table(head, lines)

    def name_of(self, row: tuple[str, int], server: Server) -> list[str]:
        size = max((cell.body_bytes for cell in self.of(row, server)), default=0)
        return [f"{row[0]}, {size:,} B", str(row[1])]

    def medians(self, row: tuple[str, int], server: Server) -> list[str]:
        cells = self.of(row, server)
        if not cells:
            return ["failed"] * len(COLUMNS)
        return [form.format(median(getattr(c, field) for c in cells)) for _, field, form in COLUMNS]

    def ratios(self, title: str, figure: str) -> str:
        first, *others = self.servers
        head = ["object", "conn.", *(f"{first.label} / {other.label}" for other in others)]
        rows = [row for row in self.rows if row[0] in first.paths]
        lines = [[row[0], str(row[1]), *(self.ratio(row, figure, first, o) for o in others)] for row in rows]
        return f"{title}:\n\n{table(head, lines)}"

    def ratio(self, row: tuple[str, int], figure: str, one: Server, other: Server) -> str:
        pairs = []
        for round_ in self.rounds:
            a, b = (self.good.get((round_, *row, server.name)) for server in (one, other))
            if a and b:
                pairs.append(getattr(a, figure) / getattr(b, figure))
        if not pairs:
            return "–"
        return f"**{median(pairs):.2f}** ({min(pairs):.2f}–{max(pairs):.2f})"

    def memory(self) -> str:
        lines = []
        for server in self.servers:
            cells = [cell for key, cell in self.good.items() if key[3] == server.name]
            if cells:
                last, rss, pss = cells[-1], [c.rss_mib for c in cells], [c.pss_mib for c in cells]
                figures = (last.rss_mib, max(rss), last.pss_mib, max(pss))
                lines.append([server.label, *(f"{figure:.1f}" for figure in figures)])
        return table(["server", "RSS MiB at the end", "highest", "Pss MiB at the end", "highest"], lines)


# --- constant memory --------------------------------------------------------------------


class Sampler(threading.Thread):
    """Watches a process's memory ten times a second."""

    def __init__(self, root: int) -> None:
        super().__init__(daemon=True)
        self.root, self.done = root, threading.Event()
        self.start_mib = resident_mib(root)
        self.top_mib = dict(self.start_mib)

    def run(self) -> None:
        while not self.done.wait(0.1):
            for name, value in resident_mib(self.root).items():
                self.top_mib[name] = max(self.top_mib[name], value)

    def growth_mib(self) -> dict[str, float]:
        return {name: self.top_mib[name] - self.start_mib[name] for name in self.top_mib}


class Transfers:
    """Many large bodies, each different, none held in memory."""

    def __init__(self, url: str, token: str, count: int, size: int) -> None:
        self.url, self.token, self.count, self.size = url, token, count, size
        self.block = random.Random(2).randbytes(MIB)
        self.paths, self.sums = [""] * count, [0] * count

    def body(self, index: int) -> Iterator[bytes]:
        left, block = self.size, index.to_bytes(16, "big") + self.block[16:]
        while left:
            piece = block[:left]
            self.sums[index] = zlib.crc32(piece, self.sums[index])
            left -= len(piece)
            yield piece
            block = self.block

    def upload(self, index: int) -> None:
        kind = "application/octet-stream"
        self.paths[index] = upload(self.url, self.token, kind, self.body(index), self.size)

    def download(self, index: int) -> None:
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=600)
        with contextlib.closing(connection):
            path = f"/_matrix/client/v1/media/download/{self.paths[index]}"
            connection.request("GET", path, headers={"Authorization": f"Bearer {self.token}"})
            response = connection.getresponse()
            buffer, size, checksum = bytearray(MIB // 4), 0, 0
            while count := response.readinto(buffer):
                size += count
                checksum = zlib.crc32(memoryview(buffer)[:count], checksum)
        if (response.status, size, checksum) != (200, self.size, self.sums[index]):
            raise BenchError(f"download {index}: status {response.status}, {size} bytes, or other content")

    def all_at_once(self, transfer: Callable[[int], None]) -> list[str]:
        """Runs all transfers, started together; returns what went wrong."""
        errors: list[str] = []
        start = threading.Barrier(self.count)

        def work(index: int) -> None:
            try:
                start.wait()
                transfer(index)
            except (BenchError, OSError, http.client.HTTPException) as error:
                errors.append(f"{type(error).__name__}: {error}")

        threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(self.count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return errors


def memory(place: Place, options: argparse.Namespace) -> bool:
    """Prints by how much Mediary grew; True if it stayed below the limit."""
    synapse = Homeserver.start(place, options.synapse)
    size = options.megabytes * MIB
    total = options.transfers * size
    if shutil.disk_usage(place.folder).free < 2 * total:
        raise BenchError(f"needs {2 * total // MIB} MiB of free disk")
    more = f'[uploads]\nmax_size = "{options.megabytes + 1} MiB"\n'
    url, pid = start_mediary(place, options.binary, synapse.url, more)
    warm = Transfers(url, synapse.token, 1, MIB)
    check_transfers(warm.all_at_once(warm.upload) or warm.all_at_once(warm.download))

    transfers = Transfers(url, synapse.token, options.transfers, size)
    lines, worst = [], 0.0
    for name, transfer in (("uploads", transfers.upload), ("downloads", transfers.download)):
        say(f"{options.transfers} {name} of {options.megabytes} MiB at once")
        sampler = Sampler(pid)
        sampler.start()
        started = time.monotonic()
        errors = transfers.all_at_once(transfer)
        seconds = time.monotonic() - started
        sampler.done.set()
        sampler.join()
        check_transfers(errors)
        growth = sampler.growth_mib()
        worst = max(worst, growth["VmRSS"])
        rss = (sampler.start_mib["VmRSS"], sampler.top_mib["VmRSS"], growth["VmRSS"])
        lines.append([name, *(f"{x:.1f}" for x in (*rss, growth["RssAnon"])), f"{total / MIB / seconds:,.0f}"])
    name = f"{options.transfers} × {options.megabytes} MiB"
    head = [name, "RSS MiB before", "highest", "growth", "anonymous growth", "MiB/s"]
    publish("memory", table(head, lines) + "\n", {"rows": [dict(zip(head, line, strict=True)) for line in lines]})
    return bool(worst <= options.limit)


def check_transfers(errors: Sequence[str]) -> None:
    if errors:
        raise BenchError(f"{len(errors)} transfers failed, the first: {errors[0]}")


# --- the command ------------------------------------------------------------------------


def compare(place: Place, options: argparse.Namespace) -> bool:
    """Modes `run` and `passthrough`; True if no cell failed."""
    say("starting Synapse and filling the servers")
    synapse = Homeserver.start(place, options.synapse)

    def seconds(server: Server, thing: str) -> int:
        if server.name == "synapse":
            return 4 if thing == "file" else 1  # 64 large answers at once take it over a second
        return 1 if options.quick else options.seconds

    serve = serve_media if options.mode == "run" else serve_passthrough
    servers = serve(place, options, synapse)
    things = list(dict.fromkeys(thing for server in servers for thing in server.paths))
    cells = interleave(Meter(place, seconds), servers, things, options.rounds)
    report = Report(cells, servers)
    about = machine(place.cpus)
    text = f"{about}; medians of {len(report.rounds)} rounds.\n\n{report.markdown()}"
    publish(options.mode, text, {"machine": about, "cells": [dataclasses.asdict(c) for c in cells]})
    return not report.failed


MODES: dict[str, Callable[[Place, argparse.Namespace], bool]] = {
    "run": compare,
    "passthrough": compare,
    "memory": memory,
    "firstbyte": firstbyte,
    "crowd": crowd,
    "bodies": bodies,
    "held": held,
    "dead": dead,
    "syscalls": syscalls,
    "thumbnails-cold": thumbnails_cold,
    "thumbnails-busy": thumbnails_busy,
    "thumbnails-memory": thumbnails_memory,
}


def parse_options() -> argparse.Namespace:
    names = ["mediary", "nginx-auth", "nginx-static", "synapse"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", nargs="?", default="run", choices=list(MODES))
    parser.add_argument("--quick", action="store_true", help="two rounds, of one second in `run`: about two minutes")
    parser.add_argument("--rounds", type=int, help="how often all is measured; 5, and 3 for `bodies`, `held` and `dead`")
    parser.add_argument("--seconds", type=int, default=2, help="per cell; Synapse gets 1, and 4 for the file")
    parser.add_argument("--threads", type=int, default=1, help="serving threads, and CPUs set apart for them")
    parser.add_argument("--only", default=",".join(names), help="servers, with commas between")
    parser.add_argument("--binary", type=Path, default=CRATE / "target" / "release" / "mediary")
    parser.add_argument(
        "--synapse", type=Path, default=CRATE / "tests" / "synapse.py", help="script that starts Synapse"
    )
    parser.add_argument("--keep", action="store_true", help="keep the folder with data and logs")
    group = parser.add_argument_group("memory")
    group.add_argument("--transfers", type=int, default=64)
    group.add_argument("--megabytes", type=int, default=100, help="size of each, in MiB")
    group.add_argument("--limit", type=float, default=64, help="growth in MiB that is too much")
    group = parser.add_argument_group("firstbyte, crowd and bodies")
    group.add_argument("--size", type=float, metavar="MB", help="of each body; 50, and 100 for `bodies`")
    group.add_argument(
        "--rate", type=float, metavar="MB/S", help="of each body; 5, and 2 for `bodies`, where 0 is no limit"
    )
    group.add_argument("--followers", type=int, default=100, help="of `crowd`")
    group.add_argument("--key", action="store_true", help="`crowd` from another server, asked with a signing key")
    group.add_argument("--pairs", type=int, default=100, help="uploads of `bodies`, and as many readers")
    group = parser.add_argument_group("held")
    group.add_argument("--held", type=int, default=2000, help="connections of each kind")
    group.add_argument("--way", default="", metavar="TEXT", help="only the ways of holding one with TEXT in their name")
    group = parser.add_argument_group("dead")
    group.add_argument("--dead", type=int, default=1000, help="servers that do not answer")
    group = parser.add_argument_group("syscalls")
    group.add_argument("--requests", type=int, default=2000)
    group.add_argument("--connections", type=int, default=16)
    group = parser.add_argument_group("thumbnails-cold and thumbnails-busy")
    group.add_argument("--pictures", type=int, default=8, help="of each size in each round of `thumbnails-cold`")
    group.add_argument("--askers", type=int, default=8, help="clients of `thumbnails-busy` that ask for thumbnails")
    group.add_argument("--media", type=int, default=32, help="pictures that they ask for, more than there are askers")
    options = parser.parse_args()
    options.rounds = 2 if options.quick else options.rounds or (3 if options.mode in ("bodies", "held", "dead") else 5)
    options.only = options.only.split(",")
    if unknown := set(options.only) - set(names):
        parser.error(f"unknown server: {', '.join(unknown)}")
    if "mediary" in options.only and not options.binary.exists():
        parser.error("target/release/mediary is not built (or leave Mediary out by --only)")
    return options


def main() -> int:
    options = parse_options()
    BENCH_DIR.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="work-", dir=BENCH_DIR))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwind, so that all is stopped
    try:
        with contextlib.ExitStack() as stack:
            if not options.keep:
                stack.callback(shutil.rmtree, folder, ignore_errors=True)
            place = Place(folder, Cpus.split(options.threads), stack)
            os.sched_setaffinity(0, place.cpus.load)
            if (load := foreign_load()) > 0.1:
                say(f"warning: {load:.0%} of the CPU time goes to other work; figures will be rough")
            return 0 if MODES[options.mode](place, options) else 1
    except (BenchError, subprocess.CalledProcessError) as error:
        say(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
