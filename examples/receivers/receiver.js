// Receives webhooks with Node.js alone: verifies each, keeps it once, answers. Your work then reads the inbox.
//
//     WEBHOOK_SECRET=whsec_… PORT=9000 INBOX=inbox node receiver.js
"use strict";
const { createHmac, randomUUID, timingSafeEqual } = require("node:crypto");
const { mkdirSync } = require("node:fs");
const { link, unlink, writeFile } = require("node:fs/promises");
const { createServer } = require("node:http");
const { join } = require("node:path");

const { WEBHOOK_SECRET, PORT = "9000", INBOX = "inbox" } = process.env;
const LONGEST = 2_000_000; // bytes

function verify(secret, headers, body, now) {
  const id = headers["webhook-id"] ?? "", timestamp = headers["webhook-timestamp"] ?? "";
  if (!/^[0-9]{1,12}$/.test(timestamp) || Math.abs(now - Number(timestamp)) > 300) return false;
  const key = Buffer.from(secret.replace(/^whsec_/, ""), "base64");
  const mac = createHmac("sha256", key).update(`${id}.${timestamp}.`).update(body).digest("base64");
  const expected = Buffer.from(`v1,${mac}`);
  const offered = (headers["webhook-signature"] ?? "").split(" ").map((one) => Buffer.from(one)); // several in a change
  return offered.filter((one) => one.length === expected.length && timingSafeEqual(one, expected)).length > 0;
}

// False if it was there before: a file can be linked to one name once, whatever else goes on. A table does the same
// with a unique index: INSERT … ON CONFLICT DO NOTHING.
async function keep(id, body) {
  const draft = join(INBOX, `.${randomUUID()}`);
  await writeFile(draft, body, { flush: true });
  try {
    await link(draft, join(INBOX, `${id}.json`));
    return true;
  } catch (error) {
    if (error.code === "EEXIST") return false;
    throw error;
  } finally {
    await unlink(draft);
  }
}

async function receive(request, response) {
  const parts = [];
  let length = 0;
  for await (const part of request) {
    if ((length += part.length) > LONGEST) return response.writeHead(413).end();
    parts.push(part);
  }
  const body = Buffer.concat(parts), id = request.headers["webhook-id"] ?? "";
  const verified = verify(WEBHOOK_SECRET, request.headers, body, Date.now() / 1000) && /^\w{1,100}$/.test(id);
  const isTest = verified && JSON.parse(body).test === true; // nothing has happened
  const isNew = verified && !isTest && (await keep(id, body));
  response.writeHead(verified ? 204 : 401).end(); // a duplicate is a success, too
  console.log(verified ? `${isTest ? "test" : isNew ? "accepted" : "duplicate"} ${id}` : "refused");
}

mkdirSync(INBOX, { recursive: true });
const server = createServer((request, response) => receive(request, response).catch(() => response.destroy()));
server.listen(Number(PORT), "127.0.0.1", () => console.log(`listening on http://127.0.0.1:${PORT}`)); // behind TLS
