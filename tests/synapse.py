#!/usr/bin/env python3
"""Runs a real, unmodified Synapse on loopback for the demo, the tests and the benchmarks.

    synapse.py start --dir DIR    set up (once), start, wait until it answers, print one JSON line
    synapse.py stop  --dir DIR    stop it, and wait until it is gone
    synapse.py user  --url URL --secret SECRET --name NAME    an account and its token, as JSON
    synapse.py ports COUNT        that many free ports, for what is started beside it

Everything an instance owns is in DIR: configuration, signing key, SQLite database, media, log.
Starting again in the same DIR continues with them, under the same server name. Instances in
different folders may be started at the same time. Needs nothing beyond the standard library;
Synapse itself runs on the interpreter given by --python.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import itertools
import json
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parent.parent

# Below the range the kernel hands out by itself, so that no outgoing connection takes the port
# before Synapse has it.
FREE_PORTS = range(18_000, 28_000)
PORT_ATTEMPTS = 5
ADDRESS_IN_USE = "Address already in use"

POLL = 0.02  # seconds between two looks at a process that is starting or stopping
STOP_PATIENCE = 10.0  # seconds between SIGTERM and SIGKILL
LOG_TAIL = 25  # lines shown of a Synapse that did not start

# No proxy from the environment: everything here is on loopback.
HTTP = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Failure(Exception):
    """A reason to end that the person at the terminal should read."""


class PortTaken(Failure):
    """Another process was faster at the chosen port."""


@dataclass(frozen=True)
class Instance:
    """The files of one Synapse, and the process they tell of."""

    dir: Path

    @property
    def config(self) -> Path:
        return self.dir / "homeserver.yaml"

    @property
    def log_config(self) -> Path:
        return self.dir / "log.yaml"

    @property
    def log(self) -> Path:
        return self.dir / "homeserver.log"

    @property
    def signing_key(self) -> Path:
        return self.dir / "signing.key"

    @property
    def state(self) -> Path:
        """What stays the same from start to start: server name, port, secrets."""
        return self.dir / "instance.json"

    @property
    def pid_file(self) -> Path:
        return self.dir / "synapse.pid"

    def running(self) -> int | None:
        """The process id of this very instance, or None when it does not run."""
        try:
            pid = int(self.pid_file.read_text())
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return None
        # The number may belong to somebody else by now; a zombie has no arguments.
        return pid if os.fsencode(self.config) in arguments else None

    def key_id(self) -> str:
        """The name of its signing key, which no other instance has."""
        algorithm, version, _ = self.signing_key.read_text().splitlines()[0].split()
        return f"{algorithm}:{version}"

    def log_tail(self, offset: int) -> str:
        """The last lines written to the log since it was `offset` bytes long."""
        with self.log.open("rb") as log:
            log.seek(offset)
            lines = log.read().decode(errors="replace").splitlines()
        return "\n".join(lines[-LOG_TAIL:])


# --- HTTP ----------------------------------------------------------------------------------------


def call(url: str, body: dict[str, Any] | None = None, timeout: float = 30) -> dict[str, Any]:
    """GETs, or POSTs when there is a body; returns the JSON answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with HTTP.open(request, timeout=timeout) as response:
        answer: dict[str, Any] = json.load(response)
    return answer


def refusal(error: urllib.error.HTTPError) -> dict[str, str]:
    """The Matrix error behind an HTTP one."""
    try:
        body = json.load(error)
        return {"errcode": body["errcode"], "error": body["error"]}
    except (ValueError, KeyError, TypeError):
        return {"errcode": "M_UNKNOWN", "error": f"HTTP {error.code}"}


# --- configuration -------------------------------------------------------------------------------


def rate_limits() -> dict[str, Any]:
    """Limits that no test reaches."""
    never = {"per_second": 1_000_000, "burst_count": 1_000_000}
    return {
        "rc_message": never,
        "rc_registration": never,
        "rc_registration_token_validity": never,
        "rc_login": {"address": never, "account": never, "failed_attempts": never},
        "rc_joins": {"local": never, "remote": never},
        "rc_joins_per_room": never,
        "rc_invites": {"per_room": never, "per_user": never, "per_issuer": never},
        "rc_3pid_validation": never,
        "rc_third_party_invite": never,
        "rc_key_requests": never,
        "rc_media_create": never,
        "rc_presence": {"per_user": never},
        "rc_profile": never,
        "rc_reports": never,
        "rc_room_creation": never,
        "rc_user_directory": never,
        "remote_media_download_per_second": "1G",
        "remote_media_download_burst_count": "1G",
        "rc_federation": {"sleep_limit": 1_000_000, "reject_limit": 1_000_000, "concurrent": 100},
    }


def configuration(
    instance: Instance, state: dict[str, Any], args: argparse.Namespace
) -> dict[str, Any]:
    """The whole of homeserver.yaml. Written as JSON, which YAML contains."""
    config: dict[str, Any] = {
        "server_name": state["server_name"],
        "public_baseurl": args.public_baseurl or f"http://127.0.0.1:{state['port']}/",
        "listeners": [
            {
                "type": "http",
                "port": state["port"],
                "bind_addresses": ["127.0.0.1"],
                "x_forwarded": True,
                # Between them they also serve /_matrix/media, /_matrix/*/v1/media and /_matrix/key.
                "resources": [{"names": ["client", "federation"]}],
            }
        ],
        "database": {"name": "sqlite3", "args": {"database": str(instance.dir / "homeserver.db")}},
        "media_store_path": str(instance.dir / "media"),
        "max_upload_size": "50M",
        "signing_key_path": str(instance.signing_key),
        "log_config": str(instance.log_config),
        "registration_shared_secret": state["registration_shared_secret"],
        "macaroon_secret_key": state["macaroon_secret_key"],
        "form_secret": state["form_secret"],
        "enable_registration": False,
        "bcrypt_rounds": 4,
        "presence": {"enabled": False},
        "report_stats": False,
        "trusted_key_servers": [],
        **rate_limits(),
    }
    if args.url_preview:
        # Pages of tests are on loopback, so nothing is forbidden here.
        config |= {"url_preview_enabled": True, "url_preview_ip_range_blacklist": []}
    if args.federation_ca:
        # Its peers are on loopback too, and who stands behind their certificates is made up.
        config |= {
            "federation_custom_ca_list": [str(args.federation_ca)],
            "ip_range_blacklist": [],
            "federation_ip_range_blacklist": [],
        }
    if args.appservice:
        config["app_service_config_files"] = [str(args.appservice)]
    return config | dict(args.set)


LOG_CONFIG = {
    "version": 1,
    "formatters": {
        "line": {"format": "%(asctime)s %(levelname)s %(name)s %(request)s %(message)s"}
    },
    "filters": {"context": {"()": "synapse.logging.context.LoggingContextFilter"}},
    "handlers": {
        "stderr": {"class": "logging.StreamHandler", "formatter": "line", "filters": ["context"]},
    },
    "root": {"level": "INFO", "handlers": ["stderr"]},
    "disable_existing_loggers": False,
}


def application_service(file: Path) -> dict[str, Any]:
    """Reads the registration in `file`, or writes a new one there."""
    if file.exists():
        kept: dict[str, Any] = json.loads(file.read_text())
        return kept
    registration = {
        "id": "bridge",
        "url": None,  # nothing is pushed to it
        "as_token": secrets.token_urlsafe(32),
        "hs_token": secrets.token_urlsafe(32),
        "sender_localpart": "bridge_bot",
        "rate_limited": False,
        "namespaces": {
            "users": [{"exclusive": True, "regex": "@bridge_.*"}],
            "aliases": [],
            "rooms": [],
        },
    }
    write_secret(file, json.dumps(registration, indent=2))
    return registration


def write_secret(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch(mode=0o600)
    file.write_text(text + "\n")


def prepare(instance: Instance, args: argparse.Namespace, port: int) -> dict[str, Any]:
    """Writes the files of the instance, keeping what has to stay the same; returns its state."""
    instance.dir.mkdir(parents=True, exist_ok=True)
    if instance.state.exists():
        state: dict[str, Any] = json.loads(instance.state.read_text())
    else:
        names = ("registration_shared_secret", "macaroon_secret_key", "form_secret")
        # Hexadecimal: what begins with a dash could not be passed on as an argument.
        state = {name: secrets.token_hex(24) for name in names}
    if args.server_name and state.get("server_name", args.server_name) != args.server_name:
        raise Failure(
            f"{instance.dir} belongs to {state['server_name']}; a server cannot change its name"
        )
    state["port"] = port
    state.setdefault("server_name", args.server_name or f"localhost:{port}")

    if not instance.signing_key.exists():
        seed = base64.b64encode(secrets.token_bytes(32)).decode().rstrip("=")
        write_secret(instance.signing_key, f"ed25519 a_{secrets.token_hex(4)} {seed}")
    write_secret(instance.state, json.dumps(state, indent=2))
    write_secret(instance.config, json.dumps(configuration(instance, state, args), indent=2))
    instance.log_config.write_text(json.dumps(LOG_CONFIG, indent=2) + "\n")
    return state


# --- start and stop ------------------------------------------------------------------------------


def can_bind(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def candidate_ports(instance: Instance, wanted: int) -> Iterator[int]:
    """The port asked for; or, for 0, the one the instance had before, then some that look free."""
    if wanted:
        yield wanted
        return
    if instance.state.exists():
        before: int = json.loads(instance.state.read_text())["port"]
        if can_bind(before):
            yield before
    yield from free_ports(PORT_ATTEMPTS)


def ports(args: argparse.Namespace) -> None:
    print(*free_ports(args.count))


def free_ports(count: int) -> Iterator[int]:
    shuffled = random.sample(FREE_PORTS, len(FREE_PORTS))
    return itertools.islice(filter(can_bind, shuffled), count)


def launch(instance: Instance, python: Path, timeout: float) -> int:
    """Starts Synapse and returns its process id once it is this Synapse that answers."""
    with instance.log.open("ab") as log:
        offset = log.tell()
        child = subprocess.Popen(
            [python, "-m", "synapse.app.homeserver", "--config-path", instance.config],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for whoever started us, who then stops Synapse
        )
    try:
        instance.pid_file.write_text(f"{child.pid}\n")
        await_answer(instance, child, offset, time.monotonic() + timeout)
    except BaseException:
        child.kill()
        child.wait()
        instance.pid_file.unlink(missing_ok=True)
        raise
    return child.pid


def await_answer(
    instance: Instance, child: subprocess.Popen[bytes], offset: int, deadline: float
) -> None:
    """Returns when this instance answers; fails with the end of its log when it will not."""
    base = f"http://127.0.0.1:{json.loads(instance.state.read_text())['port']}"
    while not answers(instance, base):
        if child.poll() is not None:
            what = f"Synapse ended with {child.returncode} while starting"
        elif time.monotonic() > deadline:
            what = "Synapse does not answer"
        else:
            time.sleep(POLL)
            continue
        tail = instance.log_tail(offset)
        kind = PortTaken if ADDRESS_IN_USE in tail else Failure
        raise kind(f"{what}; its log, {instance.log}, ends with\n{tail}")


def answers(instance: Instance, base: str) -> bool:
    """Whether it is this Synapse that answers: another may have won a race for the port."""
    try:
        with HTTP.open(f"{base}/health", timeout=5):
            keys = call(f"{base}/_matrix/key/v2/server", timeout=5)["verify_keys"]
    except (OSError, ValueError):
        return False
    return instance.key_id() in keys


def start(args: argparse.Namespace) -> None:
    instance = Instance(args.dir)
    if pid := instance.running():
        raise Failure(f"{instance.dir}: already running as process {pid}")
    if not args.python.exists():
        raise Failure(f"{args.python} is missing: run tests/setup.sh")
    registration = application_service(args.appservice) if args.appservice else {}

    began = time.monotonic()
    for port in candidate_ports(instance, args.port):
        state = prepare(instance, args, port)
        try:
            pid = launch(instance, args.python, args.timeout)
        except PortTaken as failure:
            taken = failure
            continue
        answer = {
            "url": f"http://127.0.0.1:{port}",
            "server_name": state["server_name"],
            "pid": pid,
            "registration_shared_secret": state["registration_shared_secret"],
            "log": str(instance.log),
            "started_in_ms": round((time.monotonic() - began) * 1000),
        }
        if registration:
            answer |= {"as_token": registration["as_token"], "hs_token": registration["hs_token"]}
        print(json.dumps(answer))
        return
    raise taken


def stop(args: argparse.Namespace) -> None:
    instance = Instance(args.dir)
    signals = iter((signal.SIGTERM, signal.SIGKILL))
    deadline = time.monotonic()
    while pid := instance.running():
        if time.monotonic() >= deadline:
            try:
                os.kill(pid, next(signals))
            except ProcessLookupError:
                break
            except StopIteration:
                raise Failure(f"process {pid} cannot be ended") from None
            deadline = time.monotonic() + STOP_PATIENCE
        time.sleep(POLL)
    instance.pid_file.unlink(missing_ok=True)


# --- accounts ------------------------------------------------------------------------------------


def user(args: argparse.Namespace) -> None:
    """Registers an account, which logs it in; with a password, logs in to one that exists."""
    password = args.password or secrets.token_hex(12)
    register = f"{args.url}/_synapse/admin/v1/register"
    nonce = call(register)["nonce"]
    role = "admin" if args.admin else "notadmin"
    mac = hmac.new(
        args.secret.encode(), "\0".join((nonce, args.name, password, role)).encode(), hashlib.sha1
    )
    account = {
        "nonce": nonce,
        "username": args.name,
        "password": password,
        "admin": args.admin,
        "mac": mac.hexdigest(),
    }
    try:
        session = call(register, account)
    except urllib.error.HTTPError as error:
        reason = refusal(error)
        if reason["errcode"] != "M_USER_IN_USE" or not args.password:
            raise Failure(f"{args.name} could not be registered: {reason['error']}") from None
        session = log_in(args.url, args.name, password)
    told = {name: session[name] for name in ("user_id", "access_token", "device_id")}
    print(json.dumps(told | {"password": password}))


def log_in(url: str, name: str, password: str) -> dict[str, Any]:
    identifier = {"type": "m.id.user", "user": name}
    try:
        return call(
            f"{url}/_matrix/client/v3/login",
            {"type": "m.login.password", "identifier": identifier, "password": password},
        )
    except urllib.error.HTTPError as error:
        raise Failure(f"{name} could not be logged in: {refusal(error)['error']}") from None


# --- command line --------------------------------------------------------------------------------


def setting(text: str) -> tuple[str, Any]:
    key, _, value = text.partition("=")
    return key, json.loads(value)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)

    def path(text: str) -> Path:
        return Path(text).absolute()

    starts = commands.add_parser("start", help="set up (once), start, wait until it answers")
    starts.set_defaults(run=start)
    starts.add_argument(
        "--dir", type=path, required=True, help="everything of this instance is kept here"
    )
    starts.add_argument(
        "--port",
        type=int,
        default=0,
        help="port on 127.0.0.1 (0: a free one, the same again if possible)",
    )
    starts.add_argument("--server-name", help="default: localhost:PORT of the first start")
    starts.add_argument(
        "--public-baseurl", help="the URL clients use, when something stands in front"
    )
    starts.add_argument(
        "--appservice", type=path, metavar="FILE", help="application service; written if missing"
    )
    starts.add_argument(
        "--url-preview", action="store_true", help="switch Synapse's own URL previews on"
    )
    starts.add_argument(
        "--federation-ca",
        type=path,
        metavar="FILE",
        help="a certificate authority of other servers, which may be on this machine",
    )
    starts.add_argument(
        "--set",
        type=setting,
        action="append",
        default=[],
        metavar="KEY=JSON",
        help="any other key of homeserver.yaml, e.g. max_upload_size='\"1M\"'",
    )
    starts.add_argument(
        "--python", type=path, default=ROOT / "target/venv/bin/python", help="default: %(default)s"
    )
    starts.add_argument(
        "--timeout", type=float, default=60, help="seconds until it must answer (%(default)s)"
    )

    stops = commands.add_parser("stop", help="stop, and wait until it is gone")
    stops.set_defaults(run=stop)
    stops.add_argument("--dir", type=path, required=True)

    users = commands.add_parser(
        "user", help="create an account, or log in to it, and print its token"
    )
    users.set_defaults(run=user)
    users.add_argument("--url", required=True, help="of Synapse, or of what stands in front of it")
    users.add_argument("--secret", required=True, help="the registration_shared_secret")
    users.add_argument("--name", required=True, help="local part of the user id")
    users.add_argument("--password", help="default: a random one")
    users.add_argument("--admin", action="store_true", help="a server administrator")

    frees = commands.add_parser("ports", help="print free ports on 127.0.0.1")
    frees.set_defaults(run=ports)
    frees.add_argument("count", type=int, nargs="?", default=1)
    return parser.parse_args()


def terminated(*_: object) -> NoReturn:
    sys.exit(128 + signal.SIGTERM)


def main() -> None:
    signal.signal(signal.SIGTERM, terminated)
    args = arguments()
    try:
        args.run(args)
    except Failure as failure:
        sys.exit(f"synapse.py: {failure}")
    except OSError as error:
        sys.exit(f"synapse.py: {getattr(args, 'url', args.dir if 'dir' in args else '')}: {error}")
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main()
