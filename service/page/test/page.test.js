// The page, as users see it. A training goes on while the other views are tried; the service is stopped last of all.
import { test } from "node:test";
import { accessible, eventually, fits } from "./checks.js";
import { failingService, files, stoppedService, tokens } from "./faults.js";
import { badToken, failedJob, failedTrials, followTraining, long, startTraining, switching } from "./jobs.js";
import { names, together, touch } from "./honest.js";
import { ownUnit } from "./own-unit.js";
import { painters, reconstruct, stacks } from "./reconstruct.js";
import { chromium, serve, served } from "./shared.js";
import { through } from "./views.js";

startTraining();
reconstruct();
painters();
stacks();
names();
together();
touch();
files();
failingService();
failedJob();
long();
failedTrials();
badToken();
tokens();
followTraining();
ownUnit();
switching();
test("every view, wide and light, on a phone and dark", async (t) => {
  await serve("best", "chest-low-dose");
  const { jobs } = await (await fetch(`${served.address}jobs`)).json();
  for (const size of [{ width: 1200 }, { width: 390, height: 844, dark: true }]) {
    await t.test(`${size.width} px`, () =>
      through(chromium, served.address, jobs[0].id, size, async (page) => {
        await eventually(() => fits(page));
        await eventually(() => accessible(page));
      }),
    );
  }
});
stoppedService();
