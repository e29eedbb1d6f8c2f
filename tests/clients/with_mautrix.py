"""mautrix, the library of many bridges, through Mediary: as users and application services."""

from __future__ import annotations

import asyncio
import secrets
import unittest
from collections.abc import AsyncIterator, Awaitable
from http import HTTPStatus

import aiohttp
from mautrix.api import ClientPath, HTTPAPI, MediaPath, Method
from mautrix.client import ClientAPI
from mautrix.crypto.attachments import decrypt_attachment, encrypt_attachment
from mautrix.errors import (
    MatrixRequestError,
    MForbidden,
    MNotFound,
    MTooLarge,
    MUnknown,
    MUnknownToken,
)
from mautrix.types import ContentURI, UserID

from suite import (
    ALICE,
    AS_TOKEN,
    BOB,
    FILENAME,
    MAX_UPLOAD,
    SERVER_NAME,
    UNKNOWN,
    URL,
    Account,
    picture,
    run,
    size_of,
)


class Mautrix(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self) -> None:
        self.alice = await self.log_in(ALICE)
        self.bob = await self.log_in(BOB)

    async def log_in(self, account: Account) -> ClientAPI:
        client = ClientAPI(base_url=URL)
        self.addAsyncCleanup(client.api.session.close)
        await client.login(UserID(account.user_id), password=account.password)
        return client

    def path(self, kind: str, mxc: str) -> str:
        """The authenticated route of a media, for what has to be seen as JSON."""
        return f"_matrix/client/v1/media/{kind}/{mxc.removeprefix('mxc://')}"

    async def refused(self, status: HTTPStatus, call: Awaitable[object]) -> None:
        """Sees a call refused that tells the status alone, as downloads do."""
        with self.assertRaises(aiohttp.ClientResponseError) as refusal:
            await call
        self.assertEqual(refusal.exception.status, status)

    # CS-AUTH-01, CS-WHO-01
    async def test_a_session_from_a_password_is_known(self) -> None:
        answer = await self.alice.whoami()
        self.assertEqual(answer.user_id, ALICE.user_id)
        self.assertEqual(answer.device_id, self.alice.device_id)

    # CS-UP-01, CS-UP-03, CS-UP-04, CS-DL-02
    async def test_another_user_reads_the_same_bytes(self) -> None:
        content = picture(640, 480, "JPEG")
        mxc = await self.alice.upload_media(content, "image/jpeg", FILENAME)
        self.assertTrue(mxc.startswith(f"mxc://{SERVER_NAME}/"), mxc)
        self.assertEqual(await self.bob.download_media(mxc), content)

    # CS-UP-01, CS-UP-08
    async def test_a_stream_is_uploaded(self) -> None:
        parts = [secrets.token_bytes(100_000) for _ in range(20)]

        async def stream() -> AsyncIterator[bytes]:
            for part in parts:
                yield part

        for size in (None, 2_000_000):
            mxc = await self.alice.upload_media(stream(), "video/mp4", size=size)
            self.assertEqual(await self.bob.download_media(mxc), b"".join(parts))

    # CS-TH-03, CS-TH-04, CS-TH-05, CS-TH-07, CS-TH-08
    async def test_thumbnails_are_scaled_and_cropped(self) -> None:
        for kind in ("JPEG", "PNG"):
            mxc = await self.alice.upload_media(picture(1200, 800, kind), f"image/{kind.lower()}")
            scaled = await self.bob.download_thumbnail(mxc, 320, 240, "scale")
            self.assertEqual(size_of(scaled), (360, 240), kind)
            cropped = await self.bob.download_thumbnail(mxc, 96, 96, "crop")
            self.assertEqual(size_of(cropped), (96, 96), kind)

    # CS-TH-02
    async def test_a_thumbnail_without_a_method_is_scaled(self) -> None:
        mxc = await self.alice.upload_media(picture(1200, 800, "PNG"), "image/png")
        thumbnail = await self.bob.download_thumbnail(mxc, 640, 480)
        self.assertEqual(size_of(thumbnail), (720, 480))

    # CS-UP-02, CS-UP-09
    async def test_an_encrypted_attachment_is_decrypted_by_its_reader(self) -> None:
        content = picture(640, 480, "JPEG")
        encrypted, keys = encrypt_attachment(content)
        mxc = await self.alice.upload_media(encrypted, "application/octet-stream")
        read = await self.bob.download_media(mxc)
        self.assertNotEqual(read, content)
        plain = decrypt_attachment(read, keys.key.key, keys.hashes["sha256"], keys.iv)
        self.assertEqual(plain, content)

    # CS-CRE-01, CS-CRE-02, CS-PUT-01
    async def test_an_upload_to_an_address_made_before_is_read_back(self) -> None:
        made = await self.alice.create_mxc()
        content = secrets.token_bytes(50_000)
        # mautrix looks for an address in the answer, which has none: it knows it already.
        with self.assertRaisesRegex(Exception, "content_uri"):
            await self.alice.upload_media(content, "image/png", mxc=made.content_uri)
        self.assertEqual(await self.bob.download_media(made.content_uri), content)

    # CS-CRE-02, CS-PUT-01, CS-DL-08
    async def test_readers_of_an_upload_in_the_background_get_all_of_it(self) -> None:
        parts = [secrets.token_bytes(100_000) for _ in range(10)]
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def slowly() -> AsyncIterator[bytes]:
            yield parts[0]
            begun.set()
            await go_on.wait()
            for part in parts[1:]:
                yield part

        mxc = await self.alice.upload_media(
            slowly(), "video/webm", size=1_000_000, async_upload=True
        )
        await begun.wait()
        session = self.bob.api.session
        headers = {"Authorization": f"Bearer {self.bob.api.token}"}
        async with session.get(f"{URL}/{self.path('download', mxc)}", headers=headers) as early:
            # The first bytes are here while the last have not been sent.
            read = await early.content.readexactly(len(parts[0]))
            whole = asyncio.create_task(self.bob.download_media(mxc, timeout_ms=20_000))
            go_on.set()
            read += await early.content.read()
        self.assertEqual(read, b"".join(parts))
        self.assertEqual(await whole, b"".join(parts))

    # CS-DL-10
    async def test_what_is_not_uploaded_in_time_is_said_to_be_missing_yet(self) -> None:
        mxc = (await self.alice.create_mxc()).content_uri
        call = self.bob.download_media(mxc, timeout_ms=10)
        await self.refused(HTTPStatus.GATEWAY_TIMEOUT, call)
        call = self.bob.download_thumbnail(mxc, 96, 96, "crop", timeout_ms=10)
        await self.refused(HTTPStatus.GATEWAY_TIMEOUT, call)
        with self.assertRaises(MatrixRequestError) as refusal:
            await self.bob.api.request(
                Method.GET, self.path("download", mxc), query_params={"timeout_ms": "10"}
            )
        self.assertEqual(refusal.exception.errcode, "M_NOT_YET_UPLOADED")

    # CS-PUT-02, CS-PUT-04
    async def test_only_the_creator_uploads_and_only_once(self) -> None:
        mxc = (await self.alice.create_mxc()).content_uri
        with self.assertRaises(MForbidden):
            await self.bob.upload_media(b"mine", "text/plain", mxc=mxc)
        target = MediaPath.v3.upload[SERVER_NAME][mxc.rpartition("/")[2]]
        self.assertEqual(await self.alice.api.request(Method.PUT, target, b"once"), {})
        with self.assertRaises(MatrixRequestError) as refusal:
            await self.alice.api.request(Method.PUT, target, b"twice")
        self.assertEqual(refusal.exception.http_status, HTTPStatus.CONFLICT)
        self.assertEqual(refusal.exception.errcode, "M_CANNOT_OVERWRITE_MEDIA")

    # CS-DL-02, CS-TH-08
    async def test_an_avatar_is_found_in_the_profile_and_shown(self) -> None:
        content = picture(400, 400, "PNG")
        await self.alice.set_avatar_url(await self.alice.upload_media(content, "image/png"))
        mxc = await self.bob.get_avatar_url(UserID(ALICE.user_id))
        assert mxc is not None
        self.assertEqual(await self.bob.download_media(mxc), content)
        avatar = await self.bob.download_thumbnail(mxc, 32, 32, "crop")
        self.assertEqual(size_of(avatar), (32, 32))

    # CS-AS-01
    async def test_a_bridge_uploads_as_one_of_its_users(self) -> None:
        name = f"bridge_{secrets.token_hex(4)}"
        user_id = UserID(f"@{name}:{SERVER_NAME}")
        api = HTTPAPI(URL, AS_TOKEN, as_user_id=user_id)
        self.addAsyncCleanup(api.session.close)
        ghost = ClientAPI(mxid=user_id, api=api)
        account = {"type": "m.login.application_service", "username": name}
        await api.request(Method.POST, ClientPath.v3.register, account)

        content = picture(640, 480, "JPEG")
        mxc = await ghost.upload_media(content, "image/jpeg")
        self.assertEqual(await self.bob.download_media(mxc), content)
        self.assertEqual(await ghost.download_media(mxc), content)
        reserved = (await ghost.create_mxc()).content_uri
        with self.assertRaises(MForbidden):
            await self.alice.upload_media(content, "image/jpeg", mxc=reserved)

    # CS-AS-01, CS-WHO-02
    async def test_a_bridge_may_not_upload_as_anybody_else(self) -> None:
        api = HTTPAPI(URL, AS_TOKEN, as_user_id=UserID(ALICE.user_id))
        self.addAsyncCleanup(api.session.close)
        with self.assertRaises(MForbidden):
            await ClientAPI(api=api).upload_media(b"not mine", "text/plain")

    # CS-CFG-01, CS-CFG-02
    async def test_the_largest_upload_is_announced(self) -> None:
        self.assertEqual((await self.alice.get_media_repo_config()).upload_size, MAX_UPLOAD)

    # CS-UP-06, CS-LIM-01
    async def test_an_upload_over_the_limit_is_too_large(self) -> None:
        with self.assertRaises(MTooLarge) as refusal:
            await self.alice.upload_media(bytes(MAX_UPLOAD + 1), "video/mp4")
        self.assertEqual(refusal.exception.http_status, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)

    # CS-DL-12, CS-GEN-03
    async def test_unknown_media_is_not_found(self) -> None:
        unknown = ContentURI(UNKNOWN)
        await self.refused(HTTPStatus.NOT_FOUND, self.bob.download_media(unknown))
        await self.refused(HTTPStatus.NOT_FOUND, self.bob.download_thumbnail(unknown, 96, 96))
        with self.assertRaises(MNotFound):
            await self.bob.api.request(Method.GET, self.path("download", unknown))

    # CS-TH-12
    async def test_a_text_has_no_thumbnail(self) -> None:
        mxc = await self.alice.upload_media(b"not a picture", "text/plain")
        with self.assertRaises(MUnknown) as refusal:
            await self.bob.api.request(
                Method.GET,
                self.path("thumbnail", mxc),
                query_params={"width": "96", "height": "96"},
            )
        self.assertEqual(refusal.exception.http_status, HTTPStatus.BAD_REQUEST)

    # CS-AUTH-05
    async def test_a_session_that_was_logged_out_is_unknown_at_once(self) -> None:
        mxc = await self.alice.upload_media(b"after the logout", "text/plain")
        self.assertEqual(await self.bob.download_media(mxc), b"after the logout")
        await self.bob.logout(clear_access_token=False)
        with self.assertRaises(MUnknownToken):
            await self.bob.api.request(Method.GET, self.path("download", mxc))


if __name__ == "__main__":
    run("mautrix")
