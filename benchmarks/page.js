// What the page takes, by the browser's own clocks: node benchmarks/page.js (after `make page`; PYTHON and CHROMIUM as for make test-page)
import { readFileSync, writeFileSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { asNpy, drawn, npy, SAMPLE } from "../service/page/test/checks.js";
import { browser, service } from "../service/page/test/serving.js";

const TIMES = 15;
const SLICES = 200;
const SECONDS_OF_DRAGGING = 3;
const folder = mkdtempSync(join(tmpdir(), "page-benchmark-"));
const served = await service();
const chromium = await browser();
const context = await chromium.newContext({ viewport: { width: 1360, height: 900 } });
const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];
const say = (what, value, target) => console.log(`| ${what} | ${value} | ${target} |`);

async function fresh() {
  const page = await context.newPage();
  await page.goto(served.address);
  await page.locator(".drop").first().waitFor();
  await page.evaluate(() => {
    // When each panel was last drawn, and who waits for that.
    window.waitFor = (panels) =>
      new Promise((resolve) => {
        const left = new Set(panels);
        const listen = ({ target }) => {
          left.delete(target.closest("[data-panel]")?.dataset.panel);
          if (left.size) return;
          document.removeEventListener("drawn", listen);
          requestAnimationFrame(() => resolve(performance.now()));
        };
        document.addEventListener("drawn", listen);
      });
  });
  return page;
}

console.log("| what | measured | target |\n|---|---|---|");
{
  const page = await fresh();
  const { paint, bytes } = await page.evaluate(() => ({
    paint: performance.getEntriesByName("first-contentful-paint")[0]?.startTime,
    bytes: [...performance.getEntriesByType("resource"), performance.getEntriesByType("navigation")[0]]
      .filter(({ name }) => /\/page\/|\/$/.test(name))
      .reduce((sum, { encodedBodySize }) => sum + encodedBodySize, 0),
  }));
  say("first paint", `${paint.toFixed(0)} ms`, "1 000 ms");
  say("page, compressed", `${(bytes / 1000).toFixed(0)} kB`, "150 kB");
  await page.close();
}

const page = await fresh();
{
  const base64 = readFileSync(SAMPLE).toString("base64");
  const times = [];
  for (let i = 0; i < TIMES; i++) {
    times.push(
      await page.evaluate(
        async ([base64, i]) => {
          const data = new DataTransfer();
          data.items.add(new File([Uint8Array.from(atob(base64), (c) => c.charCodeAt(0))], `sample-${i}.npz`));
          const done = waitFor(["fbp", "model best"]);
          const began = performance.now();
          document.querySelector(".drop").dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
          return (await done) - began;
        },
        [base64, i],
      ),
    );
    await page.waitForTimeout(300);
  }
  say("drop to both images drawn, median (most)", `${median(times).toFixed(0)} (${Math.max(...times).toFixed(0)}) ms`, "400 ms");
}
{
  const times = [];
  for (let i = 0; i < TIMES; i++) {
    times.push(
      await page.evaluate(async (value) => {
        const slider = [...document.querySelectorAll("label.slider")].find((label) => label.textContent.startsWith("Cut-off")).querySelector("input");
        const done = waitFor(["fbp"]);
        const began = performance.now();
        slider.value = String(value);
        slider.dispatchEvent(new Event("input", { bubbles: true }));
        return (await done) - began;
      }, 0.4 + 0.03 * i),
    );
    await page.waitForTimeout(100);
  }
  say("a slider's change to the new image, median (most)", `${median(times).toFixed(0)} (${Math.max(...times).toFixed(0)}) ms`, "150 ms");
}

/** Frames a second while level and width are dragged. */
async function dragging(page) {
  return page.evaluate(async (seconds) => {
    const image = document.querySelector('[data-panel="fbp"] .image');
    const box = image.getBoundingClientRect();
    const event = (name, x, y) => new PointerEvent(name, { clientX: x, clientY: y, pointerId: 1, bubbles: true, buttons: 1 });
    image.setPointerCapture = () => {};
    image.dispatchEvent(event("pointerdown", box.x + 50, box.y + 50));
    let frames = 0;
    const began = performance.now();
    await new Promise((resolve) => {
      const step = (now) => {
        if (now - began > 1000 * seconds) return resolve();
        frames++;
        image.dispatchEvent(event("pointermove", box.x + 60 + (frames % 60), box.y + 60 + (frames % 45)));
        requestAnimationFrame(step);
      };
      requestAnimationFrame(step);
    });
    image.dispatchEvent(event("pointerup", box.x + 50, box.y + 50));
    return frames / ((performance.now() - began) / 1000);
  }, SECONDS_OF_DRAGGING);
}
say("dragging level and width, 362 x 362", `${(await dragging(page)).toFixed(0)} frames/s`, "60");
await page.close();

{
  const side = 2048;
  const [angles, cells] = [180, 2048];
  const geometry = {
    angles: { count: angles, first: 0, step: Math.PI / angles },
    cells,
    cell_size: 0.0002,
    image_shape: [side, side],
    pixel_size: 0.00014,
  };
  const sinogram = new Float32Array(angles * cells).map((_, i) => Math.max(0, 1 - ((i % cells) / cells - 0.5) ** 2 * 16) / 80);
  writeFileSync(join(folder, "large.npy"), asNpy([angles, cells], sinogram));
  writeFileSync(join(folder, "large.json"), JSON.stringify(geometry));
  const large = await fresh();
  await large.locator("input[type=file]").first().setInputFiles([join(folder, "large.json"), join(folder, "large.npy")]);
  await drawn(large, "fbp");
  say("dragging level and width, 2048 x 2048", `${(await dragging(large)).toFixed(0)} frames/s`, "30");
  await large.close();
}

{
  const answer = await fetch(`${served.address}array`, { method: "POST", body: readFileSync(SAMPLE) });
  const one = npy(Buffer.from(await answer.arrayBuffer()));
  const file = join(folder, "stack.npy");
  writeFileSync(file, asNpy([SLICES, ...one.shape], new Float32Array(0)));
  for (let i = 0; i < SLICES; i++) writeFileSync(file, Buffer.from(one.values.map((value) => value * (1 - i / 400)).buffer), { flag: "a" });
  const stack = await fresh();
  const session = await chromium.newBrowserCDPSession();
  await stack.locator("input[type=file]").first().setInputFiles(file);
  await drawn(stack, "fbp");
  await drawn(stack, "model best");
  await stack.waitForTimeout(1000);
  for (const [rate, wait] of [[10, 100], [20, 50]]) {
    const from = rate === 10 ? 0 : SLICES - 1;
    const times = await stack.evaluate(
      async ([from, count, wait]) => {
        const slider = [...document.querySelectorAll("label.slider")].find((label) => label.textContent.startsWith("Slice")).querySelector("input");
        const times = [];
        for (let i = 1; i < count; i++) {
          const done = waitFor(["fbp", "model best"]);
          const began = performance.now();
          slider.value = String(Math.abs(from - i));
          slider.dispatchEvent(new Event("input", { bubbles: true }));
          times.push((await done) - began);
          await new Promise((resolve) => setTimeout(resolve, Math.max(0, wait - (performance.now() - began))));
        }
        return times;
      },
      [from, SLICES, wait],
    );
    const late = times.filter((time) => time > 100).length;
    say(`${SLICES} slices, ${rate} a second: median (most) to both images; later than 100 ms`, `${median(times).toFixed(0)} (${Math.max(...times).toFixed(0)}) ms; ${late}`, "0");
  }
  const { processInfo } = await session.send("SystemInfo.getProcessInfo");
  const resident = ({ id }) => {
    const status = readFileSync(`/proc/${id}/status`, "utf8");
    return [+/VmRSS:\s+(\d+)/.exec(status)[1] / 1000, +/RssShmem:\s+(\d+)/.exec(status)[1] / 1000];
  };
  const renderers = processInfo.filter(({ type }) => type === "renderer").map(resident).sort((a, b) => b[0] - a[0]);
  const gpu = processInfo.filter(({ type }) => type === "GPU").map(resident);
  say("memory after that: the tab's process; the one that draws", `${renderers[0][0].toFixed(0)} MB; ${gpu[0]?.[0].toFixed(0)} MB`, "600 MB");
}
await chromium.close();
await served.stop();
served.remove();
rmSync(folder, { recursive: true, force: true });
