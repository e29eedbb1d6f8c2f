"""What all the measurements share: processes and what they cost, the servers, the report."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import getpass
import grp
import http.client
import io
import json
import operator
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

CRATE = Path(__file__).resolve().parent.parent
BENCH_DIR = CRATE / "target" / "bench"
TEMPLATES = CRATE / "benches" / "nginx"

MIB = 1 << 20
VERSIONS = "/_matrix/client/versions"
THUMBNAIL_QUERY = "width=320&height=240&method=scale"


class BenchError(Exception):
    """Something that makes going on pointless; its text is for the reader."""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# --- processes: where they run, what they cost ------------------------------------------


@dataclass(frozen=True)
class Cpus:
    """Which CPUs serve and which ones load; they are apart wherever there are two."""

    server: list[int]
    load: list[int]

    @classmethod
    def split(cls, threads: int) -> Cpus:
        every = sorted(os.sched_getaffinity(0))
        return cls(every[:threads], every[threads:] or every)


def process_tree(root: int) -> list[int]:
    """The process and everything it started that still runs."""
    found = [root]
    for pid in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found


def pin(root: int, cpus: Iterable[int]) -> None:
    for pid in process_tree(root):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(task.name), cpus)


def cpu_seconds(root: int) -> float:
    """User and system time of the tree, finished threads included.

    The same sum as utime + stime in /proc/PID/stat, read from the process's CPU clock
    (clock_getcpuclockid(3)) because that counts nanoseconds instead of ticks.
    """
    return sum(time.clock_gettime((~pid << 3) | 2) for pid in process_tree(root))


def children_seconds() -> float:
    """User and system time of the children that ended: of wrk, while it is measured."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def memory_mib(root: int) -> dict[str, float]:
    """Rss, Pss and anonymous memory of the tree in MiB; Pss counts shared pages once."""
    total = {"Rss": 0.0, "Pss": 0.0, "Anonymous": 0.0}
    for pid in process_tree(root):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                name, _, rest = line.partition(":")
                if name in total:
                    total[name] += int(rest.split()[0]) / 1024
    return total


def resident_mib(root: int) -> dict[str, float]:
    total = {"VmRSS": 0.0, "RssAnon": 0.0}
    for pid in process_tree(root):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                name, _, rest = line.partition(":")
                if name in total:
                    total[name] += int(rest.split()[0]) / 1024
    return total


def reset_peak(pid: int) -> None:
    """Lets `peak_mib` begin again from what is resident now (proc_pid_clear_refs(5))."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_mib(pid: int) -> float:
    """The most that was ever resident, by the kernel's own high-water mark."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise BenchError(f"process {pid} is gone")


# --- asking over HTTP -------------------------------------------------------------------


class CountingReader(io.RawIOBase):
    """A socket to read from that knows how many bytes came over the wire."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.count = sock, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = self.sock.recv_into(buffer)
        self.count += size
        return size

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes
    wire_bytes: int


def get(url: str, token: str | None = None) -> Answer:
    """One GET, as wrk would send it."""
    parts = urlsplit(url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    lines = [f"GET {target} HTTP/1.1", f"Host: {parts.netloc}"]
    if token is not None:
        lines.append(f"Authorization: Bearer {token}")
    with socket.create_connection((parts.hostname, parts.port), timeout=60) as sock:
        sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        reader = CountingReader(sock)
        response = http.client.HTTPResponse(reader)  # type: ignore[arg-type]
        response.begin()
        body = response.read()
    return Answer(response.status, response.headers, body, reader.count)


def upload(url: str, token: str, kind: str, body: Iterable[bytes], size: int) -> str:
    """Uploads and returns `server/media_id`."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=600)
    headers = {
        "Authorization": f"Bearer {token}",
        "Content-Type": kind,
        "Content-Length": str(size),
    }
    with contextlib.closing(connection):
        connection.request("POST", "/_matrix/media/v3/upload", iter(body), headers)
        response = connection.getresponse()
        text = response.read()
    if response.status != 200:
        raise BenchError(f"upload answered {response.status}: {text[:200]!r}")
    content_uri: str = json.loads(text)["content_uri"]
    return content_uri.removeprefix("mxc://")


# --- what is served ---------------------------------------------------------------------


@dataclass(frozen=True)
class Fixtures:
    """The same bytes for every server, and the same in every run."""

    picture: bytes
    file: bytes

    @classmethod
    def make(cls) -> Fixtures:
        dice = random.Random(1)
        return cls(make_picture(dice), dice.randbytes(10 * MIB))

    def publish(self, url: str, token: str) -> dict[str, str]:
        """Uploads to a Matrix server; returns the path of each object."""
        base = "/_matrix/client/v1/media"
        picture = upload(url, token, "image/jpeg", [self.picture], len(self.picture))
        file = upload(url, token, "application/octet-stream", [self.file], len(self.file))
        return {
            "thumbnail": f"{base}/thumbnail/{picture}?{THUMBNAIL_QUERY}",
            "picture": f"{base}/download/{picture}",
            "file": f"{base}/download/{file}",
            "versions": VERSIONS,
        }


def make_picture(dice: random.Random) -> bytes:
    """A JPEG of about 200 KB whose 320x240 thumbnail has about 6 KB, as photographs do."""
    from PIL import Image  # comes with Synapse

    size = (1280, 960)

    def noise(width: int, height: int) -> Image.Image:
        small = Image.frombytes("RGB", (width, height), dice.randbytes(3 * width * height))
        return small.resize(size, Image.Resampling.BICUBIC)

    picture = noise(4, 3)
    for detail, weight in (((16, 12), 0.15), ((64, 48), 0.02), (size, 0.123)):
        picture = Image.blend(picture, noise(*detail), weight)
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=80)
    return out.getvalue()


# --- the servers ------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """Where servers are started: a folder, CPUs, and the stack that stops them again."""

    folder: Path
    cpus: Cpus
    stack: contextlib.ExitStack

    @contextlib.contextmanager
    def inner(self, name: str) -> Iterator[Place]:
        """A place of its own for one run: what is started there is stopped and deleted after it."""
        folder = self.folder / name
        folder.mkdir()
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            yield Place(folder, self.cpus, stack)

    def spawn(self, name: str, command: Sequence[str | Path], cpus: Iterable[int]) -> int:
        log = self.stack.enter_context((self.folder / f"{name}.log").open("wb"))
        where = ",".join(map(str, cpus))
        settings = {key: value for key, value in os.environ.items() if not key.startswith("MEDIARY_")}
        child = subprocess.Popen(
            ["taskset", "-c", where, *command], env=settings, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        self.stack.callback(stop, child)
        return child.pid

    def wait_until_ready(self, name: str, pid: int, url: str) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if get(url).status == 200:
                    return
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                break
            time.sleep(0.05)
        tail = (self.folder / f"{name}.log").read_text(errors="replace")[-2000:]
        raise BenchError(f"{name} did not become ready\n{tail}")


def stop(child: subprocess.Popen[bytes]) -> None:
    child.send_signal(signal.SIGTERM)
    try:
        child.wait(20)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@dataclass(frozen=True)
class Homeserver:
    """A real Synapse with one user."""

    url: str
    pid: int
    token: str

    @classmethod
    def start(cls, place: Place, script: Path, **settings: Any) -> Homeserver:
        """Starts one with more keys of homeserver.yaml."""
        folder = place.folder / "synapse"
        quiet = place.folder / "synapse-log.json"
        quiet.write_text(json.dumps({"version": 1, "root": {"level": "WARNING"}}))

        def call(*arguments: str | Path) -> str:
            command = [sys.executable, script, *arguments]
            return subprocess.run(command, check=True, cwd=CRATE, stdout=subprocess.PIPE, text=True).stdout

        place.stack.callback(call, "stop", "--dir", folder)
        settings = {"log_config": str(quiet)} | settings
        more = [word for key, value in settings.items() for word in ("--set", f"{key}={json.dumps(value)}")]
        about = json.loads(call("start", "--dir", folder, "--python", sys.executable, *more))
        secret = about["registration_shared_secret"]
        user = json.loads(call("user", "--url", about["url"], f"--secret={secret}", "--name", "bench"))
        return cls(about["url"], about["pid"], user["access_token"])


def start_nginx(place: Place, name: str, template: str, upstream: str, cpus: Sequence[int]) -> tuple[str, int]:
    folder = place.folder / name
    folder.mkdir()
    port = free_port()
    values = {
        "DIR": folder,
        "PORT": port,
        "UPSTREAM": urlsplit(upstream).netloc,
        "THREADS": len(place.cpus.server),
        "USER": getpass.getuser(),
        "GROUP": grp.getgrgid(os.getgid()).gr_name,
    }
    text = (TEMPLATES / template).read_text()
    for key, value in values.items():
        text = text.replace(f"@{key}@", str(value))
    (folder / "nginx.conf").write_text(text)
    pid = place.spawn(name, ["nginx", "-e", "stderr", "-p", folder, "-c", folder / "nginx.conf"], cpus)
    place.wait_until_ready(name, pid, f"http://127.0.0.1:{port}{VERSIONS}")
    return f"http://127.0.0.1:{port}", pid


def start_source(place: Place, tls: bool = False) -> tuple[str, str]:
    """The scripted homeserver of source.py; returns its URL, and the name it has as another server."""
    port, tls_port = free_port(), free_port()
    command: list[str | Path] = [sys.executable, "-B", CRATE / "benches" / "source.py", "--port", str(port)]
    if tls:
        certificate = place.folder / "source.pem"
        words = (
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
            " -addext basicConstraints=critical,CA:FALSE -addext subjectAltName=IP:127.0.0.1"
        )
        files: list[str | Path] = ["-keyout", certificate, "-out", certificate.with_suffix(".crt")]
        subprocess.run(["openssl", *words.split(), *files], check=True, capture_output=True)
        with certificate.open("a") as file:
            file.write(certificate.with_suffix(".crt").read_text())
        command += ["--tls-port", str(tls_port), "--certificate", certificate]
    pid = place.spawn("source", command, place.cpus.load)
    place.wait_until_ready("source", pid, f"http://127.0.0.1:{port}{VERSIONS}")
    return f"http://127.0.0.1:{port}", f"127.0.0.1:{tls_port}"


def start_mediary(place: Place, binary: Path, upstream: str, more: str = "") -> tuple[str, int]:
    port, admin = free_port(), free_port()
    config = place.folder / "mediary.toml"
    config.write_text(
        f"""[server]
listen = ["127.0.0.1:{port}"]
admin_listen = "127.0.0.1:{admin}"
threads = {len(place.cpus.server)}

[homeserver]
url = "{upstream}"

[storage]
path = "{place.folder}/mediary"

[log]
requests = false

# On, so that what they cost is measured, and never met.
[limits]
user_requests_per_second = 4_000_000_000
user_requests_burst = 4_000_000_000
user_bytes_per_second = "1 TiB"
user_bytes_burst = "1 TiB"

{more}"""
    )
    pid = place.spawn("mediary", [binary, "run", "--config", config], place.cpus.server)
    place.wait_until_ready("mediary", pid, f"http://127.0.0.1:{admin}/ready")
    return f"http://127.0.0.1:{port}", pid


def federation(place: Place, certificate: Path | None = None) -> str:
    """Settings for a Mediary that asks other servers itself, on loopback, with a key of its own."""
    key = place.folder / "signing.key"
    key.touch(mode=0o600)
    key.write_text(f"ed25519 bench {base64.b64encode(random.randbytes(32)).decode()}\n")
    believed = f'ca_file = "{certificate}"\n' if certificate else ""
    return f'[federation]\nsigning_key = "{key}"\nallow_networks = ["127.0.0.0/8"]\nask_homeserver = false\n{believed}'


LUA = """
wrk.headers["Authorization"] = os.getenv("BENCH_AUTHORIZATION")
function done(summary, latency)
  local e = summary.errors
  io.write(string.format(
    '\\nRESULT {"us":%d,"requests":%d,"bytes":%d,"p50_us":%d,"p99_us":%d,'
    .. '"errors":{"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d}}\\n',
    summary.duration, summary.requests, summary.bytes,
    latency:percentile(50), latency:percentile(99),
    e.connect, e.read, e.write, e.status, e.timeout))
end
"""


class Wrk:
    """wrk on the CPUs of the load; says what it saw."""

    def __init__(self, place: Place) -> None:
        self.cpus = place.cpus
        self.script = place.folder / "report.lua"
        self.script.write_text(LUA)

    def run(self, url: str, token: str, connections: int, seconds: int) -> dict[str, Any]:
        threads = min(len(self.cpus.load), connections)
        command = ["taskset", "-c", ",".join(map(str, self.cpus.load)), "wrk", f"-t{threads}"]
        command += [f"-c{connections}", f"-d{seconds}s", "--timeout", "20s", "--latency"]
        command += ["-s", str(self.script), url]
        environment = os.environ | {"BENCH_AUTHORIZATION": f"Bearer {token}"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds + 60)
        for line in done.stdout.splitlines():
            if line.startswith("RESULT "):
                result: dict[str, Any] = json.loads(line.removeprefix("RESULT "))
                return result
        raise BenchError(f"wrk gave no result: {done.stdout[-200:]} {done.stderr[-200:]}")


# --- the report -------------------------------------------------------------------------


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


@dataclass(frozen=True)
class Goal:
    """What every run has to keep to."""

    sign: str  # "≤", "<", "=" or "≥"
    limit: float

    def met_by(self, value: float) -> bool:
        compare = {"≤": operator.le, "<": operator.lt, "=": operator.eq, "≥": operator.ge}
        return bool(compare[self.sign](value, self.limit))


@dataclass
class Figure:
    """One thing that is measured in every run."""

    label: str
    form: str = "{:,.1f}"
    goal: Goal | None = None
    values: list[float] = dataclasses.field(default_factory=list)

    def met(self) -> bool:
        return self.goal is None or all(map(self.goal.met_by, self.values))

    def row(self) -> list[str]:
        show = self.form.format
        spread = [show(f(self.values)) for f in (min, median, max)] if self.values else ["–"] * 3
        if self.goal is None:
            return [self.label, *spread, "", ""]
        verdict = "yes" if self.values and self.met() else "**no**"
        return [self.label, *spread, f"{self.goal.sign} {self.goal.limit:g}", verdict]


def figures_table(figures: Iterable[Figure]) -> str:
    """Lowest, median and highest of all runs; a goal counts as met if every run met it."""
    return table(["", "min", "median", "max", "goal", "met"], [figure.row() for figure in figures])


def foreign_load() -> float:
    """The share of the machine's CPU time that somebody else uses, over one second."""

    def busy_and_total() -> tuple[int, int]:
        times = list(map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]))
        return sum(times) - times[3] - times[4], sum(times)  # without idle and iowait

    before = busy_and_total()
    time.sleep(1)
    after = busy_and_total()
    return (after[0] - before[0]) / max(1, after[1] - before[1])


def machine(cpus: Cpus) -> str:
    model = "unknown CPU"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    kernel = os.uname().release.split("-")[0]
    return f"{model}, {os.cpu_count()} CPUs, Linux {kernel}, {len(cpus.server)} serving thread(s)"


def publish(mode: str, text: str, raw: dict[str, Any]) -> None:
    BENCH_DIR.mkdir(parents=True, exist_ok=True)
    (BENCH_DIR / f"{mode}.md").write_text(text)
    (BENCH_DIR / f"{mode}.json").write_text(json.dumps(raw, indent=1) + "\n")
    print(text)
    say(f"written to target/bench/{mode}.md and {mode}.json")
