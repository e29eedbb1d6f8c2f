// A reporter for node:test: a line for each check as it ends, and why if it failed. The same lines as suite.py prints.

import { inspect } from "node:util";

import { CLIENT } from "./suite.mjs";

export default async function* report(events) {
    for await (const { type, data } of events) {
        if (type !== "test:pass" && type !== "test:fail") continue;
        const outcome = type === "test:pass" ? "PASS" : "FAIL";
        const seconds = (data.details.duration_ms / 1000).toFixed(2).padStart(6);
        yield `   ${outcome} ${seconds} s  ${CLIENT}: ${data.name}\n`;
        if (type === "test:fail") yield `${inspect(data.details.error.cause ?? data.details.error)}\n`;
    }
}
