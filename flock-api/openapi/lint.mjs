// SPDX-License-Identifier: Apache-2.0
// Holds openapi.yaml against the linter without a warning left, makes TypeScript types of it and
// compiles them: what a customer's own tools will do first.
//   node lint.mjs OUT_DIR      (node_modules: npm ci in this folder; ./dev setup does it)
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const SKIPPED = 77;
const here = dirname(fileURLToPath(import.meta.url));
const out = resolve(process.argv[2] ?? "../../build/openapi");
const document = join(here, "openapi.yaml");

if (!existsSync(join(here, "node_modules"))) {
  console.error("openapi_lint: node_modules is missing; run ./dev setup");
  process.exit(SKIPPED);
}

function run(package_, program, args, options = {}) {
  const done = spawnSync(process.execPath, [join(here, "node_modules", package_, program), ...args], {
    cwd: here,
    encoding: "utf8",
    maxBuffer: 64 << 20,
    env: { ...process.env, REDOCLY_TELEMETRY: "off", REDOCLY_SUPPRESS_UPDATE_NOTICE: "true", CI: "true" },
    ...options,
  });
  if (done.error) throw done.error;
  return done;
}

function fail(what, text) {
  console.error(`openapi_lint: ${what}\n${text}`);
  process.exit(1);
}

const lint = run("@redocly/cli", "bin/cli.js", ["lint", document, "--format", "json", "--max-problems", "1000"]);
let report;
try {
  report = JSON.parse(lint.stdout);
} catch {
  fail("the linter did not run", lint.stdout + lint.stderr);
}
const found = report.totals.errors + report.totals.warnings + report.totals.ignored;
if (found > 0) {
  const lines = report.problems.map((p) => `${p.severity} ${p.ruleId} ${p.location[0]?.pointer}: ${p.message}`);
  fail(`${found} problems`, lines.join("\n"));
}

mkdirSync(out, { recursive: true });
const types = join(out, "api.d.ts");
const made = run("openapi-typescript", "bin/cli.js", [document, "--output", types]);
if (made.status !== 0) fail("no types can be made", made.stdout + made.stderr);

// One use of each way in which the types are used.
writeFileSync(
  join(out, "use.ts"),
  `import type { components, operations, paths } from "./api.d.ts";
export type Release = components["schemas"]["Release"];
export const state: Release["state"] = "FINAL";
export type Listed = operations["listReleases"]["responses"][200]["content"]["application/json"];
export const size = (page: Listed): number => page.items.length;
export type Path = keyof paths;
export const path: Path = "/v1/releases/{id}";
`,
);
const checked = run("typescript", "bin/tsc", ["--strict", "--noEmit", "--allowImportingTsExtensions", "--module", "esnext",
  "--moduleResolution", "bundler", "--target", "es2022", "--skipLibCheck", "false", join(out, "use.ts"), types]);
if (checked.status !== 0) fail("the types do not compile", checked.stdout + checked.stderr);
console.log("openapi_lint: no problem, and the types compile");
