"""Thumbnails that nobody has asked for yet, through the whole product: how soon, what others feel, what a worker takes.

Three modes of compare.py. The source is always the photograph of 12 megapixels of thumbnails.py. Each request is for
another picture: a comment in the file makes it so, and changes nothing of what has to be decoded.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import http.client
import io
import itertools
import math
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TypeVar
from urllib.parse import urlsplit

from harness import (
    BenchError,
    Cpus,
    Figure,
    Fixtures,
    Goal,
    Homeserver,
    Place,
    Wrk,
    cpu_seconds,
    figures_table,
    get,
    machine,
    memory_mib,
    peak_mib,
    pin,
    process_tree,
    publish,
    say,
    start_mediary,
    start_source,
    table,
    upload,
)
from held import TOKEN, p99_ms
from thumbnails import make_photo

T = TypeVar("T")

SIZES = ((320, 240, "scale"), (96, 96, "crop"), (800, 600, "scale"))
SETTLING = 0.05  # seconds after an answer until what it has cost is read: the file is still being kept
PACE = 0.004  # seconds from one download to the next of who does not go as fast as he can


class Pictures:
    """The photograph again and again, each time as another file."""

    def __init__(self) -> None:
        self.photo, self.count = make_photo().read_bytes(), itertools.count()

    def another(self) -> bytes:
        comment = f"{next(self.count)}-{os.urandom(8).hex()}".encode()
        return self.photo[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + self.photo[2:]

    def publish(self, url: str, token: str) -> str:
        body = self.another()
        return upload(url, token, "image/jpeg", [body], len(body))


def thumbnail_path(media: str, width: int, height: int, method: str) -> str:
    return f"/_matrix/client/v1/media/thumbnail/{media}?width={width}&height={height}&method={method}"


def everywhere(place: Place) -> Place:
    """The same place with all CPUs for everybody: workers are to have all, and who waits for an answer needs none."""
    every = sorted({*place.cpus.server, *place.cpus.load})
    return dataclasses.replace(place, cpus=Cpus(every, every))


# --- how soon ---------------------------------------------------------------------------


@dataclass
class Maker:
    """A server that makes thumbnails, and what it has cost so far."""

    label: str
    url: str
    pid: int
    token: str
    kind: str = "JPEG"
    wall_ms: dict[str, list[list[float]]] = field(default_factory=dict)  # by what was done, of each round
    cpu_ms: dict[str, list[list[float]]] = field(default_factory=dict)

    def measured(self, what: str, round_: int, action: Callable[[], T]) -> T:
        """Notes what an action costs until its answer is whole, and the CPU until the server has settled."""
        cpu, begun = cpu_seconds(self.pid), time.monotonic()
        result = action()
        wall = time.monotonic() - begun
        time.sleep(SETTLING)
        for figures, seconds in ((self.wall_ms, wall), (self.cpu_ms, cpu_seconds(self.pid) - cpu)):
            rounds = figures.setdefault(what, [])
            rounds += [[] for _ in range(round_ + 1 - len(rounds))]
            rounds[round_].append(seconds * 1e3)
        return result

    def rows(self) -> Iterator[list[str]]:
        for what, rounds in self.wall_ms.items():
            wall, cpu = (list(itertools.chain(*each)) for each in (rounds, self.cpu_ms[what]))
            figures = (median(wall), percentile(wall, 95), median(cpu), percentile(cpu, 95))
            yield [what, self.label, str(len(wall)), *(f"{figure:.1f}" for figure in figures)]


def percentile(values: Sequence[float], percent: int) -> float:
    """The smallest that is as large as so many of all."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def thumbnails_cold(place: Place, options: argparse.Namespace) -> bool:
    """True if every round was ten times as fast as Synapse for every size."""
    pictures, place = Pictures(), everywhere(place)
    with contextlib.ExitStack() as stack:
        makers = start_makers(place, options, stack)
        ours, synapse, ahead = makers
        for maker in makers:
            warm(maker, pictures)
        for round_ in range(options.rounds):
            for size in SIZES:
                measure_cold(round_, size, [ours, synapse], pictures, options.pictures)
            for _ in range(options.pictures):
                ahead.measured("upload", round_, lambda: pictures.publish(ahead.url, ahead.token))
            say(f"round {round_ + 1}/{options.rounds}: {progress([ours, synapse], round_)}")
    figures = list(ratios(ours, synapse))
    rows = sorted((row for maker in makers for row in maker.rows()), key=lambda row: row[0] == "upload")
    head = ["what", "server", "times", "wall ms, median", "p95", "CPU ms, median", "p95"]
    about = f"{machine(place.cpus)}; {options.rounds} rounds, {options.pictures} pictures of each size in each."
    raw = {maker.label: {"wall_ms": maker.wall_ms, "cpu_ms": maker.cpu_ms} for maker in makers}
    text = f"{about}\n\n{table(head, rows)}\n\nSynapse's by ours, of a round's medians:\n\n{figures_table(figures)}\n\n"
    title = "What Synapse's upload takes longer for its five thumbnails:"
    text += f"{title}\n\n{figures_table(at_upload(synapse, ahead))}\n"
    publish("thumbnails-cold", text, {"machine": about, "figures": raw})
    return all(figure.met() for figure in figures)


def start_makers(place: Place, options: argparse.Namespace, stack: contextlib.ExitStack) -> list[Maker]:
    """Mediary, the Synapse behind it, which makes thumbnails when asked, and one that makes all of them at upload.

    When asked, Synapse makes PNG of whatever there is; at upload it makes JPEG of JPEG.
    """
    synapse = Homeserver.start(place, options.synapse, dynamic_thumbnails=True, thumbnail_sizes=[])
    ahead = Homeserver.start(stack.enter_context(place.inner("ahead")), options.synapse)
    url, pid = start_mediary(place, options.binary, synapse.url)
    for server in (synapse, ahead):
        pin(server.pid, place.cpus.server)
    return [
        Maker("Mediary", url, pid, synapse.token),
        Maker("Synapse, when asked", synapse.url, synapse.pid, synapse.token, "PNG"),
        Maker("Synapse, all at upload", ahead.url, ahead.pid, ahead.token),
    ]


def warm(maker: Maker, pictures: Pictures) -> None:
    """Once for each worker and size; looks at what comes."""
    from PIL import Image  # comes with Synapse

    for size in SIZES * 2:
        path = thumbnail_path(pictures.publish(maker.url, maker.token), *size)
        answer = get(maker.url + path, maker.token)
        if answer.status != 200:
            raise BenchError(f"{maker.label} answers {answer.status} for {path}: {answer.body[:200]!r}")
        with Image.open(io.BytesIO(answer.body)) as picture:
            if (picture.format, picture.size) != (maker.kind, size[:2]):
                raise BenchError(f"{maker.label} makes {picture.format} of {picture.size} for {path}")


def measure_cold(
    round_: int, size: tuple[int, int, str], makers: Sequence[Maker], pictures: Pictures, count: int
) -> None:
    """Uploads, lets the disk come to rest, and asks: one server after the other, another one first each time."""
    media: dict[str, list[str]] = {maker.label: [] for maker in makers}
    for index in range(count):
        for maker in makers[index % 2 :] + makers[: index % 2]:
            sent = maker.measured("upload", round_, lambda: pictures.publish(maker.url, maker.token))  # noqa: B023
            media[maker.label].append(sent)
    os.sync()
    for index in range(count):
        for maker in makers[index % 2 :] + makers[: index % 2]:
            url = maker.url + thumbnail_path(media[maker.label][index], *size)
            answer = maker.measured(name_of(size), round_, lambda: get(url, maker.token))  # noqa: B023
            if answer.status != 200:
                raise BenchError(f"{maker.label} answers {answer.status} for {url}")


def name_of(size: tuple[int, int, str]) -> str:
    return f"{size[0]}x{size[1]} {size[2]}"


def ratios(ours: Maker, other: Maker) -> Iterator[Figure]:
    for size in map(name_of, SIZES):
        for title, goal, one, two in (
            ("wall", Goal("≥", 10), ours.wall_ms, other.wall_ms),
            ("CPU", None, ours.cpu_ms, other.cpu_ms),
        ):
            pairs = zip(one[size], two[size], strict=True)
            values = [median(theirs) / median(own) for own, theirs in pairs]
            yield Figure(f"{size}: {title}", "{:.1f}", goal, values)


def at_upload(without: Maker, ahead: Maker) -> Iterator[Figure]:
    """What an upload costs more where it makes all thumbnails."""
    for title, one, two in (
        ("wall ms", without.wall_ms, ahead.wall_ms),
        ("CPU ms", without.cpu_ms, ahead.cpu_ms),
    ):
        pairs = zip(one["upload"], two["upload"], strict=True)
        yield Figure(title, values=[median(more) - median(less) for less, more in pairs])


def progress(makers: Sequence[Maker], round_: int) -> str:
    def of_all(size: str) -> str:
        return ", ".join(f"{median(maker.wall_ms[size][round_]):.0f}" for maker in makers)

    return "wall ms: " + "; ".join(f"{size} {of_all(size)}" for size in map(name_of, SIZES))


# --- what others feel -------------------------------------------------------------------


class Background:
    """A process of its own whose clients ask for thumbnails that are not there, without pause."""

    def __init__(self, url: str, media: Sequence[str], askers: int) -> None:
        self.url, self.media, self.askers = url, media, askers
        self.turn = 0
        self.made = 0
        self.refused = 0

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """Asks within the `with`; what was made is counted from its begin to its end."""
        context = multiprocessing.get_context("fork")
        made, refused, turn = context.Value("q", 0), context.Value("q", 0), context.Value("q", self.turn)
        over = context.Event()
        child = context.Process(target=self.ask_until, args=(over, made, refused, turn), daemon=True)
        child.start()
        try:
            time.sleep(1)  # until all workers have something to do
            before = made.value
            yield
            self.made = made.value - before
        finally:
            over.set()
            child.join(60)
            self.turn, self.refused = turn.value, self.refused + refused.value
            if child.exitcode != 0:
                child.kill()
                raise BenchError(f"who asked for thumbnails ended with {child.exitcode}")

    def ask_until(self, over, made, refused, turn) -> None:  # type: ignore[no-untyped-def]
        threads = [threading.Thread(target=self.ask, args=(over, made, refused, turn)) for _ in range(self.askers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def ask(self, over, made, refused, turn) -> None:  # type: ignore[no-untyped-def]
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=60)
        with contextlib.closing(connection):
            while not over.is_set():
                with turn.get_lock():
                    mine = turn.value
                    turn.value += 1
                status = self.request(connection, mine)
                counter = made if status == 200 else refused
                with counter.get_lock():
                    counter.value += 1

    def request(self, connection: http.client.HTTPConnection, turn: int) -> int:
        """All pictures in one size, then in the next: no two under way are of one picture, and none is there.

        The sizes differ little, so that all cost the same.
        """
        again, index = divmod(turn, len(self.media))
        path = thumbnail_path(self.media[index], 300 + again % 20, 220 + again // 20, "crop")
        connection.request("GET", path, headers={"Authorization": f"Bearer {TOKEN}"})
        response = connection.getresponse()
        response.read()
        return response.status


def paced_p99_ms(url: str, seconds: int) -> float:
    """One download after the other over one connection, with time between them, which workers may use."""
    parts, times = urlsplit(url), []
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    connection = http.client.HTTPConnection(parts.netloc, timeout=60)
    until = time.monotonic() + seconds
    with contextlib.closing(connection):
        while (begun := time.monotonic()) < until:
            connection.request("GET", target, headers={"Authorization": f"Bearer {TOKEN}"})
            response = connection.getresponse()
            response.read()
            times.append((time.monotonic() - begun) * 1e3)
            if response.status != 200:
                raise BenchError(f"the others were answered {response.status}")
            time.sleep(max(0.0, begun + PACE - time.monotonic()))
    return percentile(times, 99)


def thumbnails_busy(place: Place, options: argparse.Namespace) -> bool:
    """True if p99 of cached downloads was no more than three times as long."""
    pictures, place = Pictures(), everywhere(place)
    source, _ = start_source(place)
    more = '[thumbnails]\nmode = "exact"\nmax_variants = 10_000\nworker_jobs = 100_000\n'
    url, pid = start_mediary(place, options.binary, source, more)
    wrk, cpus = Wrk(place), len(place.cpus.server)
    paths = Fixtures.make().publish(url, TOKEN)
    hot = {"6 KB": url + paths["thumbnail"], "200 KB": url + paths["picture"]}
    background = Background(url, [pictures.publish(url, TOKEN) for _ in range(options.media)], options.askers)
    os.sync()
    ways: dict[str, Callable[[str], float]] = {
        "wrk, 4 connections": lambda path: p99_ms(wrk, path, options.seconds),
        "one every 4 ms": lambda path: paced_p99_ms(path, options.seconds),
    }
    quiet, busy, share, rate = {}, {}, {}, {}
    for name in (f"{way}, {thing}" for way in ways for thing in hot):
        quiet[name] = Figure(f"{name}: p99 quiet, ms", "{:.2f}")
        busy[name] = Figure(f"{name}: p99 while thumbnails are made, ms", "{:.2f}")
        share[name] = Figure(f"{name}: CPU of the workers meanwhile, % of all CPUs", "{:.0f}")
        rate[name] = Figure(f"{name}: thumbnails made in a second meanwhile")
    for path in hot.values():
        get(path, TOKEN)
    for round_ in range(options.rounds):
        for way, thing in itertools.product(ways, hot):
            name = f"{way}, {thing}"

            def when_quiet() -> None:
                quiet[name].values.append(ways[way](hot[thing]))  # noqa: B023

            def when_busy() -> None:
                with background.asking():
                    cpu, begun = workers_seconds(pid), time.monotonic()
                    busy[name].values.append(ways[way](hot[thing]))  # noqa: B023
                    taken = time.monotonic() - begun
                    share[name].values.append((workers_seconds(pid) - cpu) / taken / cpus * 100)  # noqa: B023
                rate[name].values.append(background.made / taken)  # noqa: B023

            for step in (when_quiet, when_busy) if round_ % 2 == 0 else (when_busy, when_quiet):
                step()
            pair = f"{quiet[name].values[-1]:.2f} ms quiet, {busy[name].values[-1]:.2f} busy"
            made = f"{rate[name].values[-1]:.0f} thumbnails/s, workers {share[name].values[-1]:.0f} % of all CPUs"
            say(f"round {round_ + 1}/{options.rounds}, {name}: p99 {pair}; {made}")
    figures = []
    for name in quiet:
        values = [median(busy[name].values) / median(quiet[name].values)]
        ratio = Figure(f"{name}: ratio of medians", "{:.2f}", Goal("≤", 3), values)
        figures += [quiet[name], busy[name], ratio, share[name], rate[name]]
    figures.append(Figure("thumbnails refused, in all", "{:.0f}", Goal("=", 0), [background.refused]))
    about = f"{machine(place.cpus)}; {options.askers} clients ask for thumbnails; {options.rounds} rounds."
    raw = {figure.label: figure.values for figure in figures}
    publish("thumbnails-busy", f"{about}\n\n{figures_table(figures)}\n", {"machine": about, "figures": raw})
    return all(figure.met() for figure in figures)


def workers_seconds(pid: int) -> float:
    return sum(map(cpu_seconds, process_tree(pid)[1:]))


# --- what a worker takes ----------------------------------------------------------------


class Watcher(threading.Thread):
    """Notes the most of each kind of memory that a process had, as often as it can."""

    KINDS = ("VmRSS", "RssAnon", "RssFile", "RssShmem")

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.status, self.over = Path(f"/proc/{pid}/status"), threading.Event()
        self.first = self.look()
        self.top = dict(self.first)
        self.looks = 0

    def look(self) -> dict[str, float]:
        lines = (line.partition(":") for line in self.status.read_text().splitlines())
        return {name: int(rest.split()[0]) / 1024 for name, _, rest in lines if name in self.KINDS}

    def run(self) -> None:
        while not self.over.is_set():
            for name, value in self.look().items():
                self.top[name] = max(self.top[name], value)
            self.looks += 1


def the_worker(pid: int) -> int:
    """The one worker, as soon as it has stopped growing: it waits for its first picture then."""
    deadline, last = time.monotonic() + 20, (0, 0.0)
    while time.monotonic() < deadline:
        time.sleep(0.1)
        children = process_tree(pid)[1:]
        if len(children) == 1:
            now = (children[0], peak_mib(children[0]))
            if now == last:
                return now[0]
            last = now
    raise BenchError(f"there is not one worker: {process_tree(pid)[1:]}")


def thumbnails_memory(place: Place, options: argparse.Namespace) -> bool:
    """True if a fresh worker never had 24 MiB resident, its program included."""
    pictures = Pictures()
    source, _ = start_source(place)
    figures = []
    for size in SIZES:
        peak = Figure(f"{name_of(size)}: peak (VmHWM), MiB", "{:.1f}", Goal("<", 24))
        before = Figure(f"{name_of(size)}: resident before, MiB")
        kinds = {
            "RssAnon": Figure(f"{name_of(size)}: of its own (RssAnon), highest seen, MiB"),
            "RssFile": Figure(f"{name_of(size)}: of files (RssFile), highest seen, MiB"),
            "RssShmem": Figure(f"{name_of(size)}: shared (RssShmem), highest seen, MiB"),
        }
        share = Figure(f"{name_of(size)}: its share at the end (PSS), MiB")
        program = Figure(f"{name_of(size)}: of files before, which is the program itself, MiB")
        for round_ in range(options.rounds):
            with place.inner(f"{name_of(size).replace(' ', '-')}-{round_}") as inner:
                url, pid = start_mediary(inner, options.binary, source, "[thumbnails]\nconcurrency = 1\n")
                path = thumbnail_path(pictures.publish(url, TOKEN), *size)
                worker = the_worker(pid)
                watcher = Watcher(worker)
                watcher.start()
                answer = get(url + path, TOKEN)
                watcher.over.set()
                watcher.join()
                if answer.status != 200 or process_tree(pid)[1:] != [worker]:
                    raise BenchError(f"answer {answer.status}, workers {process_tree(pid)[1:]}, before {worker}")
                peak.values.append(peak_mib(worker))
                share.values.append(memory_mib(worker)["Pss"])
                before.values.append(watcher.first["VmRSS"])
                program.values.append(watcher.first["RssFile"])
                for kind, figure in kinds.items():
                    figure.values.append(watcher.top[kind])
        say(f"{name_of(size)}: peak {median(peak.values):.1f} MiB, {watcher.looks} looks")
        figures += [peak, *kinds.values(), before, program, share]
    about = f"{machine(place.cpus)}; {options.rounds} rounds, each with a new worker and one picture."
    raw = {figure.label: figure.values for figure in figures}
    publish("thumbnails-memory", f"{about}\n\n{figures_table(figures)}\n", {"machine": about, "figures": raw})
    return all(figure.met() for figure in figures)
