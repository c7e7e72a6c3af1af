// What goes wrong is said where it was caused, in words that say what to do, and nothing that was chosen is lost.
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { accessible, asNpy, drawn, drop, open, panel, SAMPLE } from "./checks.js";
import { browser, service } from "./serving.js";

const folder = mkdtempSync(join(tmpdir(), "page-files-"));
let chromium, served;
before(async () => {
  [chromium, served] = await Promise.all([browser(), service({ env: { FBPRAY_LIMITS__BODY_MB: "4" } })]);
});
after(async () => {
  await chromium?.close();
  await served?.stop();
  served?.remove();
  rmSync(folder, { recursive: true, force: true });
});

const alert = (page, text) => page.getByRole("alert").filter({ hasText: text }).first().waitFor({ timeout: 10000 });

test("files that cannot be reconstructed", async (t) => {
  const { page, done } = await open(chromium, served.address);
  await t.test("a wrong file", async () => {
    await drop(page, "photo.jpg", "a photograph");
    await alert(page, /no format that is known; send \.npy, \.npz/);
  });
  await t.test("a file that was cut short", async () => {
    await drop(page, "half.npy", asNpy([1000, 513], new Float32Array(1000)));
    await alert(page, /half\.npy should have 2052128 bytes, but has 4128/);
  });
  await t.test("a huge file is refused before it is sent", async () => {
    const sent = [];
    page.on("request", (request) => request.method() === "POST" && sent.push(request.url()));
    await drop(page, "huge.h5", new Uint8Array(4.5e6));
    await alert(page, /huge\.h5 has 4\.5 MB, and the service takes at most 4\.0 MB at a time\. Nothing was sent/);
    assert.deepEqual(sent, []);
  });
  await t.test("a file that the browser cannot read", async () => {
    const path = join(folder, "moved.npz");
    writeFileSync(path, readFileSync(SAMPLE));
    await page.evaluate(() => {
      Blob.prototype.arrayBuffer = () => Promise.reject(new DOMException("gone", "NotReadableError"));
    });
    await page.locator("input[type=file]").first().setInputFiles(path);
    await alert(page, /The browser cannot read moved\.npz.*Choose it again/);
    await page.reload();
  });
  await t.test("a wrong shape: which the model takes, and what came", async () => {
    await drop(page, "turned.npy", asNpy([513, 1000], new Float32Array(513000)));
    await alert(page, /takes a sinogram of \(1000, 513\).*this has the shape \(513, 1000\); swap its last two axes/);
    assert.equal(await panel(page, "fbp").getByRole("alert").count(), 1);
    await accessible(page);
  });
  await t.test("a ground truth of another shape", async () => {
    await drop(page, "lodopab_test_3456.npz", readFileSync(SAMPLE));
    await drawn(page, "fbp");
    const path = join(folder, "truth.npy");
    writeFileSync(path, asNpy([10, 10], new Float32Array(100)));
    await page.locator("input[type=file]").nth(1).setInputFiles(path);
    await alert(page, /ground truth has images of 10 × 10, but the reconstructions have 362 × 362/);
  });
  await done();
});

test("a service that fails", async (t) => {
  const { page, done } = await open(chromium, served.address);
  await t.test("an answer that is cut off half way", async () => {
    await page.route("**/reconstruct?model=best", async (route) => {
      const answer = await route.fetch();
      await route.fulfill({ response: answer, body: (await answer.body()).subarray(0, 1000) });
    });
    await drop(page, "lodopab_test_3456.npz", readFileSync(SAMPLE));
    await alert(page, "The answer was cut off half way; try again.");
    await page.unroute("**/reconstruct?model=best");
    await panel(page, "model best").getByRole("button", { name: "Try again" }).click();
    await drawn(page, "model best");
  });
  await t.test("long work can be cancelled", async () => {
    let release;
    const held = new Promise((resolve) => (release = resolve));
    await page.route("**/reconstruct?*cutoff=0.5", async (route) => {
      await held;
      await route.abort().catch(() => undefined); // the page has given it up
    });
    await page.locator("label:has-text('Cut-off') input").fill("0.5");
    await panel(page, "fbp").getByRole("button", { name: "Cancel" }).click();
    await alert(page, "Cancelled.");
    release();
    await page.unroute("**/reconstruct?*cutoff=0.5");
    await panel(page, "fbp").getByRole("button", { name: "Try again" }).click();
    await drawn(page, "fbp");
  });
  await t.test("the service goes and comes back", async () => {
    await served.stop();
    await page.locator("label:has-text('Cut-off') input").fill("0.6");
    await page.getByText("The service does not answer. The page tries again every three seconds").waitFor();
    await served.start();
    await page.getByText("The page tries again every three seconds").waitFor({ state: "detached" });
    await drawn(page, "fbp");
    await panel(page, "fbp").getByText("hann 0.60").waitFor();
  });
  await t.test("a model that was deleted meanwhile", async () => {
    const json = { "Content-Type": "application/json" };
    const source = JSON.stringify({ source: "chest-low-dose" });
    await fetch(`${served.address}models/passing/activate`, { method: "POST", body: source, headers: json });
    await page.evaluate(() => dispatchEvent(new Event("focus")));
    await page.getByRole("checkbox", { name: "passing" }).check();
    await drawn(page, "model passing");
    await fetch(`${served.address}models/passing`, { method: "DELETE" });
    await drop(page, "again.npz", readFileSync(SAMPLE));
    await alert(page, /there is no model 'passing'; there are best, classic-fbp/);
  });
  await done();
});

test("tokens", async (t) => {
  const tokens = { FBPRAY_ACCESS__RECONSTRUCT: '["reconstruct-only-1"]', FBPRAY_ACCESS__OPERATE: '["operate-all-12345"]' };
  const guarded = await service({ env: tokens });
  try {
    const { page, done } = await open(chromium, guarded.address);
    await t.test("one is asked for, and a wrong one is refused", async () => {
      await page.getByLabel("Token").fill("not-a-token-of-it");
      await page.getByRole("button", { name: "Go on" }).click();
      await alert(page, "The token is not one of the service's.");
      await accessible(page);
    });
    await t.test("who may reconstruct sees no more than that", async () => {
      await page.getByLabel("Token").fill("reconstruct-only-1");
      await page.getByRole("button", { name: "Go on" }).click();
      await page.getByText("role reconstruct").waitFor();
      await drop(page, "lodopab_test_3456.npz", readFileSync(SAMPLE));
      await drawn(page, "model best");
      assert.deepEqual(await page.locator("nav a").allInnerTexts(), ["Reconstruct", "Window", "Models"]);
    });
    await t.test("a token is kept for its tab alone, and no cookie is", async () => {
      await page.reload();
      await page.getByText("role reconstruct").waitFor();
      const other = await page.context().newPage();
      await other.goto(guarded.address);
      await other.getByLabel("Token").waitFor();
      assert.deepEqual(await page.context().cookies(), []);
      assert.equal(await page.evaluate(() => localStorage.length), 0);
      await other.getByLabel("Token").fill("operate-all-12345");
      await other.getByRole("button", { name: "Go on" }).click();
      await other.getByText("role operate").waitFor();
      assert.deepEqual(await other.locator("nav a").allInnerTexts(), ["Reconstruct", "Window", "Jobs", "Models"]);
      await other.getByRole("button", { name: "Forget the token" }).click();
      await other.getByLabel("Token").waitFor();
    });
    await done();
  } finally {
    await guarded.stop();
    guarded.remove();
  }
});
