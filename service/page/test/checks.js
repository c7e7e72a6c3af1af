// What the tests look at again and again.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { ROOT } from "./serving.js";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
export const SAMPLE = join(ROOT, "tests/data/lodopab_pair/lodopab_test_3456.npz");
const HARMLESS = /GPU stall|status of 4\d\d|status of 50\d|net::ERR/; // answers that a test asks for are in the console, too

/** A page whose console is watched; `done` fails where anything was said there. */
export async function open(browser, address, { width = 1360, height = 900, dark = false, touch = false } = {}) {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: dark ? "dark" : "light", hasTouch: touch, acceptDownloads: true });
  const page = await context.newPage();
  page.setDefaultTimeout(15_000);
  const said = [];
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && !HARMLESS.test(message.text()) && said.push(message.text()));
  page.on("pageerror", (error) => said.push(error.stack));
  await page.goto(address);
  return {
    page,
    done: async () => {
      await context.close();
      assert.deepEqual(said, []);
    },
  };
}

/** Drops a file, as from a file manager. */
export const drop = (page, name, content) => dropAll(page, { [name]: content });

/** Drops files together, contents by name. */
export async function dropAll(page, files) {
  const data = await page.evaluateHandle((files) => {
    const transfer = new DataTransfer();
    for (const [name, base64] of files) transfer.items.add(new File([Uint8Array.from(atob(base64), (c) => c.charCodeAt(0))], name));
    return transfer;
  }, Object.entries(files).map(([name, content]) => [name, Buffer.from(content).toString("base64")]));
  await page.locator(".drop").first().dispatchEvent("drop", { dataTransfer: data });
}

export const panel = (page, id) => page.locator(`[data-panel="${id}"]`);

/** Waits until a panel shows an image and waits for none. */
export const drawn = (page, id) => page.waitForSelector(`[data-panel="${id}"][aria-busy="false"] canvas`);

/** No serious violation of the rules for accessible pages. */
export async function accessible(page) {
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => axe.run(document, { resultTypes: ["violations"] }));
  const serious = violations.filter(({ impact }) => ["serious", "critical"].includes(impact));
  assert.deepEqual(serious.map(({ id, nodes }) => [id, nodes.map(({ html }) => html.slice(0, 200))]), []);
}

/** Waits until something holds. */
export async function until(holds, seconds = 15) {
  for (const end = Date.now() + 1000 * seconds; !holds(); await new Promise((resolve) => setTimeout(resolve, 20))) {
    assert.ok(Date.now() < end, `in vain: ${holds}`);
  }
}

/** Looks until what is asserted holds: the page shows a moment later what came, or was done, and on a busy machine many. */
export async function eventually(look, seconds = 15) {
  for (const end = Date.now() + 1000 * seconds; ; await new Promise((resolve) => setTimeout(resolve, 30))) {
    try {
      return await look();
    } catch (error) {
      if (!(error instanceof assert.AssertionError) || Date.now() > end) throw error;
    }
  }
}

/** Nothing reaches beyond the sides of the page, and no words are cut off or lie over others. */
export async function fits(page) {
  assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), "the page is wider than the window");
  const cut = await page.evaluate(() =>
    [...document.querySelectorAll("a, button, label, legend, h1, h2, p, dt, dd, th, td, output, figcaption > *, .note, select")]
      .filter((element) => element.checkVisibility() && !element.closest(".hidden") && !element.title)
      .filter(({ clientWidth, scrollWidth, clientHeight, scrollHeight }) => clientWidth > 0 && (scrollWidth > clientWidth + 1 || scrollHeight > clientHeight + 4))
      .map((element) => element.outerHTML.slice(0, 200)),
  );
  assert.deepEqual(cut, []);
  const over = await page.evaluate(() => {
    const boxes = [...document.querySelectorAll("a, button, label > output, select, h2, dd, td, .figures > *, .note")]
      .filter((element) => element.checkVisibility() && !element.closest("svg, .u-legend, .hidden, .dock, .busy"))
      .map((element) => ({ element, box: element.getBoundingClientRect() }));
    const found = [];
    for (const a of boxes) {
      for (const b of boxes) {
        if (a === b || a.element.contains(b.element) || b.element.contains(a.element) || a.element.compareDocumentPosition(b.element) & 2) continue;
        const [across, down] = [Math.min(a.box.right, b.box.right) - Math.max(a.box.left, b.box.left), Math.min(a.box.bottom, b.box.bottom) - Math.max(a.box.top, b.box.top)];
        if (across > 2 && down > 4) found.push([a, b].map(({ element }) => element.outerHTML.slice(0, 120)));
      }
    }
    return found;
  });
  assert.deepEqual(over, []);
}

export async function screenshot(page, path) {
  await page.evaluate(() => scrollTo(0, 0));
  const height = await page.evaluate(() => document.documentElement.scrollHeight);
  const size = page.viewportSize();
  await page.setViewportSize({ width: size.width, height: Math.min(height, 3000) });
  await page.waitForTimeout(150); // charts follow the size of the window
  await page.screenshot({ path, type: "jpeg", quality: 75 });
  await page.setViewportSize(size);
}

/** The values and the shape of .npy content of float32. */
export function npy(content) {
  const begin = 10 + content.readUInt16LE(8);
  const shape = /\(([\d, ]+)\)/.exec(content.toString("latin1", 10, begin))[1].split(",").filter((n) => n.trim()).map(Number);
  return { shape, values: new Float32Array(content.buffer.slice(content.byteOffset + begin, content.byteOffset + content.length)) };
}

/** .npy content of float32. */
export function asNpy(shape, values) {
  const text = `{'descr': '<f4', 'fortran_order': False, 'shape': (${shape.join(", ")}), }`.padEnd(117) + "\n";
  const head = Buffer.concat([Buffer.from([0x93]), Buffer.from("NUMPY"), Buffer.from([1, 0, text.length & 255, text.length >> 8]), Buffer.from(text)]);
  return Buffer.concat([head, Buffer.from(values.buffer, values.byteOffset, values.byteLength)]);
}

/** What the service answers to the sample. */
export async function reconstructed(address, query) {
  const answer = await fetch(`${address}reconstruct?${query}`, { method: "POST", body: readFileSync(SAMPLE) });
  assert.equal(answer.status, 200);
  return Buffer.from(await answer.arrayBuffer());
}

export async function downloaded(page, act) {
  const [download] = await Promise.all([page.waitForEvent("download"), act()]);
  return readFileSync(await download.path());
}

/** Width and height of a picture, and how far any value of a pixel is from another picture's. */
export async function compared(page, ...files) {
  return page.evaluate(async (files) => {
    const [a, b] = await Promise.all(
      files.map(async (base64) => {
        const bitmap = await createImageBitmap(new Blob([Uint8Array.from(atob(base64), (c) => c.charCodeAt(0))], { type: "image/png" }));
        const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
        context.drawImage(bitmap, 0, 0);
        return context.getImageData(0, 0, bitmap.width, bitmap.height);
      }),
    );
    return [a.width, a.height, a.data.reduce((most, value, i) => Math.max(most, Math.abs(value - b.data[i])), 0)];
  }, files.map((file) => file.toString("base64")));
}
