// Jobs and Models: a short training from the form to the model that serves, and what a sweep shows.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { accessible, asNpy, drawn, drop, fits, npy, open, panel, screenshot } from "./checks.js";
import { browser, PYTHON, ROOT, service } from "./serving.js";

const GEOMETRY = {
  angles: { count: 24, first: 0.05, step: Math.PI / 24 },
  cells: 67,
  cell_size: 0.0055,
  image_shape: [47, 47],
  pixel_size: 0.0055,
};
let chromium, served;
before(async () => {
  [chromium, served] = await Promise.all([browser(), service()]);
  mkdirSync(join(served.folder, "data"));
  writeFileSync(join(served.folder, "scan.json"), JSON.stringify(GEOMETRY));
  const options = ["--phantoms", "8", "--geometry", "scan.json", "--out", "data/small"];
  execFileSync(PYTHON, ["-m", "fbp_ray.simulate", ...options], { cwd: served.folder, env: { ...process.env, PYTHONPATH: ROOT } });
});
after(async () => {
  await chromium?.close();
  await served?.stop();
  served?.remove();
});

const setting = (page, path) => page.locator(`[id="setting-${path}"]`);

test("a training, from the form to the model that serves", { timeout: 150_000 }, async (t) => {
  const { page, done } = await open(chromium, `${served.address}#jobs`);
  await t.test("a value out of range is said at its field, and nothing is sent", async () => {
    const sent = [];
    page.on("request", (request) => request.method() === "POST" && sent.push(request.url()));
    await setting(page, "train.epochs").fill("-1");
    await page.getByText("At least 0.").waitFor();
    await page.getByRole("button", { name: "Train", exact: true }).last().click();
    await page.getByRole("alert").filter({ hasText: "Not sent" }).waitFor();
    assert.deepEqual(sent, []);
    await setting(page, "train.epochs").fill("2");
  });
  await t.test("what the service refuses is said at its field, and what was typed stays", async () => {
    await setting(page, "run.name").fill("from-the-page");
    await setting(page, "data.dir").fill("data/nowhere");
    await page.getByRole("button", { name: "Train", exact: true }).last().click();
    await page.getByRole("alert").filter({ hasText: "there is no data folder" }).waitFor();
    assert.equal(await setting(page, "run.name").inputValue(), "from-the-page");
    await accessible(page);
  });
  await t.test("it runs, and its page follows it", async () => {
    await setting(page, "data.dir").fill("data/small");
    await page.getByText("All settings").click();
    await setting(page, "window.kind").fill("frequency");
    await setting(page, "window.init").selectOption("hann");
    await setting(page, "train.batch_size").fill("2");
    await setting(page, "scaling.num_workers").fill("1");
    await page.getByRole("button", { name: "Train", exact: true }).last().click();
    await page.waitForFunction(() => /#jobs\/\w+/.test(location.hash));
    await page.locator(".state.succeeded").waitFor({ timeout: 120_000 });
    for (const name of ["Loss and its parts", "PSNR, dB", "SSIM", "Learning rate", "The newest reconstruction"]) {
      await page.getByRole("heading", { name, exact: true }).waitFor();
    }
    await page.getByText("over the classic FBP").first().waitFor();
    assert.match(await page.locator("pre").innerText(), /epoch/);
    await accessible(page);
  });
  await t.test("its model serves, and can be switched back", async () => {
    await page.getByRole("button", { name: "Serve this model" }).click();
    await page.getByRole("status").filter({ hasText: "best serves version" }).waitFor();
    await page.getByRole("link", { name: "Reconstruct" }).click();
    const stack = asNpy([24, 67], new Float32Array(24 * 67).fill(0.05));
    await drop(page, "small.npy", stack);
    await drawn(page, "model best");
    const answer = await fetch(`${served.address}reconstruct?model=best`, { method: "POST", body: stack });
    const { values } = npy(Buffer.from(await answer.arrayBuffer()));
    await panel(page, "model best").locator(".image").focus();
    await page.keyboard.press("ArrowLeft");
    await panel(page, "model best").locator(`.value[data-value="${values[22 * 47 + 23].toPrecision(9)}"]`).waitFor();
  });
  await t.test("HDF5, which the service reads, with its ground truth", async () => {
    const data = join(served.folder, "data", "small");
    await drop(page, "observation_test_000.hdf5", readFileSync(join(data, "observation_test_000.hdf5")));
    await page.locator("input[type=file]").nth(1).setInputFiles(join(data, "ground_truth_test_000.hdf5"));
    await panel(page, "model best").getByText("PSNR").waitFor();
    await drawn(page, "truth");
  });
  await t.test("a stack with a geometry of its own, for the classic FBP", async () => {
    const files = [join(served.folder, "scan.json"), join(served.folder, "scan.npy")];
    writeFileSync(files[1], asNpy([24, 67], new Float32Array(24 * 67).fill(0.05)));
    await page.locator("input[type=file]").first().setInputFiles(files);
    await drawn(page, "fbp");
    await page.getByRole("alert").filter({ hasText: "has one of its own: leave the geometry out" }).waitFor();
    await page.getByRole("button", { name: "Remove the geometry" }).click();
    await drawn(page, "model best");
  });
  await done();
});

/** Answers as the service gives them for a sweep, which would take too long here. */
async function sweepInItsPlace(page, changes = {}) {
  const rows = Array.from({ length: 24 }, (_, i) => ({
    trial: String(i).padStart(4, "0"),
    status: "completed",
    parameters: { "loss.l1": 0.1 * ((i * 7) % 11), "loss.ms_ssim": 0.2 * ((i * 5) % 7), "optim.lr": 10 ** (-1 - ((i * 3) % 9) / 3) },
    merit: Math.sin(i),
    psnr: 30 + 2 * Math.sin(i) + 0.3 * Math.cos(5 * i),
    ssim: 0.8 + 0.05 * Math.sin(i + 0.5),
    epochs: 4,
    reason: "",
  }));
  const job = {
    id: "sweep", kind: "sweep", status: "succeeded", reason: "", place: "/data/runs/weights", request: {},
    created: "2026-05-01T12:00:00Z", started: "2026-05-01T12:00:09Z", ended: "2026-05-01T13:00:09Z",
    progress: { unit: "trial", done: 24, total: 24, rows: [], problem: "", best: { psnr: { value: 32.1, epoch: 4, over_fbp: 1.2 }, ssim: { value: 0.85, epoch: 4, over_fbp: 0.04 }, trial: "0008", parameters: {} } },
    ...changes,
  };
  const events = [["status", job], ...rows.map((row) => ["trial", row]), ["end", job]];
  const body = events.map(([name, data], i) => `event: ${name}\nid: ${i}\ndata: ${JSON.stringify(data)}\n\n`).join("");
  await page.route("**/jobs/sweep/events", (route) => route.fulfill({ contentType: "text/event-stream", body }));
  await page.route("**/jobs/sweep/logs**", (route) => route.fulfill({ contentType: "text/plain", body: "24 trials, 4 epochs each" }));
  await page.route("**/jobs/sweep", (route) => route.fulfill({ json: job }));
}

test("a job that failed says why, first of all", async () => {
  const { page, done } = await open(chromium, served.address);
  await sweepInItsPlace(page, { status: "failed", reason: "epoch 2 made a loss that is no number; lower --optim.lr" });
  await page.evaluate(() => (location.hash = "#jobs/sweep"));
  await page.locator("section.card .fault").first().waitFor();
  assert.match(await page.locator("section.card").first().innerText(), /^sweep weights\s+epoch 2 made a loss that is no number; lower --optim\.lr/);
  await done();
});

test("every view of jobs and models, light and dark, wide and on a phone", async () => {
  const { jobs } = await (await fetch(`${served.address}jobs`)).json();
  for (const [size, width, height] of [["desktop", 1360, 900], ["phone", 390, 844]]) {
    for (const dark of [false, true]) {
      const name = `${size}-${dark ? "dark" : "light"}`;
      const { page, done } = await open(chromium, `${served.address}#jobs`, { width, height, dark });
      await sweepInItsPlace(page);
      await page.getByRole("link", { name: "from-the-page" }).waitFor();
      const visit = async (hash, view, ready) => {
        await page.evaluate((hash) => (location.hash = hash), hash);
        await ready();
        await fits(page);
        await accessible(page);
        await screenshot(page, `${view}-${name}`);
      };
      await visit("#jobs", "jobs", () => setting(page, "recipe").waitFor());
      await visit(`#jobs/${jobs[0].id}`, "job", () => page.getByRole("heading", { name: "The newest reconstruction" }).waitFor());
      await visit("#jobs/sweep", "sweep", () => page.getByRole("heading", { name: "The best, trial" }).waitFor());
      await visit("#models", "models", () => page.getByRole("button", { name: "Serve from-the-page as best" }).waitFor());
      await done();
    }
  }
});

test("models are switched, and switched back", async () => {
  const { page, done } = await open(chromium, `${served.address}#models`);
  const best = page.locator("[data-model=best]");
  await best.waitFor();
  const trained = await best.locator("dd").first().innerText();
  await page.getByLabel("Run, checkpoint or sweep folder").fill("nowhere");
  await page.getByRole("button", { name: "Serve it" }).click();
  await page.getByRole("alert").filter({ hasText: "nowhere" }).waitFor();
  await page.getByLabel("Run, checkpoint or sweep folder").fill("chest-low-dose");
  await page.getByRole("button", { name: "Serve it" }).click();
  await best.getByText("chest-low-dose").first().waitFor();
  await best.getByRole("button", { name: `Switch back to ${trained}` }).click();
  await best.getByText("from-the-page").first().waitFor();
  assert.equal(await best.locator("dd").first().innerText(), trained);
  await done();
});
