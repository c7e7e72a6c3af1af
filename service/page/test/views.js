// The way through every view: the test looks whether all fits there, and pictures.js takes pictures.
import { drawn, open, panel } from "./checks.js";
import { sweepInItsPlace } from "./sweep.js";

/** Goes through all views of a service, which has the job and its model as a run, and looks at each: `look(page, view)`. */
export async function through(chromium, address, job, size, look, sweep = "sweep") {
  const { page, done } = await open(chromium, address, size);
  if (sweep === "sweep") await sweepInItsPlace(page); // a real one takes a while
  await page.getByRole("button", { name: "Take the sample" }).click();
  for (const id of ["fbp", "model best", "truth"]) await drawn(page, id);
  await panel(page, "model best").getByText("PSNR").waitFor();
  await panel(page, "fbp").locator(".image").focus();
  await page.keyboard.press("ArrowLeft");
  await page.keyboard.press("l");
  for (let i = 0; i < 12; i++) await page.keyboard.press("Shift+ArrowRight");
  await look(page, "reconstruct");
  await page.getByRole("link", { name: "Window" }).click();
  await page.getByRole("heading", { name: "Noise of the sinogram" }).waitFor();
  await page.locator(".map.square canvas").waitFor();
  await look(page, "window");
  for (const [hash, view, ready] of [
    ["#jobs", "jobs", page.locator("[id='setting-recipe']")],
    [`#jobs/${job}`, "job", page.getByRole("img", { name: "Reconstructions of a validation sample" })],
    [`#jobs/${sweep}`, "sweep", page.getByRole("heading", { name: "The best, trial" })],
    ["#models", "models", page.getByRole("button", { name: "Serve from-the-page as best" })],
  ]) {
    await page.evaluate((hash) => (location.hash = hash), hash);
    await ready.waitFor();
    await look(page, view);
  }
  await done();
}
