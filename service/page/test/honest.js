// What the page says of an image is what it shows, whatever was asked for meanwhile; and files are taken for what they are.
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { asNpy, downloaded, drawn, drop, dropAll, eventually, npy, open, panel, SAMPLE } from "./checks.js";
import { chromium, served } from "./shared.js";

const sample = () => readFileSync(SAMPLE);

/** The pair of the sample as two arrays. */
async function pair() {
  const answer = await fetch(`${served.address}array`, { method: "POST", body: sample() });
  const sinogram = Buffer.from(await answer.arrayBuffer());
  return [sinogram, asNpy([362, 362], new Float32Array(362 * 362).map((_, i) => 0.2 + 0.001 * (i % 50)))];
}

/** Has requests wait until they are let go. */
async function held(page, pattern) {
  let release;
  const until = new Promise((resolve) => (release = resolve));
  await page.route(pattern, async (route) => {
    await until;
    await route.continue().catch(() => undefined); // the page has given it up
  });
  return async () => {
    release();
    await page.unroute(pattern);
  };
}

export const names = () => test("an image has its own name until there is another", async (t) => {
  const { page, done } = await open(chromium, served.address);
  await drop(page, "lodopab_test_3456.npz", sample());
  await drawn(page, "fbp");
  const fbp = panel(page, "fbp");
  await fbp.getByText("PSNR").waitFor();

  await t.test("while it waits, and when that is cancelled", async () => {
    const letGo = await held(page, "**/reconstruct?*window=none*");
    await page.locator("label:has-text('Window') select").selectOption("none");
    await fbp.getByText("Classic FBP: none 1.00 is being made").waitFor();
    assert.equal(await fbp.locator("figcaption strong").innerText(), "Classic FBP: hann 1.00");
    const table = page.waitForEvent("download");
    await fbp.getByRole("button", { name: "npy of" }).click();
    assert.equal((await table).suggestedFilename(), "Classic-FBP-hann-1.00-0.npy");
    await fbp.getByRole("button", { name: "Cancel" }).click();
    assert.equal(await fbp.locator("figcaption strong").innerText(), "Classic FBP: hann 1.00");
    await letGo();
    await fbp.getByRole("button", { name: "Try again" }).click();
    await eventually(async () => assert.match(await fbp.locator(".figures").innerText(), /PSNR 26\.91/));
    assert.equal(await fbp.locator("figcaption strong").innerText(), "Classic FBP: none 1.00");
  });
  await t.test("of slices, too", async () => {
    const one = npy((await pair())[0]);
    const file = join(served.folder, "two.npy");
    const both = new Float32Array(2 * one.values.length);
    both.set(one.values);
    writeFileSync(file, asNpy([2, ...one.shape], both));
    await page.locator("input[type=file]").first().setInputFiles(file);
    await fbp.getByText("Classic FBP: none 1.00, slice 0", { exact: true }).waitFor();
    const letGo = await held(page, "**/reconstruct?*window=cosine*");
    await page.locator("label:has-text('Window') select").selectOption("cosine");
    await page.getByRole("slider", { name: "Slice" }).fill("1");
    await fbp.getByText("Classic FBP: cosine 1.00, slice 1 is being made").waitFor();
    assert.equal(await fbp.locator("figcaption strong").innerText(), "Classic FBP: none 1.00, slice 0");
    await letGo();
    await fbp.getByText("Classic FBP: cosine 1.00, slice 1", { exact: true }).waitFor();
  });
  await t.test("going back to the view leaves the models as they were", async () => {
    await page.getByRole("link", { name: "Models" }).click();
    await page.getByRole("heading", { name: "Runs" }).waitFor();
    await page.goBack();
    await drawn(page, "model best");
    assert.equal(await page.locator("[role=alert]").count(), 0);
  });
  await t.test("an address that nobody wrote", async () => {
    await page.goto(`${served.address}#reconstruct?file=lodopab_test_3456.npz&slice=1e9&window=evil&models=best,best&minus=nothing`);
    await page.reload();
    await drawn(page, "model best");
    await fbp.getByText("Classic FBP: hann 1.00", { exact: true }).waitFor();
    await eventually(async () => assert.equal(await page.locator("[data-panel^=model]").count(), 1));
    assert.equal(await page.locator("[role=alert], .bar").count(), 0);
  });
  await t.test("a button that is pressed can be read while the mouse is over it", async () => {
    const lung = page.getByRole("button", { name: "Lung" });
    await lung.click();
    await eventually(async () => {
      const { color, backgroundColor } = await lung.evaluate((element) => ({ ...getComputedStyle(element) }));
      assert.notEqual(color, backgroundColor);
    });
  });
  await done();
});

export const together = () => test("files that belong together", async (t) => {
  const { page, done } = await open(chromium, served.address);
  const [sinogram, truth] = await pair();
  const fbp = panel(page, "fbp");
  await t.test("a sinogram and its ground truth, in either order", async () => {
    for (const files of [{ "b.npy": truth, "a.npy": sinogram }, { "c.npy": sinogram, "d.npy": truth }]) {
      await dropAll(page, files);
      await page.getByText(/^[ac]\.npy: 1000 × 513$/).waitFor();
      await fbp.getByText("PSNR").waitFor();
    }
    assert.equal(await page.locator("[role=alert]").count(), 0);
  });
  await t.test("what is refused changes nothing", async () => {
    await drop(page, "photo.jpg", "a photograph");
    await page.getByRole("alert").filter({ hasText: "no format that is known" }).waitFor();
    await fbp.getByText("PSNR").waitFor();
    await dropAll(page, { "e.npy": sinogram, "f.npy": sinogram });
    await page.getByRole("alert").filter({ hasText: "Which is the sinogram, e.npy or f.npy?" }).waitFor();
    await dropAll(page, { "scan.json": '{"angles": "x"}' });
    await page.getByRole("alert").filter({ hasText: "scan.json is no scan" }).waitFor();
    await fbp.getByText("PSNR").waitFor();
  });
  await t.test("as many images as sinograms", async () => {
    const path = join(served.folder, "truths.npy");
    writeFileSync(path, asNpy([3, 362, 362], new Float32Array(3 * 362 * 362).map((_, i) => i % 7)));
    await page.locator("input[type=file]").nth(1).setInputFiles(path);
    await page.getByRole("alert").filter({ hasText: "truths.npy has 3 images for 1 sinogram" }).waitFor();
    await fbp.getByText("PSNR").waitFor({ state: "detached" });
  });
  await t.test("a scan goes with its sinogram", async () => {
    const geometry = { angles: { count: 60, first: 0, step: Math.PI / 60 }, cells: 91, cell_size: 0.001, image_shape: [61, 61], pixel_size: 0.001 };
    await dropAll(page, { "scan.json": JSON.stringify({ geometry }), "small.npy": asNpy([60, 91], new Float32Array(5460).fill(0.1)) });
    await page.getByText("In the scan of scan.json: 60 angles, 91 cells.").waitFor();
    await eventually(async () => assert.equal(await page.locator("[data-panel^=model]").count(), 0));
    await drawn(page, "fbp");
    await drop(page, "c.npy", sinogram);
    await drawn(page, "model best");
    await page.getByText("In the scan of").waitFor({ state: "detached" });
    assert.equal(await page.locator("[role=alert]").count(), 0);
  });
  await done();
});

export const touch = () => test("fingers", async () => {
  const { page, done } = await open(chromium, served.address, { width: 390, height: 844, touch: true });
  await page.getByRole("button", { name: "Take the sample" }).tap();
  await drawn(page, "fbp");
  const image = panel(page, "fbp").locator(".image");
  await image.scrollIntoViewIfNeeded();
  await image.tap();
  await eventually(async () => assert.match(await panel(page, "fbp").locator(".value").innerText(), /HU/));
  const dock = page.locator(".dock summary");
  await eventually(async () => assert.equal(await dock.innerText(), "Display: level −300, width 1400 HU"));
  assert.ok((await dock.boundingBox()).y < 844, "level and width are at hand");
  await dock.tap();
  await page.getByRole("button", { name: "Lung" }).tap();
  await eventually(async () => assert.equal(await dock.innerText(), "Display: level −600, width 1500 HU"));
  await done();
});
