// Answers that go on and on: events and logs, which come as they happen.
import { call, isAbort, Problem } from "./api";

/** The text of an answer, part by part. */
export async function* textOf(address: string, init: RequestInit): AsyncGenerator<string> {
  const answer = await call(address, init);
  if (answer.status === 204 || !answer.body) return;
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  const next = () =>
    reader.read().catch((error: unknown) => {
      throw isAbort(error) ? error : new Problem(0, "The answer was cut off half way; the page asks again.");
    });
  for (let part = await next(); !part.done; part = await next()) yield part.value;
}

export interface ServiceEvent {
  name: string;
  id: string;
  data: unknown;
}

/** Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html), with the token in a header. */
export async function* eventsOf(address: string, seen: string, signal: AbortSignal): AsyncGenerator<ServiceEvent> {
  let rest = "";
  for await (const text of textOf(address, { signal, headers: seen ? { "Last-Event-ID": seen } : {} })) {
    const blocks = (rest + text.replaceAll("\r", "")).split("\n\n");
    rest = blocks.pop()!;
    for (const block of blocks) {
      const fields = new Map<string, string>();
      for (const line of block.split("\n")) {
        const [, name, value] = /^(\w+): ?(.*)$/.exec(line) ?? [];
        if (name) fields.set(name, (fields.has(name) ? `${fields.get(name)}\n` : "") + value);
      }
      if (fields.has("data")) yield { name: fields.get("event") ?? "message", id: fields.get("id") ?? "", data: JSON.parse(fields.get("data")!) };
    }
  }
}
