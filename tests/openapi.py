#!/usr/bin/env python3
"""Holds recorded answers against the OpenAPI files of the Matrix specification in tests/spec.

    openapi.py DIR              what tests have recorded there (tests/common/record.rs)
    openapi.py DIR --partial    not all tests have run: what was never seen is no failure

Prints for each operation how often each status was seen; `*` marks statuses that the files do not list. Fails on every
answer that is not as the specification has it, by the schemas of the files and by a few rules that they have in words
alone, and on every status that the files list and that no test has seen, unless EXCUSED says why. Needs PyYAML and
jsonschema, which come with Synapse: run it with target/venv/bin/python.
"""

from __future__ import annotations

import argparse
import functools
import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import jsonschema
import yaml

SPEC = Path(__file__).resolve().parent / "spec"

# The files, and where their paths begin.
FILES = [
    ("client-server/content-repo.yaml", "/_matrix"),
    ("client-server/authed-content-repo.yaml", "/_matrix/client/v1"),
    ("client-server/whoami.yaml", "/_matrix/client/v3"),
    ("client-server/versions.yaml", "/_matrix/client"),
    ("server-server/content_repository.yaml", "/_matrix/federation/v1"),
]

# What Mediary answers itself. Everything else passes through, and is its homeserver's to get right.
MEDIA = re.compile(
    r"/_matrix/(media|client/v1/media|federation/v1/media"
    r"|(client|federation)/unstable/org\.matrix\.msc3916(\.v2)?/media)(/|$)"
)

# Other names of the same routes: older and unreleased ones.
ALIASES = [
    (r"/_matrix/media/(?:r0|v1)/(?=(?:upload|preview_url|config)$|(?:download|thumbnail)/)", "/_matrix/media/v3/"),
    (r"/_matrix/media/unstable/fi\.mau\.msc2246/create$", "/_matrix/media/v1/create"),
    (r"/_matrix/media/unstable/fi\.mau\.msc2246/upload/", "/_matrix/media/v3/upload/"),
    (r"/_matrix/client/unstable/org\.matrix\.msc3916/media/", "/_matrix/client/v1/media/"),
    (r"/_matrix/federation/unstable/org\.matrix\.msc3916\.v2/media/", "/_matrix/federation/v1/media/"),
]

# CS-CORS-04, CS-CORS-05
CORS = {
    "access-control-allow-origin": {"*"},
    "access-control-allow-methods": {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"},
    "access-control-allow-headers": {"X-Requested-With", "Content-Type", "Authorization"},
}

# What a browser may show in place (checklist section 8).
INLINE = set(
    """
    text/css text/plain text/csv application/json application/ld+json
    image/jpeg image/gif image/png image/apng image/webp image/avif
    video/mp4 video/webm video/ogg video/quicktime
    audio/mp4 audio/webm audio/aac audio/mpeg audio/ogg audio/wave audio/wav audio/x-wav audio/x-pn-wav audio/flac
    audio/x-flac
    """.split()
)

# Statuses that the files do not list for a route and that any route may have, with a standard error.
COMMON_ERRORS = {
    400: "identifiers, parameters and bodies that are malformed",
    401: "the rules of tokens, which hold for every route that asks for one (CS-AUTH-04 to CS-AUTH-08)",
    403: "what the homeserver says of the account, or of the media to that account (CS-AUTH-09, CS-WHO-02)",
    404: "unknown media, or an unknown path (CS-DL-12, CS-GEN-05)",
    405: "another method (CS-GEN-06)",
    408: "HTTP: the request took too long to arrive",
    413: "HTTP: a body that is too large for what it is sent to, or the homeserver's word on its own media (CS-DL-13)",
    414: "HTTP: a target that is longer than any that is meant",
    416: "HTTP: a range past the end",
    429: "any limit (CS-RL-01)",
    431: "HTTP: more header fields, or larger ones, than are taken",
    500: "the store failed",
    502: "the homeserver cannot be reached or misbehaves (CS-DL-17)",
    503: "something of Mediary's own is overloaded",
    504: "the homeserver was too slow",
    507: "the disk is full",
}

# Statuses of HTTP itself that come in the place of a 200, and have its header fields.
INSTEAD_OF_200 = {
    206: "a part of the file",
    304: "the client has the file already; nothing but the fields of a cache needs to be there",
}

# What may be said where no operation is known: unknown paths, wrong methods, and what any request may hear.
NO_ROUTE = {400, 404, 405, 408, 414, 429, 431, 503}

# The one code that a status has wherever it is used.
CODES = {
    405: {"M_UNRECOGNIZED"},
    409: {"M_CANNOT_OVERWRITE_MEDIA", "FI.MAU.MSC2246_CANNOT_OVERWRITE_MEDIA"},
    413: {"M_TOO_LARGE"},
    429: {"M_LIMIT_EXCEEDED"},
}

# Tests in which a homeserver leaves out the text of an error, to see its words relayed to the byte (CS-AUTH-06).
WITHOUT_TEXT = {"what_the_homeserver_says_of_a_session_is_relayed_to_the_byte"}

# (operation, status) pairs of the files that no test sees, by patterns, and why.
EXCUSED: list[tuple[str, str, str]] = [
    (r"GET .*/thumbnail/.*", r"30[78]", "thumbnails are made here; of a body that is elsewhere there is none"),
    (r"GET .*/whoami", r"403|429", "the homeserver that tests make up says so by script alone, as each test words it"),
]


@dataclass
class Operation:
    """A method and path of the files, and what is said of the answers."""

    method: str
    path: str
    answers: dict[str, Any]
    pattern: re.Pattern[str] = field(init=False)

    def __post_init__(self) -> None:
        parts = re.split(r"\{\w+\}", self.path)
        self.pattern = re.compile("[^/]*".join(map(re.escape, parts)))

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"


class Document:
    """A file whose references can be followed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.content = yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))

    def resolve(self, node: Any) -> Any:
        """Returns a node with every reference in it, however deep, replaced by what it names."""
        if isinstance(node, list):
            return [self.resolve(item) for item in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            name, _, pointer = node["$ref"].partition("#")
            document = load((self.path.parent / name).resolve()) if name else self
            target = document.content
            for step in filter(None, pointer.split("/")):
                target = target[step]
            return document.resolve(target)
        return {key: self.resolve(value) for key, value in node.items()}


load = functools.cache(Document)


@functools.cache
def operations() -> list[Operation]:
    """Returns every operation of the files."""
    found = []
    for name, base in FILES:
        document = load(SPEC / name)
        for path, methods in document.content["paths"].items():
            for method, content in methods.items():
                answers = document.resolve(content["responses"])
                found.append(Operation(method.upper(), base + path, answers))
    return found


class Answer:
    """A recorded answer and what it is for."""

    def __init__(self, record: dict[str, Any]) -> None:
        self.server: str = record["server"]
        self.test: str = record["test"]
        self.method: str = record["method"]
        self.target: str = record["target"]
        self.path, _, self.query = self.target.partition("?")
        self.status: int = record["status"]
        self.headers: dict[str, str] = {}
        for key, value in record["headers"]:
            self.headers[key] = f"{self.headers[key]}, {value}" if key in self.headers else value
        self.length: int = record["length"]
        self.body: str | None = record["body"]

    @property
    def is_mediarys(self) -> bool:
        return self.server == "mediary"

    @property
    def essence(self) -> str:
        return self.headers.get("content-type", "").split(";")[0].strip().lower()

    def json(self) -> Any:
        """Returns the body, or None if it is none or no JSON."""
        try:
            return json.loads(self.body or "")
        except ValueError:
            return None


class Judge:
    """Holds answers against the files, one after the other."""

    def __init__(self) -> None:
        self.operations = operations()
        self.seen: dict[str, Counter[int]] = defaultdict(Counter)
        # Operations and statuses that were seen with the meaning that the files give them.
        self.shown: set[tuple[str, str]] = set()
        # What is wrong, and the answers of which it was said.
        self.wrong: dict[str, list[Answer]] = defaultdict(list)

    def find(self, answer: Answer) -> Operation | None:
        """Returns the operation that an answer is of."""
        path = answer.path
        for pattern, name in ALIASES:
            path = re.sub(rf"\A{pattern}", name, path)
        method = "GET" if answer.method == "HEAD" else answer.method
        found = (it for it in self.operations if it.method == method and it.pattern.fullmatch(path))
        return next(found, None)

    def take(self, answer: Answer) -> None:
        """Judges an answer, if it is one that somebody here is responsible for."""
        if answer.is_mediarys and not MEDIA.match(answer.path):
            return
        for problem in self.judge(answer):
            self.wrong[f"{answer.status}: {problem}"].append(answer)

    def judge(self, answer: Answer) -> Iterator[str]:
        # Other servers run no scripts of strangers.
        if answer.is_mediarys and not answer.path.startswith("/_matrix/federation/"):
            yield from cors(answer)
        if answer.method == "OPTIONS":
            self.seen["OPTIONS"][answer.status] += 1
            if answer.status != 204 or answer.length:
                yield "a pre-flight is 204 without a body (CS-CORS-02)"
            return
        operation = self.find(answer)
        name = operation.name if operation else "what is no route"
        # What the homeserver of the tests says is not what Mediary was seen to say.
        self.seen[name if answer.is_mediarys else f"{answer.server}: {name}"][answer.status] += 1
        if operation is None:
            if answer.status not in NO_ROUTE:
                yield "a status for what is no route (CS-GEN-05, CS-GEN-06)"
            yield from standard_error(answer)
            if answer.status in (404, 405) and errcode(answer) not in (None, "M_UNRECOGNIZED"):
                yield f"{errcode(answer)} in the place of M_UNRECOGNIZED"
            return
        yield from self.judge_for(operation, answer)

    def judge_for(self, operation: Operation, answer: Answer) -> Iterator[str]:
        listed = operation.answers.get(str(answer.status))
        if listed is not None:
            is_shown = errcode(answer) in meant(listed, answer.status)
            if is_shown and answer.is_mediarys == bool(MEDIA.match(operation.path)):
                self.shown.add((operation.name, str(answer.status)))
            yield from as_listed(listed, answer)
        elif answer.status in INSTEAD_OF_200 and operation.method == "GET":
            if answer.status == 206:
                yield from as_listed(operation.answers["200"], answer)
        elif answer.status not in COMMON_ERRORS:
            yield "a status that neither the operation lists nor any route may have"
        if answer.status >= 400:
            yield from standard_error(answer)
        elif answer.is_mediarys:
            yield from prose(operation, answer)

    def problems(self) -> Iterator[str]:
        """Yields what is wrong, with the first answer and test that show it."""
        for problem, answers in self.wrong.items():
            first = answers[0]
            yield f"{problem}\n    {len(answers)} times, first {first.method} {first.target} in {first.test}"

    def unseen(self) -> tuple[list[str], list[str]]:
        """Returns what is listed and was never seen, and the excuses that nobody needs."""
        missing, used = [], set()
        for operation in self.operations:
            for status in sorted(operation.answers):
                fitting = [
                    number
                    for number, (name, statuses, _) in enumerate(EXCUSED)
                    if re.fullmatch(name, operation.name) and re.fullmatch(statuses, status)
                ]
                if (operation.name, status) in self.shown:
                    continue
                used.update(fitting)
                if not fitting:
                    missing.append(f"{operation.name}: {status} as it is meant there was seen by no test")
        needless = [f"{it[0]} {it[1]}" for number, it in enumerate(EXCUSED) if number not in used]
        return missing, needless

    def report(self) -> Iterator[str]:
        """Yields a line for each operation: how often each status was seen."""
        listed = {operation.name: set(operation.answers) for operation in self.operations}
        for name, statuses in sorted(self.seen.items()):
            known = listed.get(name.split(": ")[-1], set())
            counts = (
                f"{status}{'' if str(status) in known else '*'} x {count}" for status, count in sorted(statuses.items())
            )
            if statuses:
                yield f"{name}\n    {', '.join(counts)}"


def cors(answer: Answer) -> Iterator[str]:
    """Yields what is missing of the CORS fields (CS-CORS-01)."""
    for name, wanted in CORS.items():
        said = {word.strip() for word in answer.headers.get(name, "").split(",")}
        if not wanted <= said:
            yield f"{name} lacks {', '.join(sorted(wanted - said))}"


def errcode(answer: Answer) -> str | None:
    body = answer.json()
    return body.get("errcode") if isinstance(body, dict) else None


def meant(listed: dict[str, Any], status: int) -> set[str | None]:
    """Returns the codes that the files give a status: those of its examples. What is no error has none."""
    examples = listed.get("content", {}).get("application/json", {}).get("examples", {})
    named = {example["value"].get("errcode") for example in examples.values()}
    return named or set(CODES.get(status, {None}))


def standard_error(answer: Answer) -> Iterator[str]:
    """Yields what keeps an answer from being a standard error (CS-GEN-01, CS-GEN-03)."""
    if answer.status == 405 and not answer.headers.get("allow"):
        yield "405 without Allow"
    if answer.essence != "application/json":
        yield f"an error of type {answer.essence or 'none'}"
        return
    if answer.method == "HEAD":
        return
    body = answer.json()
    if not isinstance(body, dict):
        yield "an error that is no JSON object"
        return
    for key in ("errcode",) if answer.test in WITHOUT_TEXT else ("errcode", "error"):
        if not isinstance(body.get(key), str) or not body[key]:
            yield f"an error without {key}"
    codes = CODES.get(answer.status)
    if codes and body.get("errcode") not in codes:
        yield f"{body.get('errcode')} in the place of {' or '.join(sorted(codes))}"


def as_listed(listed: dict[str, Any], answer: Answer) -> Iterator[str]:
    """Yields where an answer is not as the files list it: header fields, content type, JSON."""
    for name, header in listed.get("headers", {}).items():
        value = answer.headers.get(name.lower())
        if value is None:
            if header.get("required"):
                yield f"no {name}"
            continue
        schema = dict(header.get("schema", {}))
        yield from breaches(schema, value.split(";")[0] if "enum" in schema else value, name)
    if answer.status in (307, 308) and "location" not in answer.headers:
        yield "no Location (CS-HDR-10)"
    content = listed.get("content")
    if not content:
        return
    # Of a file only the declared type is known.
    if set(content) != {"application/octet-stream"} and answer.essence not in content:
        yield f"a body of type {answer.essence or 'none'}, not {' or '.join(sorted(content))}"
    elif answer.essence == "multipart/mixed" and "boundary=" not in answer.headers["content-type"]:
        yield "no boundary"
    schema = content.get("application/json", {}).get("schema")
    if schema and answer.method != "HEAD":
        body = answer.json()
        if answer.body is None or body is None:
            yield "a body that is no JSON"
        else:
            yield from breaches(schema, body, "body")


def prose(operation: Operation, answer: Answer) -> Iterator[str]:
    """Yields where an answer is not as the files describe it in words alone, or the text beside them."""
    headers = answer.headers
    if answer.status in (307, 308):
        asked = parse_qs(answer.query).get("allow_redirect") == ["true"]
        if operation.path.startswith("/_matrix/media/") and not asked:
            yield "a redirect that was not asked for (CS-DL-06)"
        return
    if answer.status == 206 and not headers.get("content-range", "").startswith("bytes "):
        yield "a part without Content-Range"
    if not re.search("/(download|thumbnail)/", operation.path) or "/federation/" in operation.path:
        return
    cache = headers.get("cache-control", "")
    if "/client/" in operation.path and not re.search("private|no-store", cache):
        yield f"shared caches may keep this: {cache or 'no Cache-Control'} (CS-DL-16)"
    if not headers.get("content-security-policy", "").startswith("sandbox; default-src 'none'; script-src 'none'"):
        yield "no Content-Security-Policy as it is recommended (CS-HDR-08)"
    if headers.get("cross-origin-resource-policy") != "cross-origin":
        yield "no Cross-Origin-Resource-Policy: cross-origin (CS-HDR-09)"
    if answer.status == 304:
        return
    disposition = headers.get("content-disposition", "").split(";")[0]
    if disposition not in ("inline", "attachment"):
        yield f"a disposition of {disposition or 'none'} (CS-HDR-02)"
    if disposition == "inline" and answer.essence not in INLINE:
        yield f"{answer.essence} is inline (CS-HDR-03, CS-INL-01)"
    if "/thumbnail/" in operation.path and disposition != "inline":
        yield "a thumbnail that is not inline (CS-HDR-06)"


def breaches(schema: dict[str, Any], value: Any, what: str) -> Iterator[str]:
    for error in jsonschema.Draft202012Validator(schema).iter_errors(value):
        yield f"{what}: {error.message}"


def records(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text().splitlines():
            # How the tokens begin that Synapse and the homeserver of the tests give out.
            if "syt_" in line:
                sys.exit(f"{path}: a token was recorded")
            yield json.loads(line)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--partial", action="store_true", help="not all tests have run")
    arguments = parser.parse_args()

    judge = Judge()
    for record in records(arguments.folder):
        judge.take(Answer(record))
    for line in judge.report():
        print(line)
    problems = list(judge.problems())
    if not arguments.partial:
        missing, needless = judge.unseen()
        problems += missing
        for excuse in needless:
            print(f"no longer needed in EXCUSED: {excuse}")
    count = sum(sum(statuses.values()) for statuses in judge.seen.values())
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems or not (count or arguments.partial):
        print(f"{len(problems)} problems in {count} answers", file=sys.stderr)
        return 1
    print(f"{count} answers are as the specification has them")
    return 0


if __name__ == "__main__":
    sys.exit(main())
