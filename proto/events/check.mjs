// SPDX-License-Identifier: Apache-2.0
// Holds the schemas of customer events against their examples (which flock-api writes, customer_events_test.cpp) and against the
// schemas of the last release.
//   node check.mjs             (ajv: ./dev setup)
//   node check.mjs --release   makes the present schemas those of the last release; part of making one
import { cpSync, existsSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { breaks, closed, extended, inlined, required, without } from "./rules.mjs";

const SKIPPED = 77;
const here = dirname(fileURLToPath(import.meta.url));
const released = join(here, "released");
const ENDING = ".schema.json";
const faults = [];
const fault = (text) => faults.push(text);

const read = (folder, name) => JSON.parse(readFileSync(join(folder, name), "utf8"));
const types = (folder) => readdirSync(folder).filter((name) => name.endsWith(ENDING)).map((name) => name.slice(0, -ENDING.length));
const whole = (folder, type) => inlined(read(folder, type + ENDING), type + ENDING, (name) => read(folder, name));

function release() {
  rmSync(released, { recursive: true, force: true });
  for (const name of ["common.json", ...types(here).map((type) => type + ENDING)]) cpSync(join(here, name), join(released, name));
}

// The files as they are, with their references, by a validator that knows nothing of rules.mjs.
function validators(Ajv, folder) {
  const ajv = new Ajv({ strict: true, allErrors: true });
  ajv.addSchema(read(folder, "common.json"), "common.json");
  const out = new Map();
  for (const type of types(folder)) {
    ajv.addSchema(read(folder, type + ENDING), type + ENDING);
    const validate = ajv.getSchema(type + ENDING);
    out.set(type, (value) => (validate(value) ? "" : ajv.errorsText(validate.errors)));
  }
  return out;
}

function check(Ajv) {
  const now = validators(Ajv, here);
  const before = validators(Ajv, released);
  for (const [type, validate] of now) {
    const schema = whole(here, type);
    if (schema.title !== type || schema.properties.type.const !== type) fault(`${type}: title and type must be the file's name`);
    for (const place of closed(schema)) fault(`${type}: ${place} allows no new field`);
    const file = join("examples", `${type}.json`);
    if (!existsSync(join(here, file))) {
      fault(`${type}: no example`);
      continue;
    }
    const example = read(here, file);
    const expect = (what, said, good) => (said === "") === good || fault(`${type}: ${what}: ${said || "valid"}`);
    expect("the example", validate(example), true);
    expect("with new fields", validate(extended(schema, example)), true);
    for (const place of required(schema, example)) expect(`without ${place.join(".")}`, validate(without(example, place)), false);
    if (before.has(type)) expect("for who reads by the last release", before.get(type)(extended(schema, example)), true);
  }
  for (const name of readdirSync(join(here, "examples")))
    if (!now.has(name.slice(0, -".json".length))) fault(`examples/${name}: no schema`);
  for (const type of before.keys()) {
    if (!now.has(type)) fault(`${type}: removed since the last release`);
    else for (const broken of breaks(whole(released, type), whole(here, type))) fault(`${type}: ${broken}`);
  }
  if (now.size === 0 || before.size === 0) fault("there are no schemas");
  return now.size;
}

if (process.argv[2] === "--release") {
  release();
} else {
  const packages = join(here, "../../flock-api/openapi");
  if (!existsSync(join(packages, "node_modules/@redocly/ajv"))) {
    console.error("event_schemas: node_modules is missing; run ./dev setup");
    process.exit(SKIPPED);
  }
  const count = check(createRequire(join(packages, "package.json"))("@redocly/ajv/dist/2020").default);
  for (const line of faults) console.error(`event_schemas: ${line}`);
  if (faults.length > 0) process.exit(1);
  console.log(`event_schemas: ${count} types, each as its example and as the last release promised`);
}
