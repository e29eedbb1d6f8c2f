#!/usr/bin/env python3
"""Feeds openapi.py answers that are right and answers that are not, and sees it tell them apart."""

from __future__ import annotations

import json
import unittest
from typing import Any

from openapi import Answer, Judge, operations

LEGACY = "/_matrix/media/v3/download/example.org/abc"
DOWNLOAD = "/_matrix/client/v1/media/download/example.org/abc"
THUMBNAIL = "/_matrix/client/v1/media/thumbnail/example.org/abc"
CREATE = "/_matrix/media/v1/create"

CORS = {
    "access-control-allow-origin": "*",
    "access-control-allow-methods": "GET, HEAD, POST, PUT, DELETE, OPTIONS",
    "access-control-allow-headers": "X-Requested-With, Content-Type, Authorization",
}
JSON = {"content-type": "application/json"}
SAFE = {
    "content-security-policy": "sandbox; default-src 'none'; script-src 'none'; object-src 'self';",
    "cross-origin-resource-policy": "cross-origin",
    "cache-control": "private, max-age=5",
}
FILE = {**SAFE, "content-type": "img/png", "content-disposition": "attachment; filename=a"}
PICTURE = {**SAFE, "content-type": "image/png", "content-disposition": "inline; filename=thumbnail.png"}
PART = {"content-range": "bytes 0-1/5"}
ELSEWHERE = {"location": "https://cdn.example/a"}


def answer(
    method: str, target: str, status: int, headers: dict[str, str], body: Any = None, server: str = "mediary"
) -> Answer:
    """Makes a record as tests write it; CORS fields are added where `headers` does not have them."""
    text = body if body is None or isinstance(body, str) else json.dumps(body)
    headers = {**CORS, **headers}
    return Answer(
        {
            "server": server,
            "test": "",
            "method": method,
            "target": target,
            "status": status,
            "headers": [[name, value] for name, value in headers.items() if value],
            "length": len(text or ""),
            "body": text,
        }
    )


def error(errcode: str) -> dict[str, str]:
    return {"errcode": errcode, "error": "Words"}


def problems(*what: Any, **more: Any) -> list[str]:
    judge = Judge()
    judge.take(answer(*what, **more))
    return list(judge.problems())


class Good(unittest.TestCase):
    """What may not be refused."""

    def test_answers_of_every_kind(self) -> None:
        created = {"content_uri": "mxc://example.org/abc", "unused_expires_at": 1}
        for what in [
            ("GET", DOWNLOAD, 200, FILE),
            ("HEAD", DOWNLOAD, 200, FILE),
            ("GET", DOWNLOAD + "/name", 206, {**FILE, **PART}),
            ("GET", DOWNLOAD, 304, SAFE),
            ("GET", DOWNLOAD, 307, ELSEWHERE),
            ("GET", LEGACY + "?allow_redirect=true", 308, ELSEWHERE),
            ("GET", LEGACY, 200, {**FILE, "cache-control": "public"}),
            ("GET", DOWNLOAD, 404, JSON, error("M_NOT_FOUND")),
            ("HEAD", DOWNLOAD, 404, JSON),
            ("GET", DOWNLOAD, 416, JSON, error("M_UNKNOWN")),
            ("GET", DOWNLOAD, 504, JSON, error("M_NOT_YET_UPLOADED")),
            ("GET", THUMBNAIL + "?width=1", 200, PICTURE),
            ("POST", CREATE, 200, JSON, created),
            ("POST", "/_matrix/media/unstable/fi.mau.msc2246/create", 200, JSON, created),
            ("POST", CREATE, 429, JSON, {**error("M_LIMIT_EXCEEDED"), "retry_after_ms": 5}),
            ("PUT", "/_matrix/media/v3/upload/example.org/abc", 200, JSON, {}),
            ("GET", "/_matrix/media/r0/config", 200, JSON, {"m.upload.size": 1}),
            ("GET", "/_matrix/media/v3/nonsense", 404, JSON, error("M_UNRECOGNIZED")),
            ("DELETE", DOWNLOAD, 405, {**JSON, "allow": "GET"}, error("M_UNRECOGNIZED")),
            ("OPTIONS", DOWNLOAD, 204, {}),
            (
                "GET",
                "/_matrix/federation/v1/media/download/abc",
                200,
                {"content-type": "multipart/mixed; boundary=abc"},
            ),
            # Not Mediary's own.
            ("GET", "/_matrix/client/v3/sync", 418, {name: "" for name in CORS}),
        ]:
            with self.subTest(what[:3]):
                self.assertEqual(problems(*what), [])

    def test_what_the_homeserver_of_the_tests_says(self) -> None:
        whoami = "/_matrix/client/v3/account/whoami"
        self.assertEqual(problems("GET", whoami, 200, JSON, {"user_id": "@a:b"}, server="made up"), [])


class Bad(unittest.TestCase):
    """What has to be found."""

    def expect(self, problem: str, *what: Any, **more: Any) -> None:
        found = problems(*what, **more)
        self.assertTrue(any(problem in one for one in found), f"{problem!r} is not in {found}")

    def test_statuses(self) -> None:
        self.expect("neither the operation", "GET", DOWNLOAD, 418, JSON, error("M_UNKNOWN"))
        self.expect("neither the operation", "POST", CREATE, 201, JSON, {})
        self.expect("neither the operation", "GET", DOWNLOAD, 302, {"location": "/"})
        self.expect("neither the operation", "POST", CREATE, 304, {})
        self.expect("no route", "GET", "/_matrix/media/v9/config", 200, JSON, {})
        self.expect("a pre-flight", "OPTIONS", DOWNLOAD, 401, JSON, error("M_MISSING_TOKEN"))

    def test_cors_fields(self) -> None:
        for name in CORS:
            for what in [
                ("GET", DOWNLOAD, 200, {**FILE, name: ""}),
                ("GET", DOWNLOAD, 404, {**JSON, name: ""}, error("M_NOT_FOUND")),
                ("GET", DOWNLOAD, 308, {**ELSEWHERE, name: ""}),
                ("OPTIONS", DOWNLOAD, 204, {name: ""}),
            ]:
                self.expect(f"{name} lacks", *what)
        self.expect("lacks *", "GET", DOWNLOAD, 304, {"access-control-allow-origin": "https://a.example"})

    def test_errors(self) -> None:
        self.expect("of type text/html", "GET", DOWNLOAD, 502, {"content-type": "text/html"}, "<html>")
        self.expect("of type none", "GET", DOWNLOAD, 401, {})
        self.expect("no JSON object", "GET", DOWNLOAD, 404, JSON, "nothing")
        self.expect("no JSON object", "GET", DOWNLOAD, 404, JSON, [])
        self.expect("without error", "GET", DOWNLOAD, 404, JSON, {"errcode": "M_NOT_FOUND"})
        self.expect("without errcode", "GET", DOWNLOAD, 404, JSON, {"errcode": 7, "error": "Words"})
        self.expect("M_UNKNOWN in the place", "GET", DOWNLOAD, 429, JSON, error("M_UNKNOWN"))
        self.expect("M_NOT_FOUND in the place", "GET", "/_matrix/media/v3/x", 404, JSON, error("M_NOT_FOUND"))

    def test_header_fields(self) -> None:
        self.expect("no Content-Disposition", "GET", DOWNLOAD, 200, {"content-type": "image/png"})
        self.expect("no Content-Disposition", "HEAD", THUMBNAIL, 200, {"content-type": "image/png"})
        self.expect("no Content-Type", "GET", DOWNLOAD, 206, {"content-disposition": "inline"})
        self.expect("no Location", "GET", DOWNLOAD, 307, {})
        for other in ["image/svg+xml", "application/octet-stream"]:
            self.expect(f"'{other}' is not one of", "GET", THUMBNAIL, 200, {**FILE, "content-type": other})
        for path in ["download", "thumbnail"]:
            target = f"/_matrix/federation/v1/media/{path}/abc"
            self.expect("a body of type image/png", "GET", target, 200, {"content-type": "image/png"})
            self.expect("no boundary", "GET", target, 200, {"content-type": "multipart/mixed"})

    def test_what_the_files_say_in_words(self) -> None:
        for query in ["", "?allow_redirect=false", "?allow_redirect=True"]:
            self.expect("not asked for", "GET", LEGACY + query, 307, ELSEWHERE)
        self.expect("without Content-Range", "GET", DOWNLOAD, 206, FILE)
        self.expect("without Allow", "DELETE", DOWNLOAD, 405, JSON, error("M_UNRECOGNIZED"))
        for status in [200, 304]:
            for cache in ["", "public, max-age=5"]:
                self.expect("shared caches", "GET", DOWNLOAD, status, {**FILE, "cache-control": cache})
            self.expect("CS-HDR-08", "GET", DOWNLOAD, status, {**FILE, "content-security-policy": ""})
            self.expect("CS-HDR-09", "GET", THUMBNAIL, status, {**FILE, "cross-origin-resource-policy": "same-site"})
        self.expect("CS-HDR-02", "GET", DOWNLOAD, 200, {**FILE, "content-disposition": "form-data; filename=a"})
        for content_type in ["text/html", "image/svg+xml", "img/png"]:
            self.expect("CS-INL-01", "GET", DOWNLOAD, 200, {**PICTURE, "content-type": content_type})
        self.expect("CS-HDR-06", "GET", THUMBNAIL, 200, {**PICTURE, "content-disposition": "attachment"})

    def test_bodies(self) -> None:
        self.expect("required property", "POST", CREATE, 200, JSON, {})
        self.expect("does not match", "POST", CREATE, 200, JSON, {"content_uri": "https://a.example"})
        wrong = {"content_uri": "mxc://a/b", "unused_expires_at": "soon"}
        self.expect("is not of type 'integer'", "POST", CREATE, 200, JSON, wrong)
        self.expect("is not of type", "GET", "/_matrix/media/v3/config", 200, JSON, {"m.upload.size": "50M"})
        self.expect("is not of type 'object'", "PUT", "/_matrix/media/v3/upload/a/b", 200, JSON, [])
        self.expect("no JSON", "PUT", "/_matrix/media/v3/upload/a/b", 200, JSON, "")
        whoami = "/_matrix/client/v3/account/whoami"
        self.expect("required property", "GET", whoami, 200, JSON, {}, server="made up")

    def test_what_was_never_seen(self) -> None:
        judge = Judge()
        judge.take(answer("GET", "/_matrix/media/v1/config", 200, JSON, {}))
        judge.take(answer("GET", DOWNLOAD, 504, JSON, error("M_NOT_YET_UPLOADED")))
        # Not what the files mean by it: the homeserver is down.
        judge.take(answer("GET", DOWNLOAD, 502, JSON, error("M_UNKNOWN")))
        missing, _ = judge.unseen()
        for operation, status, is_missing in [
            ("/_matrix/media/v3/config", 200, False),
            ("/_matrix/client/v1/media/config", 200, True),
            ("/_matrix/client/v1/media/download/{serverName}/{mediaId}", 504, False),
            ("/_matrix/client/v1/media/download/{serverName}/{mediaId}", 502, True),
        ]:
            found = any(one.startswith(f"GET {operation}: {status} ") for one in missing)
            self.assertEqual(found, is_missing, (operation, status))


class Files(unittest.TestCase):
    """That the files are read as they are meant."""

    def test_every_route_is_there_and_no_reference_is_left(self) -> None:
        found = operations()
        self.assertEqual(len({operation.name for operation in found}), 17)
        for operation in found:
            self.assertNotIn("$ref", json.dumps(operation.answers))
            self.assertIn("200", operation.answers)


if __name__ == "__main__":
    unittest.main()
