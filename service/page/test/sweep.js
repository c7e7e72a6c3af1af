// A sweep that the browser shows without one having run.

/** Answers as the service gives them for a sweep, which would take too long here. */
export async function sweepInItsPlace(page, changes = {}) {
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
