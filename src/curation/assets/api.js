// Requests to the server.

export class ApiError extends Error {
  constructor(status, error, retryAfter) {
    super(error?.message ?? `HTTP ${status}`);
    this.status = status;
    this.code = error?.code ?? "";
    this.count = error?.count;
    this.retryAfter = retryAfter;
  }
}

// The server cannot be reached, or gives no answer in time.
export class Unreachable extends Error {}

const TIMEOUT = 20_000;
export const events = new EventTarget();

// Answers parsed JSON, or null if there is none.
export async function call(method, path, body, signal) {
  const signals = [AbortSignal.timeout(TIMEOUT), ...(signal ? [signal] : [])];
  const headers = body === undefined ? {} : { "Content-Type": "application/json" };
  const request = { method, headers, signal: AbortSignal.any(signals), cache: "no-store" };
  if (body !== undefined) request.body = JSON.stringify(body);
  let response, answer;
  try {
    response = await fetch(path, request);
    const type = response.headers.get("Content-Type") ?? "";
    answer = type.includes("json") ? await response.json() : null;
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Unreachable(String(error));
  }
  if (response.ok) {
    events.dispatchEvent(new Event("reached"));
    return answer;
  }
  if (response.status === 401) events.dispatchEvent(new Event("signed-out"));
  throw new ApiError(response.status, answer?.error, Number(response.headers.get("Retry-After")) || 0);
}

export const get = (path, parameters = {}, signal) => {
  const given = Object.entries(parameters).filter(([, value]) => value !== undefined && value !== null);
  const query = new URLSearchParams(given).toString();
  return call("GET", query ? `${path}?${query}` : path, undefined, signal);
};
export const post = (path, body, signal) => call("POST", path, body, signal);

export const isTemporary = (error) =>
  error instanceof Unreachable || (error instanceof ApiError && (error.status >= 500 || [408, 429].includes(error.status)));

export const wait = (milliseconds, signal) => new Promise((resolve) => {
  // A signal that was aborted before tells nobody.
  if (signal?.aborted) return resolve();
  const timer = setTimeout(resolve, milliseconds);
  signal?.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
});

// Milliseconds until the next attempt: doubles up to a bound; a random part keeps clients apart.
export const backOff = (failures, error, bound = 10_000) => {
  const asked = 1000 * (error?.retryAfter ?? 0);
  return Math.max(asked, Math.min(bound, 250 * 2 ** Math.min(failures, 10)) * (0.5 + Math.random() / 2));
};

// Tries again as long as the error is temporary.
export async function patiently(attempt, signal) {
  for (let failures = 0; ; failures++) {
    try {
      return await attempt();
    } catch (error) {
      if (signal?.aborted || !isTemporary(error)) throw error;
      const again = new AbortController();
      const stop = () => again.abort();
      events.addEventListener("reached", stop, { once: true });
      signal?.addEventListener("abort", stop, { once: true });
      await wait(backOff(failures, error), again.signal);
      events.removeEventListener("reached", stop);
      if (signal?.aborted) throw error;
    }
  }
}

export function randomHex(bytes) {
  const numbers = crypto.getRandomValues(new Uint8Array(bytes));
  return Array.from(numbers, (number) => number.toString(16).padStart(2, "0")).join("");
}
