// matrix-js-sdk through Mediary, as Element uses it: by its own methods, and for downloads by fetch on the addresses
// that it makes.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { beforeEach, test } from "node:test";

import { decryptAttachment, encryptAttachment } from "matrix-encrypt-attachment";
import { ClientPrefix, MatrixError, MediaPrefix, Method } from "matrix-js-sdk";

import { ALICE, BOB, MAX_UPLOAD, SERVER_NAME, UNKNOWN, create, logIn, picture, sizeOf } from "./suite.mjs";

let alice;
let bob;

beforeEach(async () => {
    [alice, bob] = await Promise.all([logIn(ALICE), logIn(BOB)]);
});

/** Fetches what `mxcUrlToHttp` names, with the client's token; `shape` is its width, height and method. */
async function read(client, mxc, ...shape) {
    const [width, height, method] = shape;
    const url = client.mxcUrlToHttp(mxc, width, height, method, false, true, true);
    const answer = await fetch(url, { headers: { Authorization: `Bearer ${client.getAccessToken()}` } });
    const body = Buffer.from(await answer.arrayBuffer());
    assert.equal(answer.status, 200, body.toString());
    return { body, type: answer.headers.get("Content-Type"), headers: answer.headers };
}

/** Asks for a media by the layer of the SDK that makes errors of refusals. */
function ask(client, kind, mxc, query = {}) {
    const path = `/media/${kind}/${mxc.slice("mxc://".length)}`;
    const options = { prefix: ClientPrefix.V1, rawResponseBody: true };
    return client.http.authedRequest(Method.Get, path, query, undefined, options);
}

/** Uploads what `create` has reserved. */
function put(client, mxc, body) {
    const path = `/upload/${mxc.slice("mxc://".length)}`;
    const headers = { "Content-Type": "application/octet-stream" };
    return client.http.authedRequest(Method.Put, path, {}, body, { prefix: MediaPrefix.V3, headers });
}

function refusal(status, errcode) {
    return (error) => {
        assert.ok(error instanceof MatrixError, `${error}`);
        assert.deepEqual([error.httpStatus, error.errcode], [status, errcode]);
        assert.ok(error.data.error, "an error without its words");
        return true;
    };
}

// CS-AUTH-01, CS-WHO-01
test("a session from a password is known", async () => {
    const { user_id: userId, device_id: deviceId } = await alice.whoami();
    assert.deepEqual([userId, deviceId], [ALICE.userId, alice.getDeviceId()]);
});

// CS-VER-01
test("the server is known to have authenticated media", async () => {
    assert.equal(await alice.isVersionSupported("v1.11"), true);
});

// CS-UP-01, CS-UP-03, CS-UP-04, CS-DL-02, CS-HDR-01, CS-HDR-04
test("another user reads the same bytes, type and name", async () => {
    const content = picture(640, 480, "image/jpeg");
    const name = "Grüße; from a walk.jpg";
    const { content_uri: mxc } = await alice.uploadContent(content, { type: "image/jpeg", name });
    assert.ok(mxc.startsWith(`mxc://${SERVER_NAME}/`), mxc);
    const { body, type, headers } = await read(bob, mxc);
    assert.deepEqual(body, content);
    assert.equal(type, "image/jpeg");
    const disposition = headers.get("Content-Disposition");
    assert.match(disposition, /^inline;/);
    assert.equal(decodeURIComponent(/filename\*=utf-8''([^;]+)/i.exec(disposition)[1]), name);
});

// CS-UP-02
test("an upload without a type is a stream of bytes", async () => {
    const content = randomBytes(1000);
    const { content_uri: mxc } = await alice.uploadContent(content);
    const { body, type } = await read(bob, mxc);
    assert.deepEqual(body, content);
    assert.equal(type, "application/octet-stream");
});

// CS-TH-03, CS-TH-04, CS-TH-05, CS-TH-07, CS-TH-08, CS-HDR-07
test("thumbnails are scaled and cropped", async () => {
    for (const kind of ["image/jpeg", "image/png"]) {
        const { content_uri: mxc } = await alice.uploadContent(picture(1200, 800, kind), { type: kind });
        const scaled = await read(bob, mxc, 800, 600, "scale");
        assert.deepEqual(sizeOf(scaled.body, scaled.type), [900, 600], kind);
        const cropped = await read(bob, mxc, 96, 96, "crop");
        assert.deepEqual(sizeOf(cropped.body, cropped.type), [96, 96], kind);
    }
});

// CS-TH-03, CS-TH-04
test("a size between the usual ones becomes the next larger", async () => {
    const { content_uri: mxc } = await alice.uploadContent(picture(1200, 800, "image/png"), { type: "image/png" });
    const { body, type } = await read(bob, mxc, 48, 48, "crop");
    assert.deepEqual(sizeOf(body, type), [96, 96]);
});

// CS-UP-02, CS-UP-09
test("an encrypted attachment is decrypted by its reader", async () => {
    const content = picture(640, 480, "image/jpeg");
    const { data, info } = await encryptAttachment(content);
    const options = { type: "application/octet-stream", includeFilename: false };
    const { content_uri: mxc } = await alice.uploadContent(data, options);
    const { body, type, headers } = await read(bob, mxc);
    assert.equal(type, "application/octet-stream");
    assert.equal(headers.get("Content-Disposition"), "attachment");
    assert.notDeepEqual(body, content);
    assert.deepEqual(Buffer.from(await decryptAttachment(body, info)), content);
});

// CS-CRE-01, CS-CRE-02, CS-CRE-03, CS-PUT-01, CS-DL-08
test("a reader of an asynchronous upload waits for it", async () => {
    const before = Date.now();
    const { content_uri: mxc, unused_expires_at: expires } = await create(alice);
    assert.ok(expires > before, `${expires}`);
    const content = randomBytes(200_000);
    const reading = read(bob, mxc);
    assert.deepEqual(await put(alice, mxc, content), {});
    assert.deepEqual((await reading).body, content);
});

// CS-PUT-02, CS-PUT-03, CS-PUT-04
test("only the creator uploads, and only once", async () => {
    const { content_uri: mxc } = await create(alice);
    await assert.rejects(put(bob, mxc, "mine"), refusal(403, "M_FORBIDDEN"));
    await assert.rejects(put(alice, UNKNOWN, "where"), refusal(404, "M_NOT_FOUND"));
    await put(alice, mxc, "once");
    await assert.rejects(put(alice, mxc, "twice"), refusal(409, "M_CANNOT_OVERWRITE_MEDIA"));
});

// CS-DL-10
test("what is not uploaded in time is said to be missing yet", async () => {
    const { content_uri: mxc } = await create(alice);
    await assert.rejects(ask(bob, "download", mxc, { timeout_ms: 10 }), refusal(504, "M_NOT_YET_UPLOADED"));
});

// CS-DL-02, CS-TH-08
test("an avatar is found in the profile and shown", async () => {
    const content = picture(400, 400, "image/png");
    const { content_uri: mxc } = await alice.uploadContent(content, { type: "image/png" });
    await alice.setAvatarUrl(mxc);
    const { avatar_url: avatar } = await bob.getProfileInfo(ALICE.userId);
    assert.equal(avatar, mxc);
    assert.deepEqual((await read(bob, avatar)).body, content);
    const { body, type } = await read(bob, avatar, 32, 32, "crop");
    assert.deepEqual(sizeOf(body, type), [32, 32]);
});

// CS-CFG-01, CS-CFG-02
test("the largest upload is announced on both routes", async () => {
    for (const authenticated of [false, true]) {
        assert.deepEqual(await alice.getMediaConfig(authenticated), { "m.upload.size": MAX_UPLOAD });
    }
});

// CS-UP-06, CS-LIM-01
test("an upload over the limit is too large", async () => {
    const upload = alice.uploadContent(Buffer.alloc(MAX_UPLOAD + 1), { type: "video/mp4" });
    await assert.rejects(upload, refusal(413, "M_TOO_LARGE"));
});

// CS-DL-12, CS-GEN-03
test("unknown media is not found", async () => {
    await assert.rejects(ask(bob, "download", UNKNOWN), refusal(404, "M_NOT_FOUND"));
    await assert.rejects(ask(bob, "thumbnail", UNKNOWN, { width: 96, height: 96 }), refusal(404, "M_NOT_FOUND"));
});

// CS-TH-12
test("a text has no thumbnail", async () => {
    const { content_uri: mxc } = await alice.uploadContent("not a picture", { type: "text/plain" });
    await assert.rejects(ask(bob, "thumbnail", mxc, { width: 96, height: 96 }), refusal(400, "M_UNKNOWN"));
});

// CS-FRZ-01, CS-FRZ-03
test("new media is not found without a token", async () => {
    const { content_uri: mxc } = await alice.uploadContent("for members", { type: "text/plain" });
    const answer = await fetch(alice.mxcUrlToHttp(mxc));
    assert.deepEqual([answer.status, (await answer.json()).errcode], [404, "M_NOT_FOUND"]);
});

// CS-AUTH-05, CS-AUTH-06
test("a session that was logged out is unknown at once", async () => {
    const { content_uri: mxc } = await alice.uploadContent("after the logout", { type: "text/plain" });
    assert.equal((await read(bob, mxc)).body.toString(), "after the logout");
    await bob.logout();
    await assert.rejects(ask(bob, "download", mxc), refusal(401, "M_UNKNOWN_TOKEN"));
    await assert.rejects(bob.uploadContent("too late"), refusal(401, "M_UNKNOWN_TOKEN"));
});
