// Requests to the service, with the tab's token, and their errors in words.
import { signal } from "@preact/signals";
import type { components } from "./service";

export type Documents = components["schemas"];

/** Something that went wrong, in words that say what to do. */
export class Problem extends Error {
  constructor(
    /** The HTTP status; 0 where no answer came. */
    readonly status: number,
    message: string,
    /** What of the request does not hold, by its dotted names. */
    readonly errors: Documents["ProblemDocument"]["errors"] = [],
  ) {
    super(message);
  }
}

export const NO_ANSWER = "The service does not answer. The page tries again until it does; nothing is lost.";
export const CUT_OFF = "The answer was cut off half way; try again.";
export const CHANGED = "The file has changed, or is gone, since it was dropped: drop it again.";
const FOR_CALLERS = /(?:; |\. )(?:GET|POST) \/\S+ (?:describes|adds|lists)[^;.]*| \((?:POST|GET) [^)]*\)/g;
const TOKEN = "fbp-ray-token";
const RETRY_MS = 3000;
const TRIES = 3; // of a service that is busy and says when to come again

/** Why the page asks for a token; null while it need not. */
export const tokenAsked = signal<string | null>(null);
/** Whether the service does not answer; the page then asks again and again. */
export const gone = signal(false);
/** Counts how often the service came back. */
export const returns = signal(0);

const MOST_TOKEN = 1000; // characters

/** What is wrong with a token, which has to be a header's value; empty where nothing is. */
export function tokenFault(token: string): string {
  if (token.length > MOST_TOKEN) return `This is no token: it has ${token.length} characters, a token at most ${MOST_TOKEN}.`;
  return /^[!-~]*$/.test(token) ? "" : "This is no token: it has a space, or signs other than plain letters, digits and punctuation.";
}

function keptToken(): string | null {
  const token = sessionStorage.getItem(TOKEN);
  if (token === null || !tokenFault(token)) return token;
  forgetToken();
  return null;
}

/** Keeps a token for this tab alone. */
export function keepToken(token: string) {
  sessionStorage.setItem(TOKEN, token);
  tokenAsked.value = null;
}

export function forgetToken() {
  sessionStorage.removeItem(TOKEN);
}

export const hasToken = () => keptToken() !== null;

/** The answer of the service, whatever it is; raises Problem. */
export async function call(address: string, init: RequestInit = {}, tries = TRIES): Promise<Response> {
  const token = keptToken();
  const headers = new Headers(init.headers);
  if (token) headers.set("Authorization", `Bearer ${token}`);
  let answer: Response;
  try {
    answer = await fetch(address, { ...init, headers });
  } catch (error) {
    if (init.signal?.aborted) throw error;
    if (!(await canBeRead(init.body))) throw new Problem(0, CHANGED);
    void watchForReturn();
    throw new Problem(0, NO_ANSWER);
  }
  if (answer.ok) return answer;
  const seconds = Number(answer.headers.get("Retry-After"));
  if (answer.status === 503 && seconds > 0 && tries > 0) {
    await pause(1000 * seconds);
    init.signal?.throwIfAborted();
    return call(address, init, tries - 1);
  }
  const problem = await explained(answer);
  if (answer.status === 401) {
    forgetToken();
    tokenAsked.value = token ? problem.message : "";
  }
  throw problem;
}

/** Whether the files that a request sends are still what they were; the browser says no more than that it failed. */
async function canBeRead(body: unknown): Promise<boolean> {
  const parts = body instanceof FormData ? [...body.values()] : [body];
  try {
    for (const part of parts) if (part instanceof Blob) await part.slice(0, 1).arrayBuffer();
    return true;
  } catch {
    return false;
  }
}

/** A message of the service without what is for callers of its API. */
export const forReaders = (message: string) => message.replaceAll(FOR_CALLERS, "");

async function explained(answer: Response): Promise<Problem> {
  const { status, statusText } = answer;
  try {
    const { detail = `${status} ${statusText}`, errors } = (await answer.json()) as Partial<Documents["ProblemDocument"]>;
    return new Problem(status, forReaders(detail), errors);
  } catch {
    return new Problem(status, `${status} ${statusText || "without a reason"}; the service's log says more`);
  }
}

/** What an answer holds; raises Problem where it is cut off, or not the service's. */
async function complete<T>(answer: Response, content: Promise<T>): Promise<T> {
  try {
    const found = await content;
    if (!isPage(answer)) return found;
  } catch (error) {
    if (isAbort(error)) throw error;
    if (!isPage(answer)) throw new Problem(0, CUT_OFF);
  }
  throw new Problem(0, "A web page came instead of the service's answer: does a proxy or a login stand between? Reload this page.");
}

const isPage = (answer: Response) => answer.headers.get("Content-Type")?.startsWith("text/html") ?? false;

export const whole = (answer: Response): Promise<ArrayBuffer> => complete(answer, answer.arrayBuffer());

export async function getJson<T>(address: string, signal?: AbortSignal): Promise<T> {
  const answer = await call(address, { signal: signal ?? null });
  return complete(answer, answer.json() as Promise<T>);
}

export async function send<T>(method: "POST" | "DELETE", address: string, body?: unknown, headers = {}): Promise<T | null> {
  const answer = await call(address, {
    method,
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    headers: body === undefined ? headers : { "Content-Type": "application/json", ...headers },
  });
  return answer.status === 204 ? null : complete(answer, answer.json() as Promise<T>);
}

async function watchForReturn() {
  if (gone.value) return;
  gone.value = true;
  while (gone.value) {
    await pause(RETRY_MS);
    try {
      gone.value = !(await fetch("health/ready")).ok;
    } catch {
      // it is not back yet
    }
  }
  returns.value += 1;
}

export const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** What to tell of an error. */
export function words(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Whether an error is only that nobody waits for the answer any more. */
export const isAbort = (error: unknown) => error instanceof DOMException && error.name === "AbortError";
