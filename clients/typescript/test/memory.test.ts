// Against a running server: PGRECALL_URL says where, PGRECALL_KEY is a key with read and write.

import assert from "node:assert/strict";
import { test } from "node:test";

import { connect, RequestFailed, type Schemas } from "../src/index.js";

const url = process.env["PGRECALL_URL"] ?? "http://127.0.0.1:8750";
const key = process.env["PGRECALL_KEY"];
const memory = connect(url, { key });

const decision = {
  project_id: "typescript",
  agent_version: "1.0.0",
  perception: { backlog_tasks: 12, note: "release on Friday" },
  reasoning: { decision: "create_sprint" },
  action: { committed_points: 21 },
} satisfies Schemas["RecordEpisode"];

async function recorded(): Promise<Schemas["Episode"]> {
  const { data } = await memory.POST("/api/v1/episodes", { body: decision });
  assert.ok(data);
  return data;
}

test("what was recorded is recalled with its outcome", async () => {
  const episode = await recorded();
  assert.equal(episode.project_id, "typescript");
  await memory.POST("/api/v1/episodes/{episode_id}/outcome", {
    params: { path: { episode_id: episode.episode_id } },
    body: { outcome: { done: true }, quality: 0.9 },
  });
  const { data } = await memory.POST("/api/v1/episodes/recall", {
    body: { query: "release on Friday", project_id: "typescript", mode: "words", limit: 3 },
  });
  assert.ok(data);
  const found = data.hits.map((hit) => hit.episode);
  assert.ok(found.some((one) => one.episode_id === episode.episode_id));
  assert.ok(found.some((one) => one.outcome_quality === 0.9));
});

test("a session opens, is updated and closes", async () => {
  const { data: session } = await memory.POST("/api/v1/sessions", {
    body: { project_id: "typescript", goal: "plan the release" },
  });
  assert.ok(session);
  const path = { session_id: session.session_id };
  const { data: thinking } = await memory.POST("/api/v1/sessions/{session_id}/thoughts", {
    params: { path },
    body: { thought: { text: "ask for capacity first" } },
  });
  assert.equal(thinking?.thought_history?.length, 1);
  const { data: closed } = await memory.POST("/api/v1/sessions/{session_id}/close", {
    params: { path },
  });
  assert.equal(closed?.is_active, false);
});

test("an unknown version of a row is not sent again", async () => {
  const { episode_id } = await recorded();
  const params = { path: { episode_id } };
  const first = await memory.GET("/api/v1/episodes/{episode_id}", { params });
  const etag = first.response.headers.get("ETag");
  assert.ok(etag);
  const again = await memory.GET("/api/v1/episodes/{episode_id}", {
    params,
    headers: { "If-None-Match": etag },
  });
  assert.equal(again.response.status, 304);
});

test("a problem says what was wrong", async () => {
  await assert.rejects(
    memory.POST("/api/v1/episodes", { body: { ...decision, agent_version: "v".repeat(21) } }),
    (error) => {
      assert.ok(error instanceof RequestFailed);
      assert.equal(error.problem.status, 422);
      assert.match(error.problem.detail, /agent_version/);
      return true;
    },
  );
});

test("a wrong key is refused", { skip: key === undefined && "the server takes no keys" }, async () => {
  await assert.rejects(
    connect(url, { key: `${key}x` }).GET("/api/v1/memory"),
    (error) => error instanceof RequestFailed && error.problem.status === 401,
  );
});

test("types are those of the interface", () => {
  // @ts-expect-error: there is no such path
  const noPath = () => memory.GET("/api/v1/nothing");
  // @ts-expect-error: a number is no project
  const noNumber: Schemas["RecordEpisode"] = { ...decision, project_id: 1 };
  assert.equal(typeof noPath, "function");
  assert.equal(typeof noNumber, "object");
});
