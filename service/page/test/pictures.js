// Takes the pictures of docs/page.md: node test/pictures.js FOLDER (make page-pictures)
import { screenshot } from "./checks.js";
import { browser, PYTHON, service } from "./serving.js";
import { smallData, SETTINGS } from "./training.js";
import { through } from "./views.js";

/** Takes out where this machine has things, which is nobody's business. */
function hidePlaces(places) {
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    for (const [place, shown] of places) texts.currentNode.data = texts.currentNode.data.replaceAll(place, shown);
  }
}

const folder = process.argv[2];
const [chromium, served] = await Promise.all([browser(), service()]);
try {
  await smallData(served.folder);
  const config = { run: { name: "from-the-page" }, ...SETTINGS };
  const headers = { "Content-Type": "application/json" };
  for (const name of ["best", "second"]) {
    await fetch(`${served.address}models/${name}/activate`, { method: "POST", headers, body: JSON.stringify({ source: "chest-low-dose" }) });
  }
  const answer = await fetch(`${served.address}jobs`, { method: "POST", headers, body: JSON.stringify({ kind: "train", config }) });
  const { id } = await answer.json();
  for await (const part of (await fetch(`${served.address}jobs/${id}/events`)).body) void part; // until it has ended
  for (const [size, width, height] of [["desktop", 1360, 900], ["phone", 390, 844]]) {
    for (const dark of [false, true]) {
      const name = `${size}-${dark ? "dark" : "light"}`;
      await through(chromium, served.address, id, { width, height, dark }, async (page, view) => {
        await page.evaluate(hidePlaces, [[PYTHON, "python"], [served.folder, ""]]);
        await screenshot(page, `${folder}/${view}-${name}.jpg`);
      });
    }
  }
} finally {
  await chromium.close();
  await served.stop();
  served.remove();
}
