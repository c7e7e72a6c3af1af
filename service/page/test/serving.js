// A service of its own for the tests, and a browser that is already on the machine.
import { spawn } from "node:child_process";
import { createServer } from "node:net";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

export const ROOT = new URL("../../..", import.meta.url).pathname;
export const PYTHON = process.env.PYTHON ?? join(ROOT, ".venv/bin/python");
const BROWSERS = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

async function freePort() {
  return new Promise((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

/** Starts a service in a folder; `stop` ends it, `start` starts it again on the same port. */
export async function service({ env = {}, folder = mkdtempSync(join(tmpdir(), "page-")), port } = {}) {
  port ??= await freePort();
  const address = `http://127.0.0.1:${port}/`;
  let child;
  const start = async () => {
    child = spawn(PYTHON, ["-m", "service", "--port", String(port), "--log", "text"], {
      cwd: folder,
      env: { ...process.env, PYTHONPATH: ROOT, OMP_WAIT_POLICY: "PASSIVE", ...env },
      stdio: ["ignore", "ignore", "pipe"],
    });
    let log = "";
    child.stderr.on("data", (part) => (log += part));
    for (let tries = 0; tries < 300; tries++) {
      if (child.exitCode !== null) throw new Error(`the service ended: ${log}`);
      const answer = await fetch(`${address}health/ready`).catch(() => null);
      if (answer?.ok) return;
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
    throw new Error(`the service is not ready: ${log}`);
  };
  const stop = () =>
    new Promise((resolve) => {
      child.once("exit", resolve);
      child.kill("SIGTERM");
    });
  await start();
  return { address, folder, start, stop, remove: () => rmSync(folder, { recursive: true, force: true }) };
}

export async function browser() {
  const executablePath = process.env.CHROMIUM ?? BROWSERS.find(existsSync);
  if (!executablePath) throw new Error("there is no Chromium; install Debian's package, or name one in CHROMIUM");
  return chromium.launch({ executablePath, args: process.getuid?.() === 0 ? ["--no-sandbox"] : [] });
}
