// Jobs and Models: a short training from the form to the model that serves, and what a sweep shows.
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { accessible, asNpy, drawn, drop, npy, open, panel } from "./checks.js";
import { chromium, served } from "./shared.js";
import { sweepInItsPlace } from "./sweep.js";
import { ANGLES, CELLS, SIDE } from "./training.js";

const setting = (page, path) => page.locator(`[id="setting-${path}"]`);

let page, done; // its tab stays open while it goes on

async function submitTraining(t) {
  ({ page, done } = await open(chromium, `${served.address}#jobs`));
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
  await t.test("it is sent, and its page follows", async () => {
    await setting(page, "data.dir").fill("data/small");
    await page.getByText("All settings").click();
    await setting(page, "window.kind").fill("frequency");
    await setting(page, "window.init").selectOption("hann");
    await setting(page, "train.batch_size").fill("2");
    await setting(page, "scaling.num_workers").fill("1");
    await page.getByRole("button", { name: "Train", exact: true }).last().click();
    await page.waitForFunction(() => /#jobs\/\w+/.test(location.hash));
    await page.locator(".state").waitFor();
  });
}

async function followIt(t) {
  await t.test("it is watched until it has ended", async () => {
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
    const stack = asNpy([ANGLES, CELLS], new Float32Array(ANGLES * CELLS).fill(0.05));
    await drop(page, "small.npy", stack);
    await drawn(page, "model best");
    const answer = await fetch(`${served.address}reconstruct?model=best`, { method: "POST", body: stack });
    const { values } = npy(Buffer.from(await answer.arrayBuffer()));
    await panel(page, "model best").locator(".image").focus();
    await page.keyboard.press("ArrowLeft");
    await panel(page, "model best").locator(`.value[data-value="${values[22 * SIDE + 23].toPrecision(9)}"]`).waitFor();
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
    writeFileSync(files[1], asNpy([ANGLES, CELLS], new Float32Array(ANGLES * CELLS).fill(0.05)));
    await page.locator("input[type=file]").first().setInputFiles(files);
    await drawn(page, "fbp");
    await page.getByText("models have theirs: the classic FBP alone is made").waitFor();
    await page.getByRole("button", { name: "Remove the scan" }).click();
    await drawn(page, "model best");
  });
  await done();
}

export const startTraining = () => test("a training, from the form", submitTraining);
export const followTraining = () => test("a training, to the model that serves", followIt);

export const failedJob = () => test("a job that failed says why, first of all", async () => {
  const { page, done } = await open(chromium, served.address);
  await sweepInItsPlace(page, { status: "failed", reason: "epoch 2 made a loss that is no number; lower --optim.lr" });
  await page.evaluate(() => (location.hash = "#jobs/sweep"));
  await page.locator("section.card .fault").first().waitFor();
  assert.match(await page.locator("section.card").first().innerText(), /^sweep weights\s+epoch 2 made a loss that is no number; lower --optim\.lr/);
  await done();
});

export const switching = () => test("models are switched, and switched back", async () => {
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
