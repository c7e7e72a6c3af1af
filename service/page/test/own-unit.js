// Images of a model whose data are in 1/m, not in LoDoPaB-CT's scale: there are no Hounsfield units.
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { asNpy, compared, downloaded, drawn, eventually, npy, open, panel } from "./checks.js";
import { chromium, served } from "./shared.js";
import { ANGLES, CELLS, SIDE } from "./training.js";

export const ownUnit = () => test("values in 1/m", async (t) => {
  const { page, done } = await open(chromium, served.address);
  const file = join(served.folder, "ramp.npy");
  const sinogram = asNpy([ANGLES, CELLS], new Float32Array(ANGLES * CELLS).map((_, i) => 0.3 * Math.max(0, 1 - Math.abs((i % CELLS) - 33) / 20)));
  writeFileSync(file, sinogram);
  await page.locator("input[type=file]").first().setInputFiles(file);
  await drawn(page, "fbp");
  await drawn(page, "model best");
  const asked = async (query) => {
    const answer = await fetch(`${served.address}reconstruct?model=best&${query}`, { method: "POST", body: sinogram });
    assert.equal(answer.headers.get("X-Value-Unit"), "attenuation in 1/m");
    assert.equal(answer.headers.get("X-Value-Scale"), "1.0");
    return Buffer.from(await answer.arrayBuffer());
  };
  const image = panel(page, "model best").locator(".image");
  const { values } = npy(await asked(""));
  const classic = npy(await asked("method=fbp&window=hann&cutoff=1"));

  await t.test("there are neither Hounsfield units nor presets of CT", async () => {
    for (const name of ["All", "Lung", "Bone"]) assert.equal(await page.getByRole("button", { name, exact: true }).count(), 0);
    assert.deepEqual(await page.getByLabel("Values in").locator("option").allInnerTexts(), ["1/m", "as in .npy"]);
    assert.doesNotMatch(await page.locator(".reconstruct").innerText(), /\bHU\b/);
    await page.getByText("The values are attenuation in 1/m.").waitFor();
  });
  await t.test("the value under the cursor", async () => {
    await image.focus();
    await page.keyboard.press("ArrowLeft");
    const value = values[22 * SIDE + 23];
    const said = `${value.toPrecision(5)} 1/m`.replace("-", "−");
    await eventually(async () => assert.equal(await panel(page, "model best").locator(".value").innerText(), said));
  });
  await t.test("the PNG is the service's, with the window of the image and with another", async () => {
    const png = () => downloaded(page, () => page.getByRole("button", { name: "PNG of best" }).click());
    const [low, high] = [0.001, 0.999].map((share) => percentile(classic.values, share));
    await page.waitForFunction(() => location.hash.includes("values="));
    const shown = [(low + high) / 2, high - low].map((value) => +value.toPrecision(6));
    await eventually(async () => assert.deepEqual(await shownWindow(page), shown));
    assert.deepEqual(await compared(page, await png(), await asked(`output=png&level=${shown[0]}&width=${shown[1]}`)), [SIDE, SIDE, 0]);
    await image.focus();
    await page.keyboard.press("Alt+ArrowRight");
    await page.waitForFunction((before) => !location.hash.includes(before), `values=${shown.join("%2C")}`);
    assert.notDeepEqual(await shownWindow(page), shown);
    const [level, width] = await shownWindow(page);
    assert.deepEqual(await compared(page, await png(), await asked(`output=png&level=${level}&width=${width}`)), [SIDE, SIDE, 0]);
  });
  await t.test("a profile, and a difference", async () => {
    await image.focus();
    await page.keyboard.press("l");
    for (let i = 0; i < 5; i++) await page.keyboard.press("Shift+ArrowRight");
    const table = (await downloaded(page, () => page.getByRole("button", { name: "CSV" }).click())).toString().split("\n");
    assert.match(table[0], /"best, 1\/m"/);
    assert.equal(Math.fround(+table[1].split(",")[2]), values[22 * SIDE + 23]);
    await panel(page, "model best").getByLabel("others minus this").check();
    await eventually(async () => assert.match(await page.locator(".scale").innerText(), /\+[\d.]+ 1\/m/));
    await page.getByRole("button", { name: "Show the images" }).click();
  });
  await t.test("lengths are those of the images, whatever else is ticked", async () => {
    for (const [name, to] of [["best", false], ["second", true], ["best", true]]) await page.getByRole("checkbox", { name: new RegExp(`^${name}`) }).setChecked(to);
    await drawn(page, "model best");
    const table = (await downloaded(page, () => page.getByRole("button", { name: "CSV" }).click())).toString().split("\n");
    assert.equal(table[0].split(",")[0], "mm");
    assert.equal(+table[2].split(",")[0], 5.5);
  });
  await done();
});

const shownWindow = async (page) =>
  new URLSearchParams((await page.evaluate(() => location.hash)).split("?")[1]).get("values").split(",").map(Number);

/** As numpy has it. */
function percentile(values, share) {
  const [sorted, at] = [values.toSorted(), share * (values.length - 1)];
  return sorted[Math.floor(at)] + (sorted[Math.ceil(at)] - sorted[Math.floor(at)]) * (at % 1);
}
