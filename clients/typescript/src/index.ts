/** A client of `pgrecall serve`, typed by its OpenAPI document. */

import createClient, { type Client, type ClientOptions } from "openapi-fetch";

import type { components, paths } from "./schema.js";

/** What the interface takes and gives, by name: `Schemas["Episode"]`. */
export type Schemas = components["schemas"];

/** Calls by method and path: `memory.POST("/api/v1/episodes", { body })`. */
export type Memory = Client<paths>;

/** Why a request failed, as the server tells it (RFC 9457). */
export interface Problem {
  type: string;
  title: string;
  status: number;
  /** What was wrong, with which value, and what to do. */
  detail: string;
  /** The field concerned, if there is one. */
  field?: string | null;
}

/** Thrown for every answer that is no success. */
export class RequestFailed extends Error {
  readonly problem: Problem;
  /** Seconds after which the same request may succeed, if the server says so. */
  readonly retryAfter: number | undefined;

  constructor(problem: Problem, retryAfter?: number) {
    super(`${problem.status} ${problem.title}: ${problem.detail}`);
    this.name = "RequestFailed";
    this.problem = problem;
    this.retryAfter = retryAfter;
  }
}

export interface Options extends Omit<ClientOptions, "baseUrl"> {
  /** A token of `pgrecall keys create`. */
  key?: string;
}

/**
 * Connect to a server; nothing is sent before the first call.
 *
 * @param url Where it listens, such as `http://127.0.0.1:8750`.
 */
export function connect(url: string, options: Options = {}): Memory {
  const { key, ...others } = options;
  const client = createClient<paths>({ ...others, baseUrl: url });
  client.use({
    onRequest({ request }) {
      if (key !== undefined) request.headers.set("Authorization", `Bearer ${key}`);
      return request;
    },
    async onResponse({ response }) {
      // A 304 answers a request that named the version it has.
      if (response.ok || response.status === 304) return undefined;
      throw new RequestFailed(await problemOf(response), retryAfterOf(response));
    },
  });
  return client;
}

async function problemOf(response: Response): Promise<Problem> {
  if (response.headers.get("Content-Type")?.startsWith("application/problem+json")) {
    return (await response.json()) as Problem;
  }
  // Something between here and the server answered.
  const { status, statusText } = response;
  const detail = (await response.text()).slice(0, 500);
  return { type: "about:blank", title: statusText, status, detail };
}

function retryAfterOf(response: Response): number | undefined {
  const value = Number(response.headers.get("Retry-After") ?? Number.NaN);
  return Number.isFinite(value) ? value : undefined;
}
