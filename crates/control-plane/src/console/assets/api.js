// The one place that talks to the server.
//
// A pasted API key is exchanged for a session where the server makes sessions; otherwise it stays in this page's
// memory, is written nowhere, and is gone when the page is left.

/** A refusal of the server (RFC 9457), or a request that did not arrive. */
export class ProblemError extends Error {
  constructor(problem) {
    super(problem.detail || problem.title);
    this.title = problem.title;
    this.detail = problem.detail ?? "";
    this.status = problem.status ?? 0;
    this.retryAfter = problem.retry_after_seconds ?? null;
  }
}

const PREFIX = "/api/v1";
const held = { key: null, csrf: null, session: null, paths: null, providers: [] };

export const session = () => held.session;

function headers(method) {
  const all = { Accept: "application/json" };
  if (held.key) all.Authorization = `Bearer ${held.key}`;
  if (method !== "GET" && held.csrf) all["Siltstone-Csrf"] = held.csrf;
  return all;
}

async function problemOf(response) {
  const fallback = { title: `The server answered ${response.status}`, detail: "", status: response.status };
  try {
    return new ProblemError({ ...fallback, ...(await response.json()), status: response.status });
  } catch {
    return new ProblemError(fallback);
  }
}

/** Sends it; a change once more when no answer came: its key keeps it from being made twice. */
async function sent(method, path, init) {
  const at = path.startsWith(`${PREFIX}/`) ? path : PREFIX + path;
  try {
    return await fetch(at, init);
  } catch (error) {
    if (error.name === "AbortError" || !init.headers["Idempotency-Key"]) throw error;
    return await fetch(at, init);
  }
}

/** Sends one request. Rejects with a ProblemError, or an AbortError. */
export async function call(method, path, { body, signal } = {}) {
  const init = { method, headers: headers(method), signal, credentials: "same-origin", cache: "no-store" };
  if (body !== undefined) {
    init.body = JSON.stringify(body);
    init.headers["Content-Type"] = "application/json";
  }
  if (method !== "GET" && crypto.randomUUID) init.headers["Idempotency-Key"] = crypto.randomUUID();
  let response;
  try {
    response = await sent(method, path, init);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    const detail = "The control plane does not answer. Check the network; the page tries again by itself.";
    throw new ProblemError({ title: "No answer", detail });
  }
  if (!response.ok) {
    const problem = await problemOf(response);
    if (problem.status === 401 && held.session) {
      forget();
      document.dispatchEvent(new CustomEvent("siltstone-signed-out", { detail: problem }));
    }
    throw problem;
  }
  if (response.status === 204) return null;
  const text = await response.text();
  return text ? JSON.parse(text) : null;
}

export const get = (path, options) => call("GET", path, options);

/** A path from parts, each encoded. */
export const path = (...parts) => `/${parts.map(encodeURIComponent).join("/")}`;

/** Parameters of a query; those that are empty are left out. */
export function query(parameters) {
  const given = Object.entries(parameters).filter(
    ([, value]) => value !== undefined && value !== null && value !== "",
  );
  return given.length ? `?${new URLSearchParams(given)}` : "";
}

/** The first parts of a list: as many items as are shown, and where it goes on. */
export async function list(at, { parameters = {}, atLeast = 0, signal, limit } = {}) {
  const items = [];
  let cursor = null;
  do {
    const page = await get(at + query({ ...parameters, limit, cursor }), { signal });
    items.push(...page.items);
    cursor = page.next_cursor ?? null;
  } while (cursor && items.length < atLeast);
  return { items, cursor };
}

function forget() {
  Object.assign(held, { key: null, csrf: null, session: null });
}

/** Which endpoints the server has, as `{ "/api/v1/...": { get, post } }`. */
export async function endpoints() {
  held.paths ??= (await get("/openapi.json")).paths ?? {};
  return held.paths;
}

// The server's own document says whether it makes sessions, and of what.
const place = (method, end) => Object.keys(held.paths ?? {}).find((at) => at.endsWith(end) && held.paths[at][method]);

/** With whom people sign on here, as `[{ title, login }]`. */
export const providers = () => held.providers;

/** True when an API key is exchanged for a session. */
export const exchangesKeys = () => Boolean(place("post", "/session"));

/** Who is signed in, or null. Without sessions, a page that begins knows nobody. */
export async function restore() {
  if (place("get", "/sign-on")) held.providers = (await get("/sign-on")).providers;
  if (!exchangesKeys() && held.providers.length === 0) return null;
  try {
    adopt(await get("/session"));
  } catch (error) {
    if (error.status !== 401) throw error;
    forget();
  }
  return held.session;
}

function adopt(answer) {
  held.session = answer;
  if (answer.csrf_token) held.csrf = answer.csrf_token;
}

export async function signIn(key) {
  if (exchangesKeys()) {
    await call("POST", "/session", { body: { api_key: key } }).then((answer) => answer && adopt(answer));
    adopt(await get("/session"));
    return;
  }
  held.key = key;
  try {
    adopt(await get("/session"));
  } catch (error) {
    forget();
    throw error;
  }
}

/** Ends the session. Gives where the provider's own session is ended, if it has such a place. */
export async function signOut() {
  try {
    const at = place("post", "/session/logout");
    return !held.key && at ? (await call("POST", at)).provider_logout : null;
  } finally {
    forget();
  }
}

// The server decides; this only spares people buttons that it would refuse.
const covers = (pattern, resource) =>
  pattern === "organisation" ||
  pattern === resource ||
  resource.startsWith(`${pattern}/`) ||
  (pattern.endsWith("*") && resource.startsWith(pattern.slice(0, -1)));

/** True when the session may do this with a resource such as `environment/E/cluster/C/table/T`. */
export function can(permission, resource = "organisation") {
  const grants = held.session?.grants ?? [];
  return grants.some((grant) => grant.permissions?.includes(permission) && covers(grant.resource, resource));
}
