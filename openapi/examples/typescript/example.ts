// A record and its history, by the types that openapi-typescript generates and the client openapi-fetch.

import assert from "node:assert/strict";
import { env, pid } from "node:process";
import createClient from "openapi-fetch";
import type { components, paths } from "../../generated/typescript/schema.js";

type Problem = components["schemas"]["Problem"];
type Item = components["schemas"]["UserBulkItem"];
type PriorVersion = components["schemas"]["UserPriorVersion"];

const client = createClient<paths>({
  baseUrl: env["CHRONONAUT_URL"] ?? "http://127.0.0.1:8000",
  headers: { Authorization: `Bearer ${env["CHRONONAUT_TOKEN"] ?? ""}` },
});
const mergePatch = { "Content-Type": "application/merge-patch+json" };

/** A reason as a header takes it; what is not ASCII goes as RFC 8187 has it. */
function header(text: string): string {
  return /^[ -~]*$/.test(text) ? text : `UTF-8''${encodeURIComponent(text)}`;
}

/** The answer, if the request was answered with what was asked for. */
function expect<T>(result: { data?: T; error?: Problem }): T {
  if (result.data === undefined) throw new Error(JSON.stringify(result.error));
  return result.data;
}

/** The problem that a request must be answered with; a client decides by its status and its type. */
function problem<P extends Problem>(status: number, type: string, result: { error?: P }): P {
  assert(result.error !== undefined);
  assert.deepEqual(kindOf(result.error), [status, type]);
  return result.error;
}

/** Status and type of a problem, which is shown. */
function kindOf(found: Problem): [number, string] {
  console.log(`${found.status} ${found.type}: ${found.detail}`);
  return [found.status, found.type];
}

/** All prior versions of a user, page by page. */
async function pages(key: string): Promise<PriorVersion[]> {
  const versions: PriorVersion[] = [];
  let cursor: string | null = null;
  do {
    const query: { limit: number; cursor?: string } = cursor === null ? { limit: 1 } : { limit: 1, cursor };
    const page = expect(await client.GET("/history/user/{key}", { params: { path: { key }, query } }));
    versions.push(...page.versions);
    cursor = page.next;
  } while (cursor !== null);
  return versions;
}

/** Write several users in one transaction, all of them or none; the user is there, and had the stale ETag. */
async function writeMany(key: string, stale: string): Promise<void> {
  const guest = { email: `typescript-guest-${pid}@example.com`, password_hash: "$argon2id$of-guest" };
  const leaving = expect(await client.POST("/records/user", { body: guest })).key;

  const items: Item[] = [
    { operation: "create", record: { email: `typescript-new-${pid}@example.com`, password_hash: "$argon2id$new" } },
    { operation: "change", key, changes: { name: "Ada, Countess of Lovelace" } },
    { operation: "delete", key: leaving },
  ];
  const params = { header: { "X-Change-Rationale": "New term" } };
  const written = expect(await client.POST("/bulk/user", { body: { items }, params }));
  const [made, changed, deleted] = written.items;
  assert(made !== undefined && changed !== undefined && deleted !== undefined);
  assert.equal(made.operation, "create");
  assert.deepEqual([changed.key, deleted.key, deleted.version], [key, leaving, null]);
  const last = (await pages(key)).at(-1);
  assert.equal(last?.operation, "update");
  assert.deepEqual(last?.change_info?.extra, { change_rationale: "New term" });

  const failing: Item[] = [
    { operation: "delete", key: made.key },
    { operation: "change", key, if_match: stale, changes: { name: "Ada" } },
    { operation: "delete", key: leaving },
  ];
  const answer = await client.POST("/bulk/user", { body: { items: failing } });
  const failed = problem(409, "/problems/bulk-failed", answer);
  assert("items" in failed && failed.items !== undefined);
  assert.deepEqual(
    failed.items.map((item) => [item.index, ...kindOf(item.problem)]),
    [
      [1, 412, "/problems/precondition-failed"],
      [2, 410, "/problems/deleted"],
    ],
  );

  // @ts-expect-error What changes a record says which one.
  const unfit: Item = { operation: "change", changes: { name: "Ada" } };
  assert.equal(unfit.operation, "change");
}

const body = { email: `typescript-${pid}@example.com`, name: "Ada Byron", password_hash: "$argon2id$of-typescript" };
const created = expect(
  await client.POST("/records/user", { body, params: { header: { "X-Change-Rationale": "Signed up" } } }),
);
const path = { key: created.key };

const etag = (await client.GET("/records/user/{key}", { params: { path } })).response.headers.get("ETag") ?? "";
const changed = expect(
  await client.PATCH("/records/user/{key}", {
    body: { name: "Ada King" },
    headers: mergePatch,
    params: {
      path,
      header: { "If-Match": etag, "X-Change-Rationale": header("Name nach der Heirat geändert") },
    },
  }),
);
assert.deepEqual([changed.version, changed.state.name], [created.version + 1, "Ada King"]);
const clear = { body: { name: null }, headers: mergePatch, params: { path } };
assert.equal(expect(await client.PATCH("/records/user/{key}", clear)).state.name, null);

// A key that was used before has older versions, too.
const [first, second] = (await pages(created.key)).slice(-2);
assert(first !== undefined && second !== undefined);
assert.deepEqual([first.version, second.version], [created.version, changed.version]);
assert.deepEqual(first.change_info?.extra, { change_rationale: "Name nach der Heirat geändert" });

const at = first.changed;
assert(at !== null);
const then = expect(await client.GET("/history/user/{key}/version_at", { params: { path, query: { at } } }));
assert.deepEqual([then.version, then.state.name], [changed.version, "Ada King"]);

const query = { from: String(created.version) };
const diff = expect(await client.GET("/history/user/{key}/diff", { params: { path, query } }));
assert("changes" in diff);
assert.deepEqual(diff.changes["name"], { from: "Ada Byron", to: null });

problem(404, "/problems/unknown-record", await client.GET("/records/user/{key}", { params: { path: { key: "0" } } }));
problem(409, "/problems/conflict", await client.POST("/records/user", { body }));
problem(
  412,
  "/problems/precondition-failed",
  await client.PATCH("/records/user/{key}", {
    body: { name: "Ada King" },
    headers: mergePatch,
    params: { path, header: { "If-Match": etag } },
  }),
);
const tooLong = { body: { name: "A".repeat(201) }, headers: mergePatch, params: { path } };
const invalid = problem(422, "/problems/invalid", await client.PATCH("/records/user/{key}", tooLong));
assert(invalid.errors !== undefined && "json" in invalid.errors);

// @ts-expect-error A hidden column is written and never read: no type of an answer has it.
assert.equal(created.state.password_hash, undefined);

await writeMany(created.key, etag);

await client.DELETE("/records/user/{key}", { params: { path, header: { "X-Change-Rationale": "Left" } } });
problem(410, "/problems/deleted", await client.GET("/records/user/{key}", { params: { path } }));
