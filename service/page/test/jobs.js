// Jobs and Models: a short training from the form to the model that serves, and what a sweep shows.
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { accessible, asNpy, drawn, drop, eventually, npy, open, panel } from "./checks.js";
import { chromium, served } from "./shared.js";
import { sweepInItsPlace, trainingInItsPlace } from "./sweep.js";
import { ANGLES, CELLS, SIDE } from "./training.js";

const setting = (page, path) => page.locator(`[id="setting-${path}"]`);
const help = (page, path) => page.locator(`[id="setting-${path}-help"]`);
const hint = (page, path, text) => eventually(async () => assert.equal(await setting(page, path).getAttribute("placeholder"), text));
const isFocused = (page, path) => page.waitForFunction((id) => document.activeElement.id === id, `setting-${path}`);

let page, done; // its tab stays open while it goes on

async function submitTraining(t) {
  ({ page, done } = await open(chromium, `${served.address}#jobs`));
  await t.test("fields show what the recipe gives", async () => {
    await page.locator("[id='setting-train.epochs'][placeholder='6']").waitFor();
    await setting(page, "recipe").selectOption("reference");
    await hint(page, "train.epochs", "10");
    await hint(page, "optim.lr", "0.001");
    await setting(page, "recipe").selectOption("");
    await hint(page, "optim.lr", "0.05");
  });
  await t.test("a value out of range is said at its field, and nothing is sent", async () => {
    const sent = [];
    page.on("request", (request) => request.method() === "POST" && sent.push(request.url()));
    await setting(page, "train.epochs").fill("-1");
    await page.getByText("At least 0.").waitFor();
    await page.getByRole("button", { name: "Train", exact: true }).last().click();
    await page.getByRole("alert").filter({ hasText: /Not sent.*train.epochs/s }).waitFor();
    await isFocused(page, "train.epochs");
    assert.deepEqual(sent, []);
    await setting(page, "train.epochs").fill("2");
  });
  await t.test("what the service refuses is said at its field, and what was typed stays", async () => {
    await setting(page, "run.name").fill("from-the-page");
    await setting(page, "data.dir").fill("data/nowhere");
    await page.getByRole("button", { name: "Train", exact: true }).last().click();
    await help(page, "data.dir").filter({ hasText: "here is no data folder" }).waitFor();
    await isFocused(page, "data.dir");
    const wrong = { "window.cutoff": "hello", "data.photons": "[200,100]", "postprocessing.dilations": "[0]", "train.monitor": "zzz" };
    await page.evaluate(() => document.querySelectorAll("details").forEach((one) => (one.open = true)));
    for (const [path, value] of Object.entries(wrong)) await setting(page, path).fill(value);
    await page.locator("summary").first().click(); // they are out of sight
    await page.getByRole("button", { name: "Train", exact: true }).last().click();
    await help(page, "train.monitor").filter({ hasText: "None of what is described" }).waitFor();
    await setting(page, "train.monitor").fill("");
    await page.getByRole("button", { name: "Train", exact: true }).last().click();
    await help(page, "data.photons").filter({ hasText: "Run from 200 to 100; give the smaller number first: 100 200" }).waitFor();
    await help(page, "window.cutoff").filter({ hasText: "number" }).waitFor();
    await help(page, "postprocessing.dilations").filter({ hasText: "greater than or equal to 1" }).waitFor();
    await isFocused(page, "data.photons");
    for (const path of Object.keys(wrong)) await setting(page, path).fill("");
    assert.ok(await setting(page, "window.cutoff").isVisible()); // the panel stays open
    await setting(page, "data.dir").fill("s3://bucket/x");
    await page.getByRole("button", { name: "Train", exact: true }).last().click();
    await help(page, "data.dir").filter({ hasText: "not a URI" }).waitFor();
    await page.reload();
    await eventually(async () => assert.equal(await setting(page, "run.name").inputValue(), "from-the-page"));
    await accessible(page);
  });
  await t.test("it is sent, and its page follows", async () => {
    await setting(page, "data.dir").fill("data/small");
    await page.getByText("All settings").click();
    await hint(page, "window.kind", "adaptive");
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
    await page.getByText("train local-ssim").waitFor();
    await eventually(async () => assert.match(await page.locator("pre").innerText(), /epoch/));
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
  await eventually(async () => assert.match(await page.locator("section.card").first().innerText(), /^sweep weights\s+epoch 2 made a loss that is no number; lower --optim\.lr/));
  await page.evaluate(() => (location.hash = "#jobs/no%20such"));
  await page.getByText("There is no job no such").waitFor();
  await done();
});

export const long = () => test("a long job is told by its events, its log to the end, and it can be submitted again", async () => {
  const { page, done } = await open(chromium, served.address);
  const asked = await trainingInItsPlace(page, 300);
  await page.evaluate(() => (location.hash = "#jobs/long"));
  await page.getByText("epoch 300 of 300").waitFor();
  await page.getByText("train local-ssim").waitFor();
  await page.getByText("The last 200,000 characters").waitFor();
  const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: "Download the log" }).click()]);
  assert.ok(readFileSync(await download.path()).length > 280_000);
  assert.deepEqual(asked, []); // neither the document nor a picture, since there is none
  await page.getByRole("button", { name: "Submit again" }).click();
  await page.getByText("With the settings of job long").waitFor();
  for (const [path, value] of [["recipe", "reference"], ["train.epochs", "300"], ["run.name", "long"]]) {
    await eventually(async () => assert.equal(await setting(page, path).inputValue(), value));
  }
  await done();
});

export const failedTrials = () => test("trials that failed are told with their reasons", async () => {
  for (const [length, heading] of [[3, "3 of 24 trials have failed"], [24, "All 24 trials have failed"]]) {
    const { page, done } = await open(chromium, served.address);
    const fail = (row, i) => (i < length ? { ...row, status: "failed", psnr: null, ssim: null, merit: null, reason: "the loss is no number" } : row);
    await sweepInItsPlace(page, {}, fail);
    await page.evaluate(() => (location.hash = "#jobs/sweep"));
    const failed = page.getByRole("region", { name: "Trials that failed" });
    await failed.getByRole("heading", { name: heading }).waitFor();
    await eventually(async () => assert.match(await failed.innerText(), /0001, 0002.*: the loss is no number/));
    if (length === 3) {
      await page.getByRole("button", { name: "0020" }).click();
      await page.getByRole("heading", { name: "Trial 0020" }).waitFor();
      await page.getByText("shepp-logan").first().waitFor(); // each choice is named at its axis
      await page.waitForFunction(() => location.hash.includes("trial="));
      await page.reload();
      await page.getByRole("heading", { name: "Trial 0020" }).waitFor();
    }
    await done();
  }
});

export const badToken = () => test("what cannot be a token is refused at the field, and forgotten where it was kept", async () => {
  const { page, done } = await open(chromium, `${served.address}#models`);
  await page.evaluate(() => sessionStorage.setItem("fbp-ray-token", "“curly”"));
  await page.route("**/access", (route) => route.fulfill({ status: 401, contentType: "application/problem+json", body: JSON.stringify({ detail: "this needs a token" }) }));
  await page.reload();
  const field = page.getByLabel("Token");
  for (const token of ["“curly”", "two words", "x".repeat(100_000)]) {
    await field.fill(token);
    await page.getByRole("button", { name: "Go on" }).click();
    await page.getByRole("alert").filter({ hasText: "This is no token" }).waitFor();
  }
  await eventually(async () => assert.equal(await page.evaluate(() => sessionStorage.getItem("fbp-ray-token")), null));
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
  await eventually(async () => assert.equal(await best.locator("dd").first().innerText(), trained));
  await done();
});
