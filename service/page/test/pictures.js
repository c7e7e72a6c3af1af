// Takes the pictures of docs/page.md: node test/pictures.js FOLDER (make page-pictures)
import { screenshot } from "./checks.js";
import { browser, PYTHON, service } from "./serving.js";
import { smallData, SETTINGS } from "./training.js";
import { through } from "./views.js";

/** Takes out where this machine has things, which is nobody's business; from what comes later, too. */
function hidePlaces(places) {
  const hide = () => {
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
      const { data } = texts.currentNode;
      const hidden = places.reduce((text, [place, shown]) => text.replaceAll(place, shown), data);
      if (hidden !== data) texts.currentNode.data = hidden;
    }
  };
  hide();
  new MutationObserver(hide).observe(document.body, { subtree: true, childList: true, characterData: true });
}

/** Has a job done, and waits for its end; its id. */
async function done(job) {
  const answer = await fetch(`${served.address}jobs`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(job) });
  const { id, detail } = await answer.json();
  if (!id) throw new Error(detail);
  for await (const part of (await fetch(`${served.address}jobs/${id}/events`)).body) void part;
  return id;
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
  const sweeping = { sweep: { name: "weights-and-rates", trials: 12 }, ...SETTINGS, window: { kind: "frequency" } };
  const id = await done({ kind: "train", config });
  const sweep = await done({ kind: "sweep", space: "learning_rate", config: { ...sweeping, train: { epochs: 4, batch_size: 2 } } });
  for (const [size, width, height] of [["desktop", 1360, 900], ["phone", 390, 844]]) {
    for (const dark of [false, true]) {
      const name = `${size}-${dark ? "dark" : "light"}`;
      await through(chromium, served.address, id, { width, height, dark }, async (page, view) => {
        if (["job", "sweep"].includes(view)) await page.locator("pre", { hasText: "best" }).waitFor();
        await page.evaluate(hidePlaces, [[PYTHON, "python"], [served.folder, ""]]);
        await screenshot(page, `${folder}/${view}-${name}.jpg`);
      }, sweep);
    }
  }
} finally {
  await chromium.close();
  await served.stop();
  served.remove();
}
