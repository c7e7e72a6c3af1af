// Makes src/service.d.ts of the service's OpenAPI document: node types.js PYTHON
import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import openapiTypescript, { astToString } from "openapi-typescript";

const python = process.argv[2] ?? "python3";
const out = execFileSync(python, ["-m", "service.openapi"], { cwd: "../..", maxBuffer: 1 << 26 });
const { digest, document } = JSON.parse(out.toString());
document.info = { title: "fbp-ray", version: "" };
const types = astToString(await openapiTypescript(document));
writeFileSync("src/service.d.ts", `// Made by \`make page-types\` of the OpenAPI document ${digest}\n${types}`);
