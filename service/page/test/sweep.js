// Jobs that the browser shows without any having run.

/** Answers as the service gives them for a sweep, which would take too long here. */
export async function sweepInItsPlace(page, changes = {}, change = (row) => row) {
  const rows = Array.from({ length: 24 }, (_, i) => change({
    trial: String(i).padStart(4, "0"),
    status: i % 3 === 1 ? "stopped" : "completed",
    parameters: { "window.kind": ["frequency", "angle_frequency"][i % 2], "window.init": ["ones", "hann", "cosine", "shepp-logan"][i % 4], "loss.l1": 0.1 * ((i * 7) % 11), "loss.ms_ssim": 0.2 * ((i * 5) % 7), "optim.lr": 10 ** (-1 - ((i * 3) % 9) / 3) },
    merit: Math.sin(i),
    psnr: 30 + 2 * Math.sin(i) + 0.3 * Math.cos(5 * i),
    ssim: 0.8 + 0.05 * Math.sin(i + 0.5),
    epochs: 4,
    reason: "",
  }, i));
  const job = {
    id: "sweep", kind: "sweep", status: "succeeded", reason: "", place: "/data/runs/weights", request: { kind: "sweep", space: "learning_rate", config: {} },
    created: "2026-05-01T12:00:00Z", started: "2026-05-01T12:00:09Z", ended: "2026-05-01T13:00:09Z",
    progress: { unit: "trial", done: 24, total: 24, rows: [], problem: "", best: { psnr: { value: 32.1, epoch: 4, over_fbp: 1.2 }, ssim: { value: 0.85, epoch: 4, over_fbp: 0.04 }, trial: "0008", parameters: {} } },
    ...changes,
  };
  await inItsPlace(page, job, "trial", rows);
}

/** Answers as the service gives them for a training of many epochs, all of which are over; returns what is asked for of its document. */
export async function trainingInItsPlace(page, epochs) {
  const rows = Array.from({ length: epochs }, (_, i) => ({ epoch: i + 1, lr: 0.05, train_loss: 1 / (i + 1), train_local_ssim: 0.5 / (i + 1), validation_loss: 1.1 / (i + 1), validation_psnr: 30, validation_ssim: 0.8 }));
  const progress = { unit: "epoch", done: epochs, total: epochs, rows: [], problem: "", model: true, picture: false, reports: [], best: {} };
  const times = { created: "2026-05-01T12:00:00Z", started: "2026-05-01T12:00:09Z" };
  const request = { kind: "train", config: { recipe: "reference", train: { epochs }, optim: { lr: 0.05 }, run: { name: "long" } } };
  const job = { id: "long", kind: "train", status: "failed", reason: "its process is gone", place: "/data/runs/long", request, ...times, ended: "2026-05-01T13:00:09Z", progress };
  const asked = [];
  page.on("request", (one) => /jobs\/long(\/newest)?$/.test(one.url()) && asked.push(one.url()));
  await inItsPlace(page, job, "epoch", rows);
  return asked;
}

async function inItsPlace(page, job, unit, rows) {
  const events = [["status", job], ...rows.map((row) => [unit, row]), ["end", job]];
  const body = events.map(([name, data], i) => `event: ${name}\nid: ${i}\ndata: ${JSON.stringify(data)}\n\n`).join("");
  await page.route(`**/jobs/${job.id}/events`, (route) => route.fulfill({ contentType: "text/event-stream", body }));
  await page.route(`**/jobs/${job.id}/logs**`, (route) => route.fulfill({ contentType: "text/plain", body: `${"a line\n".repeat(40_000)}the end` }));
  await page.route(`**/jobs/${job.id}`, (route) => route.fulfill({ json: job }));
}
