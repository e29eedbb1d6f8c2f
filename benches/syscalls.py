"""The system calls behind a hot thumbnail: which, on what, and how many for each request.

A mode of compare.py. strace notes every call of every thread while thumbnails are asked for over connections that
stay open; descriptors are noted with what they stand for, so that sockets and files are told apart. For control,
the same is done with nobody asking, and with an upload and a download that need disk and database.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

from harness import (
    BenchError,
    Figure,
    Fixtures,
    Goal,
    Homeserver,
    Place,
    figures_table,
    get,
    machine,
    publish,
    say,
    start_mediary,
    table,
    upload,
)

# `123 read(9<socket:[47]>, ""..., 8) = 8`; or in two lines, if another thread's call came between:
# `123 read(9<socket:[47]>, <unfinished ...>` and `123 <... read resumed>""..., 8) = 8`.
CALL = re.compile(r"^(?P<thread>\d+) +(?:(?P<name>\w+)\((?P<arguments>.*)|<\.\.\. \w+ resumed>.*)")
DESCRIPTOR = re.compile(r"<([^<>]*)>")
NAMED = re.compile(r'"(/[^"]*)"')


@dataclass(frozen=True)
class Call:
    """One kind of system call: its name and what it was made on."""

    name: str
    on: str  # "socket", "event", "pipe", the path of a file, or nothing that has a descriptor
    serves: bool  # whether it was made by a thread that serves requests

    @classmethod
    def of(cls, name: str, arguments: str, serves: bool) -> Call:
        things = DESCRIPTOR.findall(arguments)
        for path in NAMED.findall(arguments) + things:
            if path.startswith("/"):
                return cls(name, path, serves)
        for kind, prefix in (("socket", "socket:"), ("event", "anon_inode:"), ("pipe", "pipe:")):
            if any(thing.startswith(prefix) for thing in things):
                return cls(name, kind, serves)
        return cls(name, "–", serves)

    @property
    def is_of_file(self) -> bool:
        return self.on.startswith("/")


class Tracer:
    """strace on one process."""

    def __init__(self, place: Place, pid: int) -> None:
        self.folder, self.cpus, self.pid = place.folder, place.cpus, pid

    @contextlib.contextmanager
    def trace(self) -> Iterator[Counter[Call]]:
        """Counts the calls made within; the counts are there after it."""
        output, counts, serving = self.folder / "strace.txt", Counter[Call](), self.serving()
        cpus = ",".join(map(str, self.cpus.load))
        # -y: what descriptors stand for; -s 0: no contents, which might look like it; -C: strace's own count.
        command = ["taskset", "-c", cpus, "strace", "-f", "-C", "-y", "-s", "0", "-o", str(output), "-p", str(self.pid)]
        strace = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            self.wait_until_attached(strace)
            yield counts
        finally:
            strace.send_signal(signal.SIGINT)
            _, complaint = strace.communicate(timeout=60)
        text = output.read_text(errors="replace")
        counts.update(calls(text, serving))
        if counts.total() != own_total(text):
            raise BenchError(f"{counts.total()} calls read, {own_total(text)} counted by strace: {complaint[-300:]!r}")

    def serving(self) -> set[str]:
        """The threads that serve requests; what waits for the disk for them is done by others."""
        tasks = Path(f"/proc/{self.pid}/task").iterdir()
        return {task.name for task in tasks if (task / "comm").read_text().strip() == "proxy"}

    def wait_until_attached(self, strace: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and strace.poll() is None:
            tasks = list(Path(f"/proc/{self.pid}/task").iterdir())
            if all("TracerPid:\t0\n" not in (task / "status").read_text() for task in tasks):
                return
            time.sleep(0.02)
        raise BenchError("strace did not attach; is ptrace allowed here?")


def calls(text: str, serving: set[str]) -> Iterator[Call]:
    """The calls that returned; those under way when strace came or went are no work of the time between."""
    under_way: dict[str, Call] = {}
    for line in text.splitlines():
        match = CALL.match(line)
        if match is None:
            continue
        thread = match["thread"]
        if match["name"]:
            under_way[thread] = Call.of(match["name"], match["arguments"], thread in serving)
        has_returned = not line.endswith(("<unfinished ...>", "<detached ...>", "= ?"))
        if has_returned and thread in under_way:
            yield under_way.pop(thread)


def own_total(text: str) -> int:
    """The total of strace's own summary: `100.00    0.01    3   4711    12 total`."""
    for line in reversed(text.splitlines()):
        if line.endswith(" total"):
            return int(line.split()[3])
    raise BenchError("strace wrote no summary")


class Clients:
    """Connections that stay open, each asking again as soon as it was answered."""

    def __init__(self, url: str, token: str, count: int) -> None:
        self.headers = {"Authorization": f"Bearer {token}"}
        self.connections = [http.client.HTTPConnection(urlsplit(url).netloc, timeout=60) for _ in range(count)]
        for connection in self.connections:
            connection.connect()

    def ask(self, path: str, body: bytes, times: int) -> None:
        """Asks so many times on each connection; every answer has to be 200 with this body."""

        def work(connection: http.client.HTTPConnection) -> None:
            socket_before = connection.sock
            for _ in range(times):
                connection.request("GET", path, headers=self.headers)
                response = connection.getresponse()
                if (response.read(), response.status) != (body, 200):
                    raise BenchError(f"status {response.status}, or another body")
            if connection.sock is not socket_before:
                raise BenchError("a connection did not stay open")

        with ThreadPoolExecutor(len(self.connections)) as pool:
            list(pool.map(work, self.connections))

    def close(self) -> None:
        for connection in self.connections:
            connection.close()


def syscalls(place: Place, options: argparse.Namespace) -> bool:
    """Counts the calls of a hot thumbnail; True if none was made on a file."""
    say("starting Synapse and filling Mediary")
    synapse = Homeserver.start(place, options.synapse)
    url, pid = start_mediary(place, options.binary, synapse.url)
    fixtures, store = Fixtures.make(), str(place.folder / "mediary")
    paths = fixtures.publish(url, synapse.token)
    thumbnail = get(url + paths["thumbnail"], synapse.token).body
    tracer, clients = Tracer(place, pid), Clients(url, synapse.token, options.connections)
    place.stack.callback(clients.close)
    times = -(-options.requests // options.connections)
    requests = times * options.connections

    rounds, idle = [], []
    for round_ in range(options.rounds):
        clients.ask(paths["thumbnail"], thumbnail, 50)
        with tracer.trace() as counts:
            started = time.monotonic()
            clients.ask(paths["thumbnail"], thumbnail, times)
            seconds = time.monotonic() - started
        rounds.append(counts)
        with tracer.trace() as counts:
            time.sleep(seconds)
        idle.append(counts)
        say(f"round {round_ + 1}/{options.rounds}  {rounds[-1].total() / requests:.2f} calls for each request")
    with tracer.trace() as control:
        upload(url, synapse.token, "text/plain", [b"control"], 7)
        get(url + paths["file"], synapse.token)
    if not of(control, f"{store}/blobs") or not of(control, f"{store}/mediary.db"):
        raise BenchError("an upload and a download were not seen on disk: the trace proves nothing")

    everything = Figure("all calls for each request", "{:.3f}")
    of_serving = Figure("calls on files by threads that serve, in all requests together", "{:.0f}", Goal("=", 0))
    # A read that is handed over would be one for each request; the round of every few seconds is not.
    of_others = Figure("calls on files by other threads, for each request", "{:.4f}", Goal("<", 0.01))
    control_files = Figure("control: on files, one upload and one large download", "{:.0f}")
    for counts in rounds:
        everything.values.append(counts.total() / requests)
        by_serving = of(Counter({call: n for call, n in counts.items() if call.serves}), "/")
        of_serving.values.append(by_serving)
        of_others.values.append((of(counts, "/") - by_serving) / requests)
    control_files.values.append(of(control, "/"))
    figures = [everything, of_serving, of_others, control_files]
    about = (
        f"{machine(place.cpus)}; {requests:,} requests for a thumbnail of {len(thumbnail):,} B over "
        f"{options.connections} connections, {options.rounds} rounds; request log off."
    )
    parts = [about, figures_table(figures), by_name(rounds, idle, requests), files_seen(rounds, place.folder)]
    raw = {
        "figures": {figure.label: figure.values for figure in figures},
        "calls": [[[call.name, call.on, call.serves, count] for call, count in counts.most_common()] for counts in rounds],
    }
    publish("syscalls", "\n\n".join(filter(None, parts)) + "\n", {"machine": about, **raw})
    return all(figure.met() for figure in figures)


def of(counts: Counter[Call], prefix: str) -> int:
    return sum(count for call, count in counts.items() if call.on.startswith(prefix))


def by_name(rounds: list[Counter[Call]], idle: list[Counter[Call]], requests: int) -> str:
    """Calls for each request by name and kind, and how many there are when nobody asks."""

    def key(call: Call) -> tuple[str, str]:
        return call.name, "file" if call.is_of_file else call.on

    keys: Counter[tuple[str, str]] = Counter()
    for counts in rounds:
        for call, count in counts.items():
            keys[key(call)] += count
    lines = []
    for name, _ in keys.most_common():
        values = [sum(n for call, n in counts.items() if key(call) == name) / requests for counts in rounds]
        still = median(sum(n for call, n in counts.items() if key(call) == name) for counts in idle)
        lines.append([*name, *(f"{f(values):.4f}" for f in (min, median, max)), f"{still:g}"])
    head = ["call", "on", "min", "median", "max", "in all, in the same time with nobody asking"]
    return "For each request:\n\n" + table(head, lines)


def files_seen(rounds: list[Counter[Call]], folder: Path) -> str:
    """Which files were touched, if any were."""
    seen = sum(rounds, Counter[Call]())
    lines = [
        [call.name, os.path.relpath(call.on, folder) if call.on.startswith(str(folder)) else call.on, str(count)]
        for call, count in seen.most_common()
        if call.is_of_file
    ]
    return "Calls on files:\n\n" + table(["call", "on", "in all rounds"], lines) if lines else ""
