// One browser and one service for all tests, and data of which it can train.
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before } from "node:test";
import { browser, service } from "./serving.js";
import { smallData } from "./training.js";

export let chromium, served;
before(async () => {
  const folder = mkdtempSync(join(tmpdir(), "page-"));
  [chromium, served] = await Promise.all([browser(), service({ folder }), smallData(folder)]);
  await serve("best", "chest-low-dose"); // by name: a run that is completed meanwhile does not take its place
});
after(async () => {
  await chromium?.close();
  await served?.stop();
  served?.remove();
});

/** Has a model serve. */
export async function serve(name, source) {
  const answer = await fetch(`${served.address}models/${name}/activate`, {
    method: "POST",
    body: JSON.stringify({ source }),
    headers: { "Content-Type": "application/json" },
  });
  if (!answer.ok) throw new Error(await answer.text());
}
