"""matrix-nio through Mediary: what people send each other, and what is refused."""

from __future__ import annotations

import asyncio
import io
import os
import secrets
import unittest
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote

import nio
from nio.crypto.attachments import decrypt_attachment

from suite import (
    ALICE,
    BOB,
    FILENAME,
    MAX_UPLOAD,
    SERVER_NAME,
    UNKNOWN,
    UPSTREAM,
    URL,
    Account,
    picture,
    run,
    size_of,
)

# Nothing is tried twice: what fails once has failed.
ONCE = nio.AsyncClientConfig(max_limit_exceeded=0, max_timeouts=0, encryption_enabled=False)


class Nio(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self) -> None:
        self.alice = await self.log_in(ALICE)
        self.bob = await self.log_in(BOB)

    async def log_in(self, account: Account, url: str = URL) -> nio.AsyncClient:
        client = nio.AsyncClient(url, account.user_id, config=ONCE)
        self.addAsyncCleanup(client.close)
        answer = await client.login(account.password)
        assert isinstance(answer, nio.LoginResponse), answer
        return client

    async def upload(
        self,
        content: bytes,
        kind: str,
        filename: str | None = None,
        client: nio.AsyncClient | None = None,
    ) -> str:
        """Uploads, as Alice if nobody is named, and returns the address."""
        answer, _ = await (client or self.alice).upload(
            io.BytesIO(content), content_type=kind, filename=filename, filesize=len(content)
        )
        assert isinstance(answer, nio.UploadResponse), answer
        mxc: str = answer.content_uri
        return mxc

    async def download(self, mxc: str, **options: Any) -> nio.MemoryDownloadResponse:
        """Downloads as Bob."""
        answer = await self.bob.download(mxc, **options)
        assert isinstance(answer, nio.MemoryDownloadResponse), answer
        return answer

    async def ask(
        self, client: nio.AsyncClient, method: str, path: str, body: bytes | None = None
    ) -> tuple[int, dict[str, Any]]:
        """What there is no method for, by the client's own connection."""
        headers = {"Authorization": f"Bearer {client.access_token}"}
        async with await client.send(method, path, body, headers) as answer:
            return answer.status, await answer.json()

    async def create(self) -> str:
        """Creates an address for a later upload, and returns it without its scheme."""
        status, made = await self.ask(self.alice, "POST", "/_matrix/media/v1/create", b"{}")
        self.assertEqual(status, HTTPStatus.OK, made)
        mxc: str = made["content_uri"]
        return mxc.removeprefix("mxc://")

    # CS-AUTH-01, CS-WHO-01
    async def test_a_session_from_a_password_is_known(self) -> None:
        answer = await self.alice.whoami()
        assert isinstance(answer, nio.WhoamiResponse), answer
        self.assertEqual(answer.user_id, ALICE.user_id)
        self.assertEqual(answer.device_id, self.alice.device_id)

    # CS-UP-01, CS-UP-03, CS-UP-04, CS-DL-02, CS-HDR-01, CS-HDR-04
    async def test_another_user_reads_the_same_bytes_type_and_name(self) -> None:
        content = picture(640, 480, "JPEG")
        mxc = await self.upload(content, "image/jpeg", FILENAME)
        self.assertTrue(mxc.startswith(f"mxc://{SERVER_NAME}/"), mxc)
        answer = await self.download(mxc)
        self.assertEqual(answer.body, content)
        self.assertEqual(answer.content_type, "image/jpeg")
        self.assertEqual(answer.filename, FILENAME)

    # CS-DL-15
    async def test_a_name_in_the_path_replaces_the_stored_one(self) -> None:
        mxc = await self.upload(b"name me", "text/plain", "stored.txt")
        answer = await self.download(mxc, filename="Grüße.txt")
        self.assertEqual(answer.body, b"name me")
        self.assertEqual(answer.filename, "Grüße.txt")

    # CS-HDR-04
    async def test_what_has_no_name_comes_back_without_one(self) -> None:
        answer = await self.download(await self.upload(b"no name", "text/plain"))
        self.assertIsNone(answer.filename)

    # CS-UP-08
    async def test_an_upload_of_unannounced_length_is_taken(self) -> None:
        content = secrets.token_bytes(300_000)
        answer, _ = await self.alice.upload(io.BytesIO(content))
        assert isinstance(answer, nio.UploadResponse), answer
        self.assertEqual((await self.download(answer.content_uri)).body, content)

    # CS-UP-01, CS-DL-02
    async def test_a_large_file_is_saved_to_disk_whole(self) -> None:
        content = secrets.token_bytes(MAX_UPLOAD)
        mxc = await self.upload(content, "application/octet-stream")
        file = Path(os.environ["MEDIARY_CLIENTS_DIR"], "large")
        answer = await self.bob.download(mxc, save_to=file)
        assert isinstance(answer, nio.DiskDownloadResponse), answer
        self.assertEqual(file.read_bytes(), content)

    # CS-DL-03, CS-HDR-01, CS-HDR-04, CS-TH-08
    async def test_what_synapse_had_before_is_read_with_its_type_and_name(self) -> None:
        before = await self.log_in(ALICE, UPSTREAM)
        content = picture(640, 480, "JPEG")
        mxc = await self.upload(content, "image/jpeg", FILENAME, before)
        for _ in range(2):  # read through, and kept
            answer = await self.download(mxc)
            self.assertEqual(answer.body, content)
            self.assertEqual((answer.content_type, answer.filename), ("image/jpeg", FILENAME))
        small = await self.thumbnail(mxc, 96, 96, nio.ResizingMethod.crop)
        self.assertEqual(size_of(small.body), (96, 96))

    # CS-TH-03, CS-TH-04, CS-TH-05, CS-TH-07, CS-HDR-06, CS-HDR-07
    async def test_a_scaled_thumbnail_keeps_the_aspect_and_is_no_smaller_than_asked(self) -> None:
        for kind in ("JPEG", "PNG", "WEBP", "GIF"):
            mxc = await self.upload(picture(1200, 800, kind), f"image/{kind.lower()}")
            answer = await self.thumbnail(mxc, 320, 240, nio.ResizingMethod.scale)
            self.assertEqual(size_of(answer.body), (360, 240), kind)
            self.assertIn(answer.content_type, ("image/jpeg", "image/png"))
            self.assertRegex(answer.filename, r"^thumbnail\.(jpg|jpeg|png)$")

    # CS-TH-08, CS-TH-09
    async def test_a_cropped_thumbnail_has_the_asked_size(self) -> None:
        mxc = await self.upload(picture(1200, 800, "PNG"), "image/png")
        for side in (32, 96):
            answer = await self.thumbnail(mxc, side, side, nio.ResizingMethod.crop)
            self.assertEqual(size_of(answer.body), (side, side))

    # CS-TH-05, CS-TH-06
    async def test_a_small_picture_is_its_own_thumbnail(self) -> None:
        content = picture(64, 48, "PNG")
        mxc = await self.upload(content, "image/png")
        answer = await self.thumbnail(mxc, 800, 600, nio.ResizingMethod.scale)
        self.assertEqual(answer.body, content)

    async def thumbnail(
        self, mxc: str, width: int, height: int, method: nio.ResizingMethod
    ) -> nio.ThumbnailResponse:
        """Asks for a thumbnail as Bob."""
        server_name, media_id = mxc.removeprefix("mxc://").split("/")
        answer = await self.bob.thumbnail(server_name, media_id, width, height, method)
        assert isinstance(answer, nio.ThumbnailResponse), answer
        return answer

    # CS-UP-02, CS-UP-09, CS-INL-01
    async def test_an_encrypted_attachment_is_decrypted_by_its_reader(self) -> None:
        content = picture(640, 480, "JPEG")
        answer, keys = await self.alice.upload(
            io.BytesIO(content), "image/jpeg", encrypt=True, filesize=len(content)
        )
        assert isinstance(answer, nio.UploadResponse), answer
        assert keys is not None
        read = await self.download(answer.content_uri)
        self.assertEqual(read.content_type, "application/octet-stream")
        self.assertEqual(read.transport_response.content_disposition.type, "attachment")
        self.assertNotEqual(read.body, content)
        self.assertEqual(
            decrypt_attachment(read.body, keys["key"]["k"], keys["hashes"]["sha256"], keys["iv"]),
            content,
        )

    # CS-CRE-01, CS-CRE-02, CS-PUT-01, CS-DL-08
    async def test_a_reader_of_an_asynchronous_upload_waits_for_it(self) -> None:
        content = secrets.token_bytes(200_000)
        file = await self.create()
        reading = asyncio.create_task(self.download(f"mxc://{file}"))
        status, told = await self.ask(
            self.alice, "PUT", f"/_matrix/media/v3/upload/{file}", content
        )
        self.assertEqual((status, told), (HTTPStatus.OK, {}))
        self.assertEqual((await reading).body, content)

    # CS-PUT-02, CS-PUT-03, CS-PUT-04
    async def test_only_the_creator_uploads_and_only_once(self) -> None:
        path = f"/_matrix/media/v3/upload/{await self.create()}"
        unknown = f"/_matrix/media/v3/upload/{UNKNOWN.removeprefix('mxc://')}"
        for client, target, status, errcode in (
            (self.bob, path, HTTPStatus.FORBIDDEN, "M_FORBIDDEN"),
            (self.alice, unknown, HTTPStatus.NOT_FOUND, "M_NOT_FOUND"),
            (self.alice, path, HTTPStatus.OK, None),
            (self.alice, path, HTTPStatus.CONFLICT, "M_CANNOT_OVERWRITE_MEDIA"),
        ):
            got, told = await self.ask(client, "PUT", target, b"once")
            self.assertEqual((got, told.get("errcode")), (status, errcode))

    # CS-DL-10
    async def test_what_is_not_uploaded_in_time_is_said_to_be_missing_yet(self) -> None:
        target = f"/_matrix/client/v1/media/download/{await self.create()}?timeout_ms=10"
        status, told = await self.ask(self.bob, "GET", target)
        self.assertEqual(status, HTTPStatus.GATEWAY_TIMEOUT)
        self.assertEqual(told["errcode"], "M_NOT_YET_UPLOADED")

    # CS-DL-02, CS-TH-08
    async def test_an_avatar_is_found_in_the_profile_and_shown(self) -> None:
        content = picture(400, 400, "PNG")
        mxc = await self.upload(content, "image/png")
        set_avatar = await self.alice.set_avatar(mxc)
        assert isinstance(set_avatar, nio.ProfileSetAvatarResponse), set_avatar
        profile = await self.bob.get_profile(ALICE.user_id)
        assert isinstance(profile, nio.ProfileGetResponse), profile
        self.assertEqual(profile.avatar_url, mxc)
        self.assertEqual((await self.download(profile.avatar_url)).body, content)
        avatar = await self.thumbnail(profile.avatar_url, 96, 96, nio.ResizingMethod.crop)
        self.assertEqual(size_of(avatar.body), (96, 96))

    # CS-UP-09, CS-DL-02
    async def test_a_picture_in_a_room_is_found_by_sync(self) -> None:
        content = picture(640, 480, "JPEG")
        mxc = await self.upload(content, "image/jpeg", FILENAME)
        room = await self.alice.room_create(invite=[BOB.user_id])
        assert isinstance(room, nio.RoomCreateResponse), room
        assert isinstance(await self.bob.join(room.room_id), nio.JoinResponse)
        sent = await self.alice.room_send(
            room.room_id,
            "m.room.message",
            {"msgtype": "m.image", "body": FILENAME, "url": mxc, "info": {"w": 640, "h": 480}},
        )
        assert isinstance(sent, nio.RoomSendResponse), sent
        since = None
        events: list[Any] = []
        while not any(event.event_id == sent.event_id for event in events):
            synced = await self.bob.sync(timeout=30_000, since=since)
            assert isinstance(synced, nio.SyncResponse), synced
            since = synced.next_batch
            if joined := synced.rooms.join.get(room.room_id):
                events += joined.timeline.events
        shown = next(event for event in events if event.event_id == sent.event_id)
        assert isinstance(shown, nio.RoomMessageImage), shown
        self.assertEqual((await self.download(shown.url)).body, content)

    # CS-CFG-01, CS-CFG-02
    async def test_the_largest_upload_is_announced(self) -> None:
        answer = await self.alice.content_repository_config()
        assert isinstance(answer, nio.ContentRepositoryConfigResponse), answer
        self.assertEqual(answer.upload_size, MAX_UPLOAD)

    # CS-UP-06, CS-LIM-01
    async def test_an_upload_over_the_limit_is_too_large(self) -> None:
        for announced in (MAX_UPLOAD + 1, None):
            content = io.BytesIO(bytes(MAX_UPLOAD + 1))
            answer, _ = await self.alice.upload(content, filesize=announced)
            assert isinstance(answer, nio.UploadError), answer
            self.assertEqual(answer.status_code, "M_TOO_LARGE")

    # CS-DL-12, CS-GEN-03
    async def test_unknown_media_is_not_found(self) -> None:
        answer = await self.alice.download(UNKNOWN)
        assert isinstance(answer, nio.DownloadError), answer
        self.assertEqual(answer.status_code, "M_NOT_FOUND")
        server_name, media_id = UNKNOWN.removeprefix("mxc://").split("/")
        small = await self.alice.thumbnail(server_name, media_id, 96, 96)
        # nio takes an answer to a thumbnail for a picture or for nothing.
        assert isinstance(small, nio.ThumbnailError), small
        self.assertEqual(small.transport_response.status, HTTPStatus.NOT_FOUND)

    # CS-TH-12
    async def test_a_text_has_no_thumbnail(self) -> None:
        mxc = await self.upload(b"not a picture", "text/plain")
        target = f"/_matrix/client/v1/media/thumbnail/{mxc.removeprefix('mxc://')}"
        status, told = await self.ask(self.bob, "GET", f"{target}?width=96&height=96&method=crop")
        self.assertEqual((status, told["errcode"]), (HTTPStatus.BAD_REQUEST, "M_UNKNOWN"))

    # CS-AUTH-02
    async def test_a_token_in_the_query_is_taken(self) -> None:
        mxc = await self.upload(b"an old client", "text/plain")
        token = quote(self.bob.access_token, safe="")
        target = f"/_matrix/client/v1/media/download/{mxc.removeprefix('mxc://')}"
        async with await self.bob.send("GET", f"{target}?access_token={token}") as answer:
            self.assertEqual(answer.status, HTTPStatus.OK)
            self.assertEqual(await answer.read(), b"an old client")

    # CS-AUTH-04, CS-AUTH-05, CS-AUTH-06
    async def test_a_session_that_was_logged_out_is_unknown_at_once(self) -> None:
        mxc = await self.upload(b"after the logout", "text/plain")
        self.assertEqual((await self.download(mxc)).body, b"after the logout")
        token = self.bob.access_token
        assert isinstance(await self.bob.logout(), nio.LogoutResponse)
        missing = await self.bob.download(mxc)
        assert isinstance(missing, nio.DownloadError), missing
        self.assertEqual(missing.status_code, "M_MISSING_TOKEN")
        self.bob.access_token = token
        unknown = await self.bob.download(mxc)
        assert isinstance(unknown, nio.DownloadError), unknown
        self.assertEqual(unknown.status_code, "M_UNKNOWN_TOKEN")
        self.assertFalse(unknown.soft_logout)


if __name__ == "__main__":
    run("matrix-nio")
