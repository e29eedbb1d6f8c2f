// What the suites in JavaScript share: accounts, sessions and pictures.

import { randomBytes } from "node:crypto";
import { basename } from "node:path";

import jpeg from "jpeg-js";
import { PNG } from "pngjs";
import { Method, createClient } from "matrix-js-sdk";

// What the lines of the report begin with.
export const CLIENT = basename(process.argv[1]) === "with_js_sdk.mjs" ? "matrix-js-sdk" : "Chromium";

function setting(name) {
    const value = process.env[`MEDIARY_CLIENTS_${name}`];
    if (!value) throw new Error(`MEDIARY_CLIENTS_${name} is not set: see run.sh`);
    return value;
}

export const URL_OF_MEDIARY = setting("URL");
export const UPSTREAM = setting("UPSTREAM"); // Synapse itself
export const MAX_UPLOAD = Number(setting("MAX_UPLOAD"));
export const DIRECTORY = setting("DIR");
export const ALICE = { userId: setting("ALICE"), password: setting("ALICE_PASSWORD") };
export const BOB = { userId: setting("BOB"), password: setting("BOB_PASSWORD") };
export const SERVER_NAME = ALICE.userId.slice(ALICE.userId.indexOf(":") + 1);

// A media id that nobody has.
export const UNKNOWN = `mxc://${SERVER_NAME}/${randomBytes(16).toString("hex")}`;

// The SDK logs every request; Mediary's log has them too.
const quiet = () => {};
const logger = { trace: quiet, debug: quiet, info: quiet, warn: quiet, error: quiet, getChild: () => logger };

/** Logs in with a password; returns a client with a session of its own. */
export async function logIn({ userId, password }, baseUrl = URL_OF_MEDIARY) {
    const session = await createClient({ baseUrl, logger }).loginRequest({
        type: "m.login.password",
        identifier: { type: "m.id.user", user: userId },
        password,
    });
    return createClient({
        baseUrl,
        userId: session.user_id,
        deviceId: session.device_id,
        accessToken: session.access_token,
        logger,
    });
}

/** Creates an address for a later upload, which the SDK has no method for. */
export function create(client) {
    return client.http.authedRequest(Method.Post, "/create", {}, {}, { prefix: "/_matrix/media/v1" });
}

// What the quarters of a picture are filled with, from the top left, line by line.
const QUARTERS = [[200, 30, 30], [30, 160, 30], [30, 30, 200], [220, 200, 40]];
const LOSS = 12; // how far from its colour JPEG may bring the middle of a quarter

/**
 * A picture of four quarters, so that another one, or a turned one, is told from it. It is a little rough, as a photograph
 * is: a flat one takes fewer bytes than its thumbnail, and is then its own.
 */
export function picture(width, height, type) {
    const data = Buffer.alloc(width * height * 4, 255);
    for (let y = 0; y < height; y++) {
        for (let x = 0; x < width; x++) {
            const quarter = (y < height / 2 ? 0 : 2) + (x < width / 2 ? 0 : 1);
            const rough = ((Math.imul(x, 0x9e3779b9) ^ Math.imul(y, 0x85ebca6b)) >>> 0) % 5;
            data.set(QUARTERS[quarter].map((value) => value + rough), (y * width + x) * 4);
        }
    }
    if (type === "image/jpeg") return jpeg.encode({ width, height, data }, 90).data;
    return PNG.sync.write(Object.assign(new PNG({ width, height }), { data }));
}

/** Decodes a picture, sees to it that it has the four quarters, and returns its size. */
export function sizeOf(bytes, type) {
    const { width, height, data } = type === "image/jpeg" ? jpeg.decode(bytes) : PNG.sync.read(bytes);
    QUARTERS.forEach((colour, index) => {
        const x = Math.floor(width / 4) + (index % 2) * Math.floor(width / 2);
        const y = Math.floor(height / 4) + Math.floor(index / 2) * Math.floor(height / 2);
        const seen = [...data.subarray((y * width + x) * 4, (y * width + x) * 4 + 3)];
        if (seen.some((value, channel) => Math.abs(value - colour[channel]) > LOSS)) {
            throw new Error(`quarter ${index} is ${seen} instead of ${colour}`);
        }
    });
    return [width, height];
}
