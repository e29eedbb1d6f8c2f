// A page in Chromium, from an origin of its own: pictures and videos through a service worker, what a page may see of
// answers across origins, and what a browser does with uploads that are not harmless.

import assert from "node:assert/strict";
import { once } from "node:events";
import { createReadStream } from "node:fs";
import { readFile } from "node:fs/promises";
import { createServer, request as send } from "node:http";
import { extname, join } from "node:path";
import { after, afterEach, before, beforeEach, test } from "node:test";

import { chromium } from "playwright-core";

import {
    ALICE,
    BOB,
    DIRECTORY,
    MAX_UPLOAD,
    UNKNOWN,
    UPSTREAM,
    URL_OF_MEDIARY,
    create,
    logIn,
    picture,
} from "./suite.mjs";

// Chromium waits for nothing outside this machine, and keeps nothing of it.
const FLAGS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];
const TYPES = { ".html": "text/html", ".js": "text/javascript" };
const PAGE = join(import.meta.dirname, "page");

// What a script does that runs where it should not: it asks for this.
const EVIDENCE = "/a-script-ran";

// Milliseconds that Chromium may take for a step, which is long: it says which step hangs.
const PATIENCE = 60_000;

// What videos.py makes: its seconds, and how much brighter each digit of one is than the last.
const DURATION = 60;
const STEP = (20 * 255) / 219;

let alice;
let bob;
let browser;
let server;
let origin; // where the page is served
let evidence; // how often a script has run
let context;
let page;

before(async () => {
    [alice, bob] = await Promise.all([logIn(ALICE), logIn(BOB)]);
    server = createServer(serve);
    await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
    // Not the address that Mediary has, so the pages are neither of one origin nor of one site.
    origin = `http://localhost:${server.address().port}`;
    browser = await chromium.launch({
        executablePath: process.env.MEDIARY_CLIENTS_CHROMIUM,
        chromiumSandbox: false,
        args: FLAGS,
        env: { ...process.env, HOME: DIRECTORY },
        timeout: PATIENCE,
    });
});

after(async () => {
    await browser?.close();
    server?.closeAllConnections();
    server?.close();
});

beforeEach(async () => {
    evidence = 0;
    context = await browser.newContext();
    context.setDefaultTimeout(PATIENCE);
    // Counted where they are sent: what Chromium does next is told after it.
    context.on("request", (request) => {
        if (request.url() === `${origin}${EVIDENCE}`) evidence++;
    });
    page = await context.newPage();
});

afterEach(() => context.close());

/** Serves the page. */
function serve({ url }, answer) {
    const type = TYPES[extname(url)];
    if (!type) return answer.writeHead(404).end();
    createReadStream(join(PAGE, url))
        .on("error", () => answer.writeHead(404).end())
        .on("open", () => answer.setHeader("Content-Type", type))
        .pipe(answer);
}

/** Opens the page as Bob, and returns when its service worker is in charge. */
async function begin() {
    await page.goto(`${origin}/index.html`);
    await page.evaluate((token) => window.page.begin(token), bob.getAccessToken());
}

/** Uploads as Alice; returns the address. */
async function upload(body, type, name) {
    return (await alice.uploadContent(body, { type, name })).content_uri;
}

function url(mxc, ...shape) {
    return bob.mxcUrlToHttp(mxc, ...shape, ...Array(5 - shape.length).fill(undefined), true, true);
}

/** The same for who has nobody to add a token, such as a link that is opened. */
function link(mxc) {
    const download = `${URL_OF_MEDIARY}/_matrix/client/v1/media/download`;
    return `${download}/${mxc.slice("mxc://".length)}?access_token=${bob.getAccessToken()}`;
}

// CS-DL-02, CS-HDR-09, CS-CORS-01
test("a picture is shown through a service worker that adds the token", async () => {
    const mxc = await upload(picture(640, 480, "image/jpeg"), "image/jpeg");
    await begin();
    assert.deepEqual(await page.evaluate((src) => window.page.show(src), url(mxc)), [640, 480]);
    const [answer] = await page.evaluate(() => window.page.answers);
    assert.equal(answer.status, 200);
});

// CS-TH-07, CS-TH-08, CS-HDR-07
test("thumbnails are shown in the sizes that were asked for", async () => {
    const mxc = await upload(picture(1200, 800, "image/png"), "image/png");
    await begin();
    for (const [shape, size] of [
        [[320, 240, "scale"], [360, 240]],
        [[96, 96, "crop"], [96, 96]],
    ]) {
        assert.deepEqual(await page.evaluate((src) => window.page.show(src), url(mxc, ...shape)), size);
    }
});

// CS-AUTH-04, CS-DL-02
test("a picture is not shown to a page without a token", async () => {
    const mxc = await upload(picture(640, 480, "image/jpeg"), "image/jpeg");
    await page.goto(`${origin}/index.html`);
    assert.equal(await page.evaluate((src) => window.page.show(src), url(mxc)), null);
});

// CS-HDR-09
test("a picture is embedded by other sites", async () => {
    const mxc = await upload(picture(640, 480, "image/jpeg"), "image/jpeg");
    await page.goto(`${origin}/index.html`);
    assert.deepEqual(await page.evaluate((src) => window.page.show(src), link(mxc)), [640, 480]);
});

for (const kind of ["webm", "mp4"]) {
    // CS-DL-16
    test(`a video in ${kind} is sought in by ranges`, async () => {
        const content = await readFile(join(DIRECTORY, `video.${kind}`));
        await seekAround(content, await upload(content, `video/${kind}`));
    });
}

// CS-DL-03, CS-DL-16
test("a video that Synapse had before is sought in by ranges", async () => {
    const content = await readFile(join(DIRECTORY, "video.mp4"));
    const before = await logIn(ALICE, UPSTREAM);
    const { content_uri: mxc } = await before.uploadContent(content, { type: "video/mp4" });
    await seekAround(content, mxc);
});

/** Watches a video here and there, and sees to it that ranges were read for that. */
async function seekAround(content, mxc) {
    await begin();
    const opened = await page.evaluate((src) => window.page.open(src), url(mxc));
    assert.ok(Math.abs(opened.duration - DURATION) < 0.2, `${opened.duration}`);
    assert.ok(opened.seekable > DURATION - 1, `${opened.seekable}`);
    assert.deepEqual(opened.size, [640, 360]);
    assertShows(opened, 0);

    for (const time of [55.5, 30.25, 48.75]) {
        const reached = await page.evaluate((to) => window.page.seek(to), time);
        assert.equal(reached.time, time);
        assertShows(reached, Math.floor(time));
    }
    const played = await page.evaluate((until) => window.page.play(until), 50.1);
    assert.ok(played >= 50.1 && played < DURATION, `${played}`);
    assertRanges(await page.evaluate(() => window.page.answers), content.length);
}

/** The frame that is shown must be of this second. */
function assertShows({ time, greys }, second) {
    const [tens, ones] = greys.map((grey) => Math.round(grey / STEP));
    assert.equal(10 * tens + ones, second, `${greys} at ${time}`);
}

/** Every answer must be the part that was asked for, and the parts must be jumped to, forth and back. */
function assertRanges(answers, size) {
    assert.ok(answers.length > 1, "the video was read at once");
    const starts = answers.map(({ range, status, contentRange }) => {
        const [, start, end] = /^bytes=(\d+)-(\d*)$/.exec(range);
        assert.equal(status, 206);
        assert.equal(contentRange, `bytes ${start}-${end || size - 1}/${size}`);
        return Number(start);
    });
    assert.ok(starts.some((start) => start > size / 2), `only ${starts}`);
    assert.ok(starts.some((start, index) => index && start < starts[index - 1]), `only forward: ${starts}`);
}

// CS-CRE-01, CS-PUT-01, CS-DL-08, CS-DL-16
test("a video is watched while it is being uploaded", async () => {
    const content = await readFile(join(DIRECTORY, "early.mp4"));
    const part = Math.floor(content.length * 0.6);
    const { content_uri: mxc } = await create(alice);
    const uploading = send(`${URL_OF_MEDIARY}/_matrix/media/v3/upload/${mxc.slice("mxc://".length)}`, {
        method: "PUT",
        headers: {
            Authorization: `Bearer ${alice.getAccessToken()}`,
            "Content-Type": "video/mp4",
            "Content-Length": content.length,
        },
    });
    uploading.write(content.subarray(0, part));

    await begin();
    const opened = await page.evaluate((src) => window.page.open(src), url(mxc));
    assertShows(opened, 0);
    assert.ok(Math.abs(opened.duration - DURATION) < 0.2, `${opened.duration}`);
    assertShows(await page.evaluate(() => window.page.seek(5.5)), 5);

    // What is to be seen there is sent after it was asked for.
    const end = page.evaluate(() => window.page.seek(58.5));
    uploading.end(content.subarray(part));
    const [answer] = await once(uploading, "response");
    assert.equal(answer.resume().statusCode, 200);
    assertShows(await end, 58);
});

// CS-DL-16
test("a picture that is looked at again is not sent again", async () => {
    const mxc = await upload(picture(640, 480, "image/jpeg"), "image/jpeg");
    await begin();
    const session = await context.newCDPSession(page);
    const statuses = [];
    session.on("Network.responseReceivedExtraInfo", ({ statusCode }) => statuses.push(statusCode));
    await session.send("Network.enable");
    const answers = [];
    for (let time = 0; time < 2; time++) {
        const asked = [url(mxc), { cache: "no-cache" }];
        answers.push(await page.evaluate((asks) => window.page.ask(...asks), asked));
    }
    assert.deepEqual(answers[1], answers[0]);
    assert.equal(answers[0].status, 200);
    assert.equal(statuses.at(-1), 304);
});

// CS-CORS-01, CS-AUTH-01
test("a page logs in and out across origins", async () => {
    const mxc = await upload("for members", "text/plain");
    await page.goto(`${origin}/index.html`);
    const post = (path, body, token) =>
        page.evaluate((asked) => window.page.ask(...asked), [
            `${URL_OF_MEDIARY}/_matrix/client/v3/${path}`,
            { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" }, token },
        ]);
    const identifier = { type: "m.id.user", user: BOB.userId };
    const answer = await post("login", { type: "m.login.password", identifier, password: BOB.password });
    const { access_token: token } = JSON.parse(answer.text);
    // Not from what the browser keeps, which it shows without asking anybody.
    const asking = [url(mxc), { token, cache: "no-store" }];
    const read = () => page.evaluate((asked) => window.page.ask(...asked), asking);
    assert.equal((await read()).text, "for members");
    assert.equal((await post("logout", {}, token)).status, 200);
    assert.equal(JSON.parse((await read()).text).errcode, "M_UNKNOWN_TOKEN");
});

// CS-DL-16
test("what a browser has kept for one session is not shown to another without asking", async () => {
    const mxc = await upload("for members", "text/plain");
    await page.goto(`${origin}/index.html`);
    const ask = (token) => page.evaluate((asked) => window.page.ask(...asked), [url(mxc), { token }]);
    assert.equal((await ask(alice.getAccessToken())).text, "for members");
    assert.equal(JSON.parse((await ask("over")).text).errcode, "M_UNKNOWN_TOKEN");
});

// CS-CORS-01, CS-CORS-02, CS-CORS-03, CS-CORS-04
test("a page reads JSON of another origin after a preflight", async () => {
    const preflights = await watchPreflights();
    await begin();
    const config = `${URL_OF_MEDIARY}/_matrix/client/v1/media/config`;
    const { status, text } = await page.evaluate((target) => window.page.ask(target), config);
    assert.deepEqual([status, JSON.parse(text)], [200, { "m.upload.size": MAX_UPLOAD }]);
    const asked = preflights.filter((answer) => answer.url === config);
    assert.ok(asked.length, "there was no preflight");
    assert.ok(asked.every((answer) => answer.status === 204), JSON.stringify(asked));
});

/** Collects the answers to preflights, which only the browser itself sees. */
async function watchPreflights() {
    const seen = [];
    const session = await context.newCDPSession(page);
    session.on("Network.responseReceived", ({ type, response }) => {
        if (type === "Preflight") seen.push({ url: response.url, status: response.status });
    });
    await session.send("Network.enable");
    return seen;
}

// CS-CORS-01, CS-CORS-04, CS-DL-16
test("a page sees range, size, name and tag of a part", async () => {
    const content = picture(640, 480, "image/jpeg");
    const mxc = await upload(content, "image/jpeg", "walk.jpg");
    await begin();
    const headers = { Range: "bytes=100-199" };
    const part = await page.evaluate((asked) => window.page.ask(...asked), [url(mxc), { headers }]);
    assert.equal(part.status, 206);
    assert.equal(part.headers["content-range"], `bytes 100-199/${content.length}`);
    assert.equal(part.headers["content-length"], "100");
    assert.equal(part.headers["content-disposition"], "inline; filename=walk.jpg");
    assert.ok(part.headers.etag);
});

// CS-CORS-01, CS-GEN-03, CS-AUTH-04, CS-AUTH-05, CS-DL-12
test("a page reads why it was refused", async () => {
    const mxc = await upload("for members", "text/plain");
    await begin();
    for (const [target, options, status, errcode] of [
        [url(UNKNOWN), {}, 404, "M_NOT_FOUND"],
        [url(mxc), { token: "nobody" }, 401, "M_UNKNOWN_TOKEN"],
        // Not of the routes that the worker adds a token to.
        [`${URL_OF_MEDIARY}/_matrix/media/v3/config`, { token: "" }, 401, "M_MISSING_TOKEN"],
        [`${URL_OF_MEDIARY}/_matrix/client/v1/media/nowhere`, {}, 404, "M_UNRECOGNIZED"],
        [`${URL_OF_MEDIARY}/_matrix/client/v1/media/config`, { method: "DELETE" }, 405, "M_UNRECOGNIZED"],
    ]) {
        const answer = await page.evaluate((asked) => window.page.ask(...asked), [target, options]);
        assert.deepEqual([answer.status, JSON.parse(answer.text).errcode], [status, errcode]);
    }
});

// CS-UP-01, CS-UP-04, CS-CORS-02
test("a page uploads with progress and shows what it has uploaded", async () => {
    await begin();
    const { status, text, progress } = await page.evaluate(async (target) => {
        const canvas = new OffscreenCanvas(200, 100);
        canvas.getContext("2d").fillRect(0, 0, 200, 100);
        const blob = await canvas.convertToBlob({ type: "image/png" });
        return window.page.upload(target, blob, "image/png");
    }, `${URL_OF_MEDIARY}/_matrix/media/v3/upload`);
    assert.deepEqual([status, progress], [200, true], text);
    const size = await page.evaluate((src) => window.page.show(src), url(JSON.parse(text).content_uri));
    assert.deepEqual(size, [200, 100]);
});

// CS-UP-06, CS-LIM-01, CS-CORS-01
test("a page reads that its upload is too large", async () => {
    await begin();
    const { status, text } = await page.evaluate(
        ([target, size]) => window.page.upload(target, new Blob([new Uint8Array(size)]), "video/mp4"),
        [`${URL_OF_MEDIARY}/_matrix/media/v3/upload`, MAX_UPLOAD + 1],
    );
    assert.deepEqual([status, JSON.parse(text).errcode], [413, "M_TOO_LARGE"]);
});

const RUN = `new Image().src = "ORIGIN${EVIDENCE}"`;
const HTML = `<!doctype html><title>not run</title><script>${RUN}</script><img src=x onerror='${RUN}'>`;
const SIZE = `width="40" height="30"`;
const SVG = `<svg xmlns="http://www.w3.org/2000/svg" ${SIZE}><script>${RUN}</script><rect ${SIZE}/></svg>`;
const XML = `<html xmlns="http://www.w3.org/1999/xhtml"><head><script>${RUN}</script></head></html>`;

// Types that a browser runs scripts in, and such as it might take for one of them.
const HARMFUL = [
    ["text/html", HTML],
    ["Text/HTML; charset=utf-8", HTML],
    ["application/xhtml+xml", XML],
    ["image/svg+xml", SVG],
    ["text/xml", XML],
    ["application/octet-stream", HTML],
    ["application/x-unknown", HTML],
];

/** What was uploaded, with the address that a script in it would ask for. */
function armed(content) {
    return content.replaceAll("ORIGIN", origin);
}

for (const [type, content] of HARMFUL) {
    // CS-HDR-03, CS-INL-01, CS-HDR-11
    test(`${type} is saved instead of opened`, async () => {
        const mxc = await upload(armed(content), type);
        const saving = page.waitForEvent("download");
        await assert.rejects(page.goto(link(mxc)), /Download is starting/);
        const saved = await saving;
        assert.equal(await readFile(await saved.path(), "utf8"), armed(content));
        assert.equal(page.url(), "about:blank");
        assert.equal(evidence, 0);
    });
}

// CS-UP-03, CS-HDR-04
test("a file is saved under the name it was uploaded with", async () => {
    const name = "Grüße; from a \"walk\".bin";
    const mxc = await upload("bytes", "application/octet-stream", name);
    const saving = page.waitForEvent("download");
    await assert.rejects(page.goto(link(mxc)), /Download is starting/);
    // Chromium puts underscores for what a file system may not like.
    assert.equal((await saving).suggestedFilename(), name.replaceAll('"', "_"));
});

// CS-HDR-03, CS-INL-01
test("HTML in a frame is saved instead of opened", async () => {
    const mxc = await upload(armed(HTML), "text/html");
    await page.goto(`${origin}/index.html`);
    const saving = page.waitForEvent("download");
    await page.evaluate((src) => {
        const frame = document.createElement("iframe");
        frame.src = src;
        document.body.append(frame);
    }, link(mxc));
    await (await saving).path();
    assert.equal(evidence, 0);
});

// CS-HDR-03, CS-HDR-11
test("HTML that calls itself text is shown as text", async () => {
    const mxc = await upload(armed(HTML), "text/plain");
    const answer = await page.goto(link(mxc));
    assert.equal(answer.status(), 200);
    assert.equal(await page.evaluate(() => document.contentType), "text/plain");
    assert.equal(await page.evaluate(() => document.body.innerText), armed(HTML));
    assert.equal(evidence, 0);
});

// CS-HDR-11
test("a text is not run as a script", async () => {
    const mxc = await upload(armed(RUN), "text/plain");
    await page.goto(`${origin}/index.html`);
    const outcome = await page.evaluate(
        (src) =>
            new Promise((resolve) => {
                const script = document.createElement("script");
                script.onload = script.onerror = ({ type }) => resolve(type);
                script.src = src;
                document.body.append(script);
            }),
        link(mxc),
    );
    assert.deepEqual([outcome, evidence], ["error", 0]);
});

// CS-HDR-09
test("an SVG is shown as a picture, and its script does not run", async () => {
    const mxc = await upload(armed(SVG), "image/svg+xml");
    await begin();
    assert.deepEqual(await page.evaluate((src) => window.page.show(src), url(mxc)), [40, 30]);
    assert.equal(evidence, 0);
});

// CS-HDR-08
test("HTML runs no script even where it is opened", async () => {
    const mxc = await upload(armed(HTML), "text/html");
    await openWithout(mxc, "content-disposition");
    await page.goto(link(mxc));
    assert.deepEqual([await page.title(), evidence], ["not run", 0]);
});

// What the checks above rest on.
test("without what Mediary says of it, HTML is opened and runs its script", async () => {
    const mxc = await upload(armed(HTML), "text/html");
    await openWithout(mxc, "content-disposition", "content-security-policy");
    const noticed = page.waitForRequest(`${origin}${EVIDENCE}`);
    await page.goto(link(mxc));
    await noticed;
    assert.ok(evidence > 0);
});

/** Takes fields from what Mediary says of this media. */
function openWithout(mxc, ...fields) {
    return page.route(({ href }) => href === link(mxc), async (route) => {
        const response = await route.fetch();
        const headers = response.headers();
        for (const field of fields) {
            assert.ok(headers[field], `there is no ${field}`);
            delete headers[field];
        }
        await route.fulfill({ response, headers });
    });
}
