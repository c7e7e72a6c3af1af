// Builds the page into dist/: files named by their content, and manifest.json with the media type of each.
import { build } from "esbuild";
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { basename } from "node:path";

const OUT = "dist";
const SAMPLE = "../../tests/data/lodopab_pair/lodopab_test_3456.npz";
const BUNDLED = ["preact", "@preact/signals", "@preact/signals-core", "uplot"];
const TYPES = { txt: "text/plain", js: "text/javascript", css: "text/css", npz: "application/zip", html: "text/html", svg: "image/svg+xml" };
const manifest = {};

function put(name, content) {
  writeFileSync(`${OUT}/${name}`, content);
  manifest[name] = TYPES[name.split(".").at(-1)];
  return name;
}

/** Writes content under a name with its digest; returns the name. */
function putByContent(name, content) {
  const digest = createHash("sha256").update(content).digest("hex").slice(0, 8);
  return put(name.replace(/\.(\w+)$/, `-${digest}.$1`), content);
}

const copy = (path) => putByContent(basename(path), readFileSync(path));

/** Bundles an entry, returns the name of the file. */
async function bundle(entry, define = {}) {
  const { outputFiles } = await build({
    entryPoints: [entry],
    entryNames: "[name]-[hash]",
    outdir: OUT,
    bundle: true,
    minify: true,
    write: false,
    format: "esm",
    target: "es2022",
    jsx: "automatic",
    jsxImportSource: "preact",
    define,
    logLevel: "warning",
  });
  return put(basename(outputFiles[0].path), outputFiles[0].contents);
}

rmSync(OUT, { recursive: true, force: true });
mkdirSync(OUT);
const worker = await bundle("src/quality.worker.ts");
const licences = BUNDLED.map((name) => `${name}\n\n${readFileSync(`node_modules/${name}/LICENSE`, "utf8")}`);
const script = await bundle("src/main.tsx", {
  WORKER: JSON.stringify(`page/${worker}`),
  LICENCES: JSON.stringify(`page/${putByContent("licences.txt", licences.join("\n\n"))}`),
  SAMPLE: JSON.stringify(`page/${copy(SAMPLE)}`),
});
const names = { SCRIPT: script, STYLE: await bundle("style.css"), ICON: copy("icon.svg") };
const html = readFileSync("index.html", "utf8").replace(/\b(SCRIPT|STYLE|ICON)\b/g, (name) => `page/${names[name]}`);
put("index.html", html);
writeFileSync(`${OUT}/manifest.json`, JSON.stringify(manifest, null, 2));
