// SPDX-License-Identifier: Apache-2.0
// The check of the additive rule, checked: each way to break a consumer is found, each way not to is let through.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import test from "node:test";
import { fileURLToPath } from "node:url";
import { breaks, closed, extended, inlined, required, without } from "./rules.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const load = (name) => JSON.parse(readFileSync(join(here, name), "utf8"));
const type = "device.state_changed";
const schema = inlined(load(`${type}.schema.json`), `${type}.schema.json`, load);
const changed = (edit) => {
  const copy = structuredClone(schema);
  edit(copy.properties.data.properties, copy);
  return breaks(schema, copy);
};

test("what changes nothing for a reader is let through", () => {
  assert.deepEqual(changed(() => {}), []);
  assert.deepEqual(changed((data) => (data.uptime = { type: "integer" })), []);
  assert.deepEqual(changed((data) => (data.device.properties.notes = { type: "string" })), []);
  assert.deepEqual(changed((data) => (data.reported.properties.services.items.properties.cpu = { type: "number" })), []);
  assert.deepEqual(changed((data) => (data.device.description = "other words")), []);
  assert.deepEqual(changed((data) => data.reported.properties.phase.examples.push("PAUSED")), []);
});

const broken = {
  "a field is removed": [(data) => delete data.reported.properties.error, "/data/reported/error: removed"],
  "a field of a list's items is removed": [
    (data) => delete data.reported.properties.services.items.properties.message,
    "/data/reported/services/items/message: removed",
  ],
  "a type changes": [
    (data) => (data.reported.properties.desired_version.type = "string"),
    '/data/reported/desired_version: type was "integer", is "string"',
  ],
  "a type is widened": [
    (data) => (data.device.properties.name.type = ["string", "null"]),
    '/data/device/name: type was "string", is ["string","null"]',
  ],
  "what labels hold changes": [
    (data) => (data.device.properties.labels.additionalProperties.type = "number"),
    '/data/device/labels/additionalProperties: type was "string", is "number"',
  ],
  "a known field becomes required": [(data) => data.reported.required.push("error"), "/data/reported/error: newly required"],
  "a new field is required": [
    (data) => {
      data.device.properties.notes = { type: "string" };
      data.device.required.push("notes");
    },
    "/data/device/notes: newly required",
  ],
  "a field is not required any more": [(data) => data.device.required.pop(), "/data/device/labels: not required any more"],
  "values are limited": [
    (data) => (data.reported.properties.phase.enum = ["IDLE"]),
    '/data/reported/phase: enum was undefined, is ["IDLE"]',
  ],
  "a pattern changes": [
    (data, all) => (all.properties.id.pattern = "^x"),
    `/id: pattern was ${JSON.stringify(schema.properties.id.pattern)}, is "^x"`,
  ],
  "a type is renamed": [
    (data, all) => (all.properties.type.const = "device.changed"),
    `/type: const was "${type}", is "device.changed"`,
  ],
  "an object is closed": [(data) => (data.device.additionalProperties = false), "/data/device/additionalProperties: changed"],
};
for (const [what, [edit, said]] of Object.entries(broken))
  test(`found: ${what}`, () => assert.deepEqual(changed(edit), [said]));

test("an object that allows no new field is found", () => {
  assert.deepEqual(closed(schema), []);
  assert.deepEqual(closed({ properties: { a: { additionalProperties: false } } }), ["/properties/a"]);
  assert.deepEqual(closed({ unevaluatedProperties: false }), ["/"]);
});

test("a reference to nothing is an error, one to something is as if it stood there", () => {
  assert.throws(() => inlined({ $ref: "#/$defs/b" }, "a", () => ({ $defs: {} })), /a: nothing at #\/\$defs\/b/);
  assert.deepEqual(inlined({ $ref: "c#/$defs/b", title: "t" }, "a", () => ({ $defs: { b: { type: "string" } } })), {
    type: "string",
    title: "t",
  });
});

test("members are found, left out and added by the schema", () => {
  const one = { type: "object", required: ["a"], properties: { a: { type: "array", items: { required: ["b"], properties: { b: {} } } } } };
  const value = { a: [{ b: 1 }] };
  assert.deepEqual(required(one, value), [["a"], ["a", 0, "b"]]);
  assert.deepEqual(without(value, ["a", 0, "b"]), { a: [{}] });
  assert.deepEqual(extended(one, value), { a: [{ b: 1, of_a_later_version: 1 }], of_a_later_version: 1 });
});
