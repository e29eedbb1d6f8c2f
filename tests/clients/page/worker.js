// The service worker: adds the page's token to requests for media, as Element Web's does, and passes ranges on. Tells
// the page what came of each.

const MEDIA = "/_matrix/client/v1/media/";

// As on a slow connection, a range comes at this many bytes in a millisecond, but for its beginning. Otherwise a player
// may have read the whole file by the time it seeks.
const RATE = 1_000;
const BEGINNING = 2_000_000;

self.addEventListener("install", (event) => event.waitUntil(self.skipWaiting()));
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

self.addEventListener("fetch", (event) => {
    const { request } = event;
    // What asks with a token of its own needs none.
    if (!new URL(request.url).pathname.startsWith(MEDIA) || request.headers.has("Authorization")) return;
    event.respondWith(read(request, event.clientId));
});

async function read(request, clientId) {
    const page = await self.clients.get(clientId);
    const headers = { Authorization: `Bearer ${await tokenOf(page)}` };
    const range = request.headers.get("Range");
    if (range) headers.Range = range;
    const answer = await fetch(request.url, { headers, signal: request.signal });
    const contentRange = answer.headers.get("Content-Range");
    page.postMessage({ url: request.url, range, status: answer.status, contentRange });
    return answer.status === 206 ? new Response(answer.body.pipeThrough(slowly()), answer) : answer;
}

function slowly() {
    let brought = 0;
    return new TransformStream({
        async transform(chunk, controller) {
            controller.enqueue(chunk);
            brought += chunk.length;
            if (brought > BEGINNING) await new Promise((resolve) => setTimeout(resolve, chunk.length / RATE));
        },
    });
}

// A worker may be ended and begun again between two requests, so it keeps nothing.
function tokenOf(page) {
    const { port1, port2 } = new MessageChannel();
    return new Promise((resolve) => {
        port1.onmessage = ({ data }) => resolve(data);
        page.postMessage("token", [port2]);
    });
}
