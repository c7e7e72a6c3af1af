// What goes wrong is said where it was caused, in words that say what to do, and nothing that was chosen is lost.
import assert from "node:assert/strict";
import { readFileSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { accessible, asNpy, drawn, drop, eventually, open, panel, SAMPLE } from "./checks.js";
import { service } from "./serving.js";
import { chromium, serve, served } from "./shared.js";

const TOKENS = { FBPRAY_ACCESS__RECONSTRUCT: '["reconstruct-only-1"]', FBPRAY_ACCESS__OPERATE: '["operate-all-12345"]' };
const alert = (page, text) => page.getByRole("alert").filter({ hasText: text }).first().waitFor({ timeout: 10000 });

export const files = () => test("files that cannot be reconstructed", async (t) => {
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
    const path = join(served.folder, "huge.h5");
    writeFileSync(path, "");
    truncateSync(path, 600e6);
    await page.locator("input[type=file]").first().setInputFiles(path);
    await alert(page, /huge\.h5 has 600 MB, and the service takes at most 5\d\d MB at a time\. Nothing was sent/);
    assert.deepEqual(sent, []);
  });
  await t.test("a file that the browser cannot read", async () => {
    const path = join(served.folder, "moved.npz");
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
    await panel(page, "fbp").getByRole("alert").waitFor();
    await eventually(async () => assert.equal(await page.getByRole("button", { name: "Try again" }).count(), 0)); // it would be refused again
    await accessible(page);
  });
  await t.test("a ground truth of another shape", async () => {
    await drop(page, "lodopab_test_3456.npz", readFileSync(SAMPLE));
    await drawn(page, "fbp");
    const path = join(served.folder, "truth.npy");
    writeFileSync(path, asNpy([10, 10], new Float32Array(100)));
    await page.locator("input[type=file]").nth(1).setInputFiles(path);
    await alert(page, /ground truth has images of 10 × 10, but the reconstructions have 362 × 362/);
    writeFileSync(path, asNpy([362, 362], new Float32Array(362 * 362).fill(NaN)));
    await page.locator("input[type=file]").nth(1).setInputFiles(path);
    await alert(page, /ground truth has values that are NaN or infinite/);
  });
  await t.test("a geometry that is none", async () => {
    await drop(page, "scan.json", "{not json");
    await alert(page, /scan\.json is no scan: JSON with angles/);
    await drawn(page, "fbp");
  });
  await done();
});

export const failingService = () => test("a service that fails", async (t) => {
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
  await t.test("a list of models that is cut off half way", async () => {
    await page.route("**/models", (route) => route.fulfill({ contentType: "application/json", body: '{"models": [' }));
    await page.goto(`${served.address}#reconstruct?models=%E0%A4%A`); // which is no address either
    await page.reload();
    await alert(page, "The answer was cut off half way; try again.");
    await page.unroute("**/models");
    await page.getByRole("button", { name: "Try again" }).click();
    await page.getByRole("alert").waitFor({ state: "detached" });
    await page.goto(served.address);
    await page.reload();
    await drop(page, "lodopab_test_3456.npz", readFileSync(SAMPLE));
    await drawn(page, "model best");
    await drawn(page, "fbp");
  });
  await t.test("long work can be cancelled", async () => {
    let release;
    const held = new Promise((resolve) => (release = resolve));
    await page.route("**/reconstruct?*cutoff=0.5", async (route) => {
      await held;
      await route.abort().catch(() => undefined); // the page has given it up
    });
    await page.getByRole("slider", { name: "Cut-off" }).fill("0.5");
    await panel(page, "fbp").getByRole("button", { name: "Cancel" }).click();
    await alert(page, "Cancelled: what was asked for was not made.");
    release();
    await page.unroute("**/reconstruct?*cutoff=0.5");
    await panel(page, "fbp").getByRole("button", { name: "Try again" }).click();
    await drawn(page, "fbp");
  });
  await t.test("a model that was deleted meanwhile", async () => {
    await serve("passing", "chest-low-dose");
    await page.evaluate(() => dispatchEvent(new Event("focus")));
    await page.getByRole("checkbox", { name: "passing" }).check();
    await drawn(page, "model passing");
    await fetch(`${served.address}models/passing`, { method: "DELETE" });
    await drop(page, "again.npz", readFileSync(SAMPLE));
    await alert(page, /there is no model 'passing'; there are best, .*classic-fbp/);
  });
  await done();
});

export const stoppedService = () => test("the service goes and comes back", async () => {
  const { page, done } = await open(chromium, served.address);
  await drop(page, "lodopab_test_3456.npz", readFileSync(SAMPLE));
  await drawn(page, "fbp");
  await served.stop();
  await page.locator("label:has-text('Cut-off') input").fill("0.6");
  await page.getByText("The service does not answer. The page tries again every three seconds").waitFor();
  const columns = asNpy([1000, 513], new Float32Array(513000).fill(0.1)).toString("latin1").replace("'fortran_order': False, ", "'fortran_order': True,  ");
  await drop(page, "columns.npy", Buffer.from(columns, "latin1")); // which the service has to read
  await served.start();
  await page.getByText("The page tries again every three seconds").waitFor({ state: "detached" });
  await drawn(page, "fbp");
  await panel(page, "fbp").getByText("hann 0.60").waitFor();
  await page.getByText("columns.npy: 1000 × 513").waitFor(); // nothing is lost
  await done();
});

export const tokens = () => test("tokens", async (t) => {
  const { address, stop, remove } = await service({ env: TOKENS });
  try {
    const { page, done } = await open(chromium, address);
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
      await other.goto(address);
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
    await stop();
    remove();
  }
});
