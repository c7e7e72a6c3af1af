// Reconstruct and Window, as a researcher uses them.
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { accessible, asNpy, compared, downloaded, drawn, drop, eventually, npy, open, panel, reconstructed, SAMPLE, until } from "./checks.js";
import { chromium, serve, served } from "./shared.js";

const sample = () => readFileSync(SAMPLE);
const WINDOWS = { All: [-300, 1400], Lung: [-600, 1500], "Soft tissue": [40, 400], Bone: [500, 2000] };

/** Moves the mouse to a pixel of an image of 362 x 362. */
async function pointAt(page, id, column, row) {
  const box = await panel(page, id).locator(".image").boundingBox();
  await page.mouse.move(box.x + ((column + 0.5) / 362) * box.width, box.y + ((row + 0.5) / 362) * box.height);
}

export const reconstruct = () => test("the genuine observation beside its ground truth", async (t) => {
  const { page, done } = await open(chromium, served.address);
  await drop(page, "lodopab_test_3456.npz", sample());
  await drawn(page, "fbp");
  await drawn(page, "model best");
  const classic = npy(await reconstructed(served.address, "model=best&method=fbp&window=hann&cutoff=1"));
  const learned = npy(await reconstructed(served.address, "model=best"));

  await t.test("PSNR and SSIM are those of the project's metrics", async () => {
    await panel(page, "fbp").getByText("PSNR").waitFor();
    await eventually(async () => assert.match(await panel(page, "fbp").locator(".figures").innerText(), /PSNR 29\.11 dB, SSIM 0\.6809/));
  });

  await t.test("the value under the pointer is that of the .npy, in all images", async () => {
    for (const [column, row] of [[100, 120], [200, 301], [0, 361]]) {
      await pointAt(page, "fbp", column, row);
      for (const [id, { values }] of [["fbp", classic], ["model best", learned]]) {
        const shown = panel(page, id).locator(`.value[data-value="${values[column * 362 + row].toPrecision(9)}"]`);
        await shown.waitFor({ timeout: 3000 });
      }
    }
  });

  await t.test("presets and dragging set level and width", async () => {
    for (const [name, [level, width]] of Object.entries(WINDOWS)) {
      await page.getByRole("button", { name, exact: true }).click();
      await eventually(async () => {
        assert.equal(await page.locator("label:has-text('Level') input").inputValue(), String(level));
        assert.equal(await page.locator("label:has-text('Width') input").inputValue(), String(width));
      });
    }
    await pointAt(page, "fbp", 100, 100);
    await page.mouse.down();
    await pointAt(page, "fbp", 150, 140);
    await page.mouse.up();
    await eventually(async () => assert.ok(+(await page.locator("label:has-text('Width') input").inputValue()) > 2000));
    await page.waitForFunction(() => /width=\d+/.test(location.hash));
    await page.getByRole("button", { name: "All", exact: true }).click();
  });

  await t.test("the profile is that of the .npy, through all images", async () => {
    await page.getByLabel("Values in").selectOption("raw");
    await page.keyboard.down("Shift");
    await pointAt(page, "model best", 60, 200);
    await page.mouse.down();
    await pointAt(page, "model best", 300, 180);
    await page.mouse.up();
    await page.keyboard.up("Shift");
    const table = (await downloaded(page, () => page.getByRole("button", { name: "CSV" }).click())).toString().trim().split("\n").slice(1);
    assert.equal(table.length, 241);
    table.forEach((line, i) => {
      const at = (60 + i) * 362 + Math.round(200 - (20 * i) / 240);
      const [, fbp, best] = line.split(",").map(Number);
      assert.equal(Math.fround(fbp), classic.values[at]);
      assert.equal(Math.fround(best), learned.values[at]);
    });
    await page.getByLabel("Values in").selectOption("HU");
  });

  await t.test("downloads are the service's", async () => {
    await page.getByRole("button", { name: "Lung" }).click();
    const png = await downloaded(page, () => page.getByRole("button", { name: "PNG of best" }).click());
    const own = await reconstructed(served.address, "model=best&output=png&level=-600&width=1500");
    const differing = await compared(page, png, own);
    assert.deepEqual(differing, [362, 362, 0]);
    const saved = npy(await downloaded(page, () => page.getByRole("button", { name: "npy of best" }).click()));
    assert.deepEqual(saved.shape, [362, 362]);
    assert.deepEqual(saved.values, learned.values);
    const dicom = await downloaded(page, () => page.getByRole("button", { name: "DICOM of best" }).click());
    assert.equal(dicom.toString("latin1", 128, 132), "DICM");
  });

  await t.test("the cut-off is answered live, and what is chosen is in the address", async () => {
    const cutoff = page.locator("label:has-text('Cut-off') input");
    for (const value of ["0.9", "0.7", "0.5", "0.6"]) await cutoff.fill(value);
    await page.locator("label:has-text('Window') select").selectOption("cosine");
    await panel(page, "fbp").getByText("cosine 0.60").waitFor();
    const wanted = npy(await reconstructed(served.address, "model=best&method=fbp&window=cosine&cutoff=0.6"));
    await pointAt(page, "fbp", 150, 150);
    await panel(page, "fbp").locator(`.value[data-value="${wanted.values[150 * 362 + 150].toPrecision(9)}"]`).waitFor();
    await page.waitForFunction(() => location.hash.includes("window=cosine") && location.hash.includes("cutoff=0.6"));
  });

  await t.test("two models, and the difference to one of them", async () => {
    await serve("second", "chest-low-dose");
    await page.evaluate(() => dispatchEvent(new Event("focus"))); // it asks then, and every ten seconds
    await page.getByRole("checkbox", { name: /^second/ }).check();
    await drawn(page, "model second");
    await panel(page, "model best").getByLabel("others minus this").check();
    await pointAt(page, "fbp", 180, 180);
    await panel(page, "model second").locator(".value[data-value='0.00000000']").waitFor(); // the same weights
    await panel(page, "fbp").getByText("minus best").waitFor();
    await panel(page, "truth").getByText("minus best").waitFor();
    await accessible(page);
    await page.getByRole("button", { name: "Show the images" }).click();
    await page.getByRole("checkbox", { name: /^second/ }).uncheck();
  });

  await t.test("all of it from the keyboard", async () => {
    const image = panel(page, "fbp").locator(".image");
    await image.focus();
    await page.keyboard.press("0");
    await page.keyboard.press("+");
    await page.waitForFunction(() => location.hash.includes("at="));
    await page.keyboard.press("ArrowRight");
    await eventually(async () => assert.notEqual(await panel(page, "fbp").locator(".value").getAttribute("data-value"), ""));
    await page.keyboard.press("Escape");
    await page.keyboard.press("l");
    for (let i = 0; i < 5; i++) await page.keyboard.press("Shift+ArrowRight");
    await page.getByRole("button", { name: "Remove the line" }).waitFor();
    await page.keyboard.press("l");
    await page.keyboard.press("0");
  });

  await t.test("a reload, and another tab, show the same", async () => {
    await page.waitForFunction(() => location.hash.includes("width=1500") && !location.hash.includes("at="));
    await page.reload();
    await drawn(page, "fbp");
    await panel(page, "fbp").getByText("cosine 0.60").waitFor();
    await eventually(async () => assert.equal(await page.locator("label:has-text('Width') input").inputValue(), "1500"));
  });
  await done();
});

export const painters = () => test("the two painters draw the same", async () => {
  const pictures = [];
  for (const name of ["a graphics card", "SwiftShader"]) {
    const { page, done } = await open(chromium, "about:blank");
    await page.addInitScript((name) => {
      const ask = WebGL2RenderingContext.prototype.getParameter;
      WebGL2RenderingContext.prototype.getParameter = function (what) {
        return what === 0x9246 ? name : ask.call(this, what); // the unmasked renderer
      };
    }, name);
    await page.goto(`${served.address}#reconstruct?file=lodopab_test_3456.npz&at=0.4,0.5,3.3&minus=truth`);
    await drawn(page, "model best");
    await drawn(page, "truth");
    await panel(page, "fbp").getByText("minus Ground truth").waitFor();
    for (const id of ["fbp", "truth"]) pictures.push(await panel(page, id).locator("canvas").screenshot());
    const kinds = await page.evaluate(() => document.querySelector("[data-panel=fbp] canvas").getContext("2d") !== null);
    assert.equal(kinds, name === "SwiftShader");
    await done();
  }
  const { page, done } = await open(chromium, served.address);
  for (const [a, b] of [[0, 2], [1, 3]]) {
    const [, , most] = await compared(page, pictures[a], pictures[b]);
    assert.ok(most <= 4, `they differ by ${most} of 255`); // a colour of 256 further, where rounding decides
  }
  await done();
});

export const stacks = () => test("a stack is looked through, and read ahead", async () => {
  const { page, done } = await open(chromium, served.address);
  const one = npy(await arrayOf(sample()));
  const count = 12;
  const stack = new Float32Array(count * one.values.length);
  for (let i = 0; i < count; i++) stack.set(one.values.map((value) => value * (1 - i / 40)), i * one.values.length);
  const asked = [];
  page.on("request", (request) => request.url().includes("/reconstruct") && asked.push(request.headers()["x-shape"]));
  let had = 0; // images that came since the file was dropped, by either method
  page.on("response", (answer) => {
    const shape = answer.url().includes("/reconstruct") && answer.request().headers()["x-shape"].split(",");
    if (shape) had += shape.length === 3 ? +shape[0] : 1;
  });
  const file = join(served.folder, "stack.npy");
  writeFileSync(file, asNpy([count, ...one.shape], stack));
  await page.locator("input[type=file]").first().setInputFiles(file);
  await until(() => had >= 2 * count);
  await page.waitForLoadState("networkidle");
  const before = asked.length;
  const slider = page.locator("label:has-text('Slice') input");
  for (let i = 0; i < count; i++) await slider.fill(String(i));
  await panel(page, "fbp").locator("canvas").waitFor();
  await page.locator("label:has-text('Slice') output", { hasText: "11 of 0 to 11" }).waitFor();
  assert.equal(asked.length, before, "slices that were read ahead were asked for again");
  await done();
});

async function arrayOf(content) {
  const answer = await fetch(`${served.address}array`, { method: "POST", body: content });
  return Buffer.from(await answer.arrayBuffer());
}
