"""Bodies that are read while they arrive: how soon, by how many, in how much memory.

Three modes of compare.py. The homeserver is source.py, whose media comes at a set pace and which shares the
machine's clock with the readers here. Whatever is read is checked to the byte; a run with other bytes is no run.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import http.client
import itertools
import json
import shutil
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

from harness import (
    BenchError,
    Figure,
    Goal,
    Homeserver,
    Place,
    cpu_seconds,
    federation,
    figures_table,
    get,
    machine,
    peak_mib,
    publish,
    reset_peak,
    say,
    start_mediary,
    start_source,
)
from source import Body, Sent, paced

T = TypeVar("T")

MB = 1_000_000
PIECE = 64 * 1024
REMOTE = "remote.example"  # a server that only source.py speaks for
JOINING_SECONDS = 1.0  # in which the followers of `crowd` come


# --- reading and writing ----------------------------------------------------------------


@dataclass(frozen=True)
class Span:
    """When a body was asked for, or announced; when its first bytes passed, and when its end did."""

    asked: float
    first: float
    last: float


def read(url: str, media: str, token: str, body: Body) -> Span:
    """Reads `server/media_id`, which has to be this body."""
    with contextlib.closing(http.client.HTTPConnection(urlsplit(url).netloc, timeout=600)) as connection:
        connection.connect()
        asked, first, size, checksum = time.monotonic(), 0.0, 0, 0
        path = f"/_matrix/client/v1/media/download/{media}"
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        response = connection.getresponse()
        while piece := response.read1(PIECE):
            first = first or time.monotonic()
            size += len(piece)
            checksum = zlib.crc32(piece, checksum)
        last = time.monotonic()  # chunked bodies end after their last byte
    if response.status != 200:
        raise BenchError(f"{media}: status {response.status}")
    if (size, checksum) != (body.size, body.checksum()):
        raise BenchError(f"{media}: {size} bytes, or other content")
    return Span(asked, first, last)


def create(url: str, token: str) -> str:
    """Creates a media id to upload to; returns `server/media_id`."""
    with contextlib.closing(http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)) as connection:
        connection.request("POST", "/_matrix/media/v1/create", headers={"Authorization": f"Bearer {token}"})
        response = connection.getresponse()
        text = response.read()
    if response.status != 200:
        raise BenchError(f"create answered {response.status}: {text[:200]!r}")
    content_uri: str = json.loads(text)["content_uri"]
    return content_uri.removeprefix("mxc://")


def write(url: str, media: str, token: str, body: Body, rate: float, begun: threading.Event) -> Span:
    """Uploads to a media id at a pace; `begun` is set when the first piece is on its way."""
    passed: list[float] = []

    def pieces() -> Iterator[memoryview]:
        for piece in paced(body.pieces(PIECE), rate):
            yield piece
            if not passed:
                passed.append(time.monotonic())
                begun.set()

    headers = {
        "Authorization": f"Bearer {token}",
        "Content-Type": "application/octet-stream",
        "Content-Length": str(body.size),
    }
    with contextlib.closing(http.client.HTTPConnection(urlsplit(url).netloc, timeout=600)) as connection:
        connection.connect()
        asked = time.monotonic()
        connection.request("PUT", f"/_matrix/media/v3/upload/{media}", pieces(), headers)
        response = connection.getresponse()
        text = response.read()
    if response.status != 200:
        raise BenchError(f"upload to {media} answered {response.status}: {text[:200]!r}")
    return Span(asked, passed[0], time.monotonic())


def together(tasks: Sequence[Callable[[], T]]) -> list[T]:
    """Does all tasks at the same time, each in a thread of its own."""
    with ThreadPoolExecutor(len(tasks)) as pool:
        futures = [pool.submit(task) for task in tasks]
    errors = [error for future in futures if (error := future.exception())]
    if errors:
        raise BenchError(f"{len(errors)} of {len(tasks)} failed, the first: {errors[0]!r}")
    return [future.result() for future in futures]


def sent(source: str, media_id: str) -> list[Sent]:
    """What the source sent for a media id, once for each time that it was asked."""
    every = json.loads(get(f"{source}/_bench/sent").body)
    return [Sent(**one) for one in every if one["media_id"] == media_id]


class Titles:
    """Media ids that nobody has asked for yet."""

    def __init__(self) -> None:
        self.serial = itertools.count()

    def next(self, size: float, rate: float, framing: str = "length") -> Body:
        return Body(f"{size:.0f}-{rate:.0f}-{framing}-{next(self.serial)}", int(size))


# --- firstbyte --------------------------------------------------------------------------


@dataclass(frozen=True)
class Way:
    """One of the ways that a body takes to its reader."""

    label: str
    url: str
    server: str
    token: str
    framing: str = "length"
    is_held_to_goals: bool = False

    def read(self, body: Body) -> Span:
        return read(self.url, f"{self.server}/{body.name}", self.token, body)


def firstbyte(place: Place, options: argparse.Namespace) -> bool:
    """Cold reads of a slow source, one at a time; True if all goals were met."""
    size, rate = (options.size or 50) * MB, (options.rate or 5) * MB
    with_synapse = "synapse" in options.only
    source, remote = start_source(place, tls=True)
    ways = ways_of_the_source(place, options, source, remote)
    if with_synapse:
        ways += ways_of_synapse(place, options, remote)
    titles = Titles()
    for way in ways:
        way.read(titles.next(MB, 0, way.framing))

    asked = {way: Figure(way.label, "{:,.2f}") for way in ways}
    first = {way: Figure(way.label, "{:,.2f}", Goal("≤", 20) if way.is_held_to_goals else None) for way in ways}
    last = {way: Figure(way.label, "{:,.2f}") for way in ways}
    whole = {way: Figure(way.label, "{:,.2f}", Goal("≤", 2) if way.is_held_to_goals else None) for way in ways}
    for round_ in range(options.rounds):
        turn = round_ % len(ways)
        for way in [*ways[turn:], *ways[:turn]]:
            body = titles.next(size, rate, way.framing)
            seen = way.read(body)
            (of_source,) = sent(source, body.name)
            asked[way].values.append((of_source.asked - seen.asked) * 1e3)
            first[way].values.append((seen.first - of_source.first) * 1e3)
            last[way].values.append((seen.last - of_source.last) * 1e3)
            source_time = of_source.last - of_source.first
            whole[way].values.append(((seen.last - seen.asked) / source_time - 1) * 100)
            say(f"round {round_ + 1}/{options.rounds}  {way.label}: first byte {first[way].values[-1]:.2f} ms later")

    about = f"{machine(place.cpus)}; {size / MB:g} MB at {rate / MB:g} MB/s, {options.rounds} rounds."
    parts = [
        ("Request at the source, ms after the reader sent it", asked),
        ("First byte at the reader, ms after the source sent it", first),
        ("End at the reader, ms after the source sent the last piece", last),
        ("From the request to the end, % over the time that the source took to send", whole),
    ]
    text = "\n\n".join([about, *(f"{title}:\n\n{figures_table(rows.values())}" for title, rows in parts)])
    raw = {title: {way.label: figure.values for way, figure in rows.items()} for title, rows in parts}
    publish("firstbyte", text + "\n", {"machine": about, "figures": raw})
    return all(figure.met() for _, rows in parts for figure in rows.values())


def ways_of_the_source(place: Place, options: argparse.Namespace, source: str, remote: str) -> list[Way]:
    """The source read directly, which is the limit here, and by Mediary: as its homeserver, and as another server."""
    ways = [Way("the source itself", source, REMOTE, "user-direct")]
    if "mediary" in options.only:
        inner = place.stack.enter_context(place.inner("mediary"))
        url, _ = start_mediary(inner, options.binary, source)
        for framing, label in (("length", "known length"), ("chunked", "chunked")):
            ways.append(Way(f"Mediary, {label}", url, REMOTE, "user-reader", framing, is_held_to_goals=True))
        inner = place.stack.enter_context(place.inner("mediary-federation"))
        url, _ = start_mediary(inner, options.binary, source, federation(inner, place.folder / "source.crt"))
        ways.append(Way("Mediary, from the other server", url, remote, "user-reader", is_held_to_goals=True))
    return ways


def ways_of_synapse(place: Place, options: argparse.Namespace, remote: str) -> list[Way]:
    """A real Synapse for which the source is another server, and Mediary in front of that."""
    say("starting Synapse")
    on_loopback = {"federation_verify_certificates": False, "ip_range_blacklist": []}
    synapse = Homeserver.start(place, options.synapse, **on_loopback)
    ways = [Way("Synapse", synapse.url, remote, synapse.token)]
    if "mediary" in options.only:
        inner = place.stack.enter_context(place.inner("mediary-synapse"))
        url, _ = start_mediary(inner, options.binary, synapse.url)
        ways.append(Way("Mediary before Synapse", url, remote, synapse.token))
    return ways


# --- crowd ------------------------------------------------------------------------------


def crowd(place: Place, options: argparse.Namespace) -> bool:
    """Many followers of one fetch; True if all goals were met."""
    size, rate, followers = (options.size or 50) * MB, (options.rate or 5) * MB, options.followers
    source, remote = start_source(place, tls=options.key)
    server = remote if options.key else REMOTE
    titles = Titles()
    asked = Figure("requests to the source", "{:.0f}", Goal("=", 1))
    memory = Memory(limit=32)
    cpu = Figure("CPU seconds of Mediary", "{:.2f}")
    first = Figure("first byte, ms after asking, the slowest follower")
    last = Figure("end, ms after the source's, the slowest follower")
    for round_ in range(options.rounds):
        with place.inner(f"round-{round_}") as inner:
            more = federation(inner, place.folder / "source.crt") if options.key else ""
            url, pid = start_mediary(inner, options.binary, source, more)
            warm = titles.next(MB, 0)
            read(url, f"{server}/{warm.name}", "user-warm", warm)
            body = titles.next(size, rate)
            start = time.monotonic()

            def join(index: int, url: str = url, body: Body = body, start: float = start) -> Span:
                time.sleep(max(0.0, start + index / followers * JOINING_SECONDS - time.monotonic()))
                return read(url, f"{server}/{body.name}", f"user-{index}", body)

            with memory.watch(pid):
                cpu_before = cpu_seconds(pid)
                seen = together([partial(join, index) for index in range(followers)])
                cpu.values.append(cpu_seconds(pid) - cpu_before)
            of_source = sent(source, body.name)
            asked.values.append(len(of_source))
            first.values.append(max(one.first - max(one.asked, of_source[0].first) for one in seen) * 1e3)
            last.values.append(max(one.last - of_source[0].last for one in seen) * 1e3)
        say(f"round {round_ + 1}/{options.rounds}  grew by {memory.growth.values[-1]:.1f} MiB")
    whence = "from another server" if options.key else "from the homeserver"
    what = f"{followers} followers of {size / MB:g} MB at {rate / MB:g} MB/s {whence}"
    return report("crowd", place, options, what, [asked, *memory.figures(), cpu, first, last])


# --- bodies -----------------------------------------------------------------------------


def bodies(place: Place, options: argparse.Namespace) -> bool:
    """Uploads that are read while they come in, all at once; True if all goals were met."""
    size, rate, pairs = (options.size or 100) * MB, options.rate, options.pairs
    rate = (2 if rate is None else rate) * MB
    if shutil.disk_usage(place.folder).free < 1.5 * pairs * size:
        raise BenchError(f"needs {1.5 * pairs * size / 1e9:.0f} GB of free disk")
    source, _ = start_source(place)
    at_once = Figure("bodies under way at once", "{:.0f}", Goal("=", 2 * pairs))
    early = Figure("readers with bytes before their upload's end", "{:.0f}", Goal("=", pairs))
    memory = Memory(limit=64)
    cpu = Figure("CPU seconds of Mediary", "{:.2f}")
    seconds = Figure("seconds")
    speed = Figure("MB/s, in and out")
    for round_ in range(options.rounds):
        with place.inner(f"round-{round_}") as inner:
            more = f'[uploads]\nmax_size = "{size / MB + 1:.0f} MB"\n'
            url, pid = start_mediary(inner, options.binary, source, more)
            upload_and_read(url, [Body("warm", MB)], 0)
            these = [Body(f"body-{round_}-{index}", int(size)) for index in range(pairs)]
            with memory.watch(pid):
                cpu_before, start = cpu_seconds(pid), time.monotonic()
                written, seen = upload_and_read(url, these, rate)
                seconds.values.append(time.monotonic() - start)
                cpu.values.append(cpu_seconds(pid) - cpu_before)
        speed.values.append(2 * pairs * size / MB / seconds.values[-1])
        at_once.values.append(most_at_once([(span.first, span.last) for span in written + seen]))
        early.values.append(sum(r.first < w.last for w, r in zip(written, seen, strict=True)))
        say(f"round {round_ + 1}/{options.rounds}  grew by {memory.growth.values[-1]:.1f} MiB")
    pace = f"at {rate / MB:g} MB/s each" if rate else "as fast as they go"
    what = f"{pairs} uploads of {size / MB:g} MB, each with a reader, {pace}"
    return report("bodies", place, options, what, [at_once, early, *memory.figures(), cpu, seconds, speed])


def upload_and_read(url: str, these: Sequence[Body], rate: float) -> tuple[list[Span], list[Span]]:
    """Uploads all bodies at once, each with one reader from its first piece on; each has users of its own."""
    media = [create(url, f"user-writer-{index}") for index in range(len(these))]
    start = threading.Barrier(len(these))

    def upload(index: int, begun: threading.Event) -> Span:
        try:
            start.wait()
            return write(url, media[index], f"user-writer-{index}", these[index], rate, begun)
        finally:
            begun.set()  # also when it failed, so that its reader ends

    def download(index: int, begun: threading.Event) -> Span:
        begun.wait()
        return read(url, media[index], f"user-reader-{index}", these[index])

    begun = [threading.Event() for _ in these]
    tasks = [partial(task, index, begun[index]) for task in (upload, download) for index in range(len(these))]
    spans = together(tasks)
    return spans[: len(these)], spans[len(these) :]


def most_at_once(spans: Sequence[tuple[float, float]]) -> int:
    """How many spans overlap at the time when most do."""
    changes = sorted([(start, 1) for start, _ in spans] + [(end, -1) for _, end in spans])
    return max(itertools.accumulate(change for _, change in changes))


# --- memory, and the report -------------------------------------------------------------


@dataclass
class Memory:
    """What a process had before, and what it grew to, by the kernel's high-water mark."""

    limit: float
    before: Figure = dataclasses.field(default_factory=lambda: Figure("RSS MiB before"))
    peak: Figure = dataclasses.field(default_factory=lambda: Figure("highest"))
    growth: Figure = dataclasses.field(default_factory=lambda: Figure("growth"))

    def __post_init__(self) -> None:
        self.growth.goal = Goal("<", self.limit)

    @contextlib.contextmanager
    def watch(self, pid: int) -> Iterator[None]:
        reset_peak(pid)
        before = peak_mib(pid)
        yield
        peak = peak_mib(pid)
        for figure, value in ((self.before, before), (self.peak, peak), (self.growth, peak - before)):
            figure.values.append(value)

    def figures(self) -> list[Figure]:
        return [self.before, self.peak, self.growth]


def report(mode: str, place: Place, options: argparse.Namespace, what: str, figures: Sequence[Figure]) -> bool:
    """Publishes the figures; True if all goals were met."""
    about = f"{machine(place.cpus)}; {what}; {options.rounds} rounds, each with a new process."
    raw: dict[str, Any] = {figure.label: figure.values for figure in figures}
    publish(mode, f"{about}\n\n{figures_table(figures)}\n", {"machine": about, "figures": raw})
    return all(figure.met() for figure in figures)
