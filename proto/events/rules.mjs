// SPDX-License-Identifier: Apache-2.0
// What may change in a schema that somebody reads by: words, and fields that are new and not required. All else must stay, for
// a consumer may lean on it. Pure functions; rules_test.mjs tries them.
import { isDeepStrictEqual } from "node:util";

const WORDS = new Set(["$schema", "$defs", "$comment", "title", "description", "examples", "deprecated"]);
const INSIDE = new Set(["properties", "required", "items", "additionalProperties"]);

// `schema` of the file `name` with every $ref replaced by what it names. `load(name)` gives another file's schema.
export function inlined(schema, name, load) {
  if (Array.isArray(schema)) return schema.map((one) => inlined(one, name, load));
  if (schema === null || typeof schema !== "object") return schema;
  const { $ref, ...rest } = schema;
  const own = Object.fromEntries(Object.entries(rest).map(([key, value]) => [key, inlined(value, name, load)]));
  if ($ref === undefined) return own;
  const [file, pointer] = $ref.split("#");
  const from = file || name;
  let target = load(from);
  for (const part of pointer.split("/").slice(1)) target = target?.[part];
  if (target === undefined) throw new Error(`${name}: nothing at ${$ref}`);
  return { ...inlined(target, from, load), ...own };
}

// How `now` breaks who reads by `before`, one line each; both inlined.
export function breaks(before, now, place = "") {
  const at = place || "/";
  if (typeof before !== "object" || typeof now !== "object")
    return isDeepStrictEqual(before, now) ? [] : [`${at}: changed`];
  const found = [];
  for (const key of new Set([...Object.keys(before), ...Object.keys(now)])) {
    if (WORDS.has(key) || INSIDE.has(key)) continue;
    if (!isDeepStrictEqual(before[key], now[key]))
      found.push(`${at}: ${key} was ${JSON.stringify(before[key])}, is ${JSON.stringify(now[key])}`);
  }
  const had = new Set(before.required);
  const has = new Set(now.required);
  for (const field of had) if (!has.has(field)) found.push(`${place}/${field}: not required any more`);
  for (const field of has) if (!had.has(field)) found.push(`${place}/${field}: newly required`);
  for (const [field, schema] of Object.entries(before.properties ?? {})) {
    const still = now.properties?.[field];
    if (still === undefined) found.push(`${place}/${field}: removed`);
    else found.push(...breaks(schema, still, `${place}/${field}`));
  }
  for (const key of ["items", "additionalProperties"]) {
    if (before[key] === undefined && now[key] === undefined) continue;
    found.push(...breaks(before[key] ?? true, now[key] ?? true, `${place}/${key}`));
  }
  return found;
}

// The objects that a new field would make invalid, for whoever validates by this schema.
export function closed(schema, place = "") {
  if (schema === null || typeof schema !== "object") return [];
  const own = schema.additionalProperties === false || schema.unevaluatedProperties === false ? [place || "/"] : [];
  return own.concat(...Object.entries(schema).map(([key, value]) => closed(value, `${place}/${key}`)));
}

// The places of all required members of `value`, as arrays of keys.
export function required(schema, value, place = []) {
  if (schema === null || typeof schema !== "object" || value === null || typeof value !== "object") return [];
  if (Array.isArray(value)) return value.flatMap((one, i) => required(schema.items, one, [...place, i]));
  const own = (schema.required ?? []).map((field) => [...place, field]);
  const inner = Object.entries(schema.properties ?? {}).flatMap(([field, one]) => required(one, value[field], [...place, field]));
  return [...own, ...inner];
}

export function without(value, place) {
  const copy = structuredClone(value);
  const last = place.at(-1);
  delete place.slice(0, -1).reduce((inner, key) => inner[key], copy)[last];
  return copy;
}

// With a member that nobody knows in every object whose members are named.
export function extended(schema, value) {
  if (schema === null || typeof schema !== "object" || value === null || typeof value !== "object") return value;
  if (Array.isArray(value)) return value.map((one) => extended(schema.items, one));
  const members = Object.entries(value).map(([field, one]) => [field, extended(schema.properties?.[field], one)]);
  return Object.fromEntries(schema.properties ? [...members, ["of_a_later_version", 1]] : members);
}
