// The settings of a job as fields of a form, of the JSON schema in the service's OpenAPI document.

export interface Schema {
  type?: string;
  enum?: string[];
  const?: string;
  anyOf?: Schema[];
  $ref?: string;
  properties?: Record<string, Schema>;
  required?: string[];
  default?: unknown;
  description?: string;
  pattern?: string;
  minimum?: number;
  maximum?: number;
  exclusiveMinimum?: number;
  exclusiveMaximum?: number;
}
const NAMES = "^[A-Za-z0-9][A-Za-z0-9._-]"; // how the pattern of names begins
export type Definitions = Record<string, Schema>;

export interface Field {
  /** Such as `optim.lr`. */
  path: string;
  kind: "number" | "integer" | "text" | "choice" | "switch" | "json";
  choices: string[];
  schema: Schema;
  required: boolean;
  /** What holds where nothing is given, as text. */
  otherwise: string;
  /** Whether that is so by the recipe. */
  recipes: boolean;
  help: string;
}

const follow = (schema: Schema, all: Definitions): Schema => (schema.$ref ? all[schema.$ref.split("/").at(-1)!]! : schema);

/** A setting as it is written in its field. */
export const textOf = (value: unknown) => (value === undefined || value === null ? "" : typeof value === "string" ? value : JSON.stringify(value));

/** All fields of a schema, those of inner objects by dotted names. */
export function fieldsOf(schema: Schema, all: Definitions, before = "", outer: unknown = undefined): Field[] {
  const { properties = {}, required = [] } = follow(schema, all);
  return Object.entries(properties).flatMap(([name, given]) => {
    const path = before + name;
    const inner = follow(given, all);
    const preset = (outer as Record<string, unknown> | undefined)?.[name] ?? given.default;
    if (inner.properties) return fieldsOf(inner, all, `${path}.`, preset);
    const kinds = (inner.anyOf ?? [inner]).map((one) => follow(one, all)).filter(({ type }) => type !== "null");
    const one = kinds.length === 1 ? kinds[0]! : {};
    const choices = one.enum ?? (one.const === undefined ? [] : [one.const]);
    const kind = choices.length ? "choice" : one.type === "boolean" ? "switch" : one.type === "string" ? "text" : one.type === "integer" || one.type === "number" ? one.type : "json";
    return { path, kind, choices, schema: one, required: required.includes(name), otherwise: textOf(preset), recipes: false, help: (given.description ?? inner.description ?? "").replaceAll(/--(?=[a-z])/g, "") } satisfies Field;
  });
}

/** What is wrong with the text in a field; empty where it is right, or nothing is given. */
export function fault({ kind, schema, required }: Field, text: string): string {
  if (!text.trim()) return required ? "This is needed." : "";
  if (kind === "number" || kind === "integer") {
    const value = Number(text);
    if (!Number.isFinite(value)) return "This has to be a number.";
    if (kind === "integer" && !Number.isInteger(value)) return "This has to be a whole number.";
    const { minimum, maximum, exclusiveMinimum, exclusiveMaximum } = schema;
    if (minimum !== undefined && value < minimum) return `At least ${minimum}.`;
    if (maximum !== undefined && value > maximum) return `At most ${maximum}.`;
    if (exclusiveMinimum !== undefined && value <= exclusiveMinimum) return `More than ${exclusiveMinimum}.`;
    if (exclusiveMaximum !== undefined && value >= exclusiveMaximum) return `Less than ${exclusiveMaximum}.`;
  }
  if (schema.pattern && kind === "text" && !new RegExp(schema.pattern).test(text)) {
    return schema.pattern.startsWith(NAMES) ? "Letters, digits and . _ - alone, the first a letter or a digit, and not too long." : "None of what is described here.";
  }
  return "";
}

function valueOf({ kind }: Field, text: string): unknown {
  if (kind === "number" || kind === "integer") return Number(text);
  if (kind === "switch") return text === "true";
  if (kind !== "json") return text;
  try {
    return JSON.parse(text);
  } catch {
    return text.includes(",") ? text.split(",").map((part) => part.trim()) : text;
  }
}

/** The settings that were given, nested; the service fills in the others. */
export function settingsOf(fields: Field[], texts: Record<string, string>): Record<string, unknown> {
  const settings: Record<string, unknown> = {};
  for (const field of fields) {
    const text = texts[field.path]?.trim();
    if (!text) continue;
    const names = field.path.split(".");
    const last = names.pop()!;
    let place = settings;
    for (const name of names) place = (place[name] ??= {}) as Record<string, unknown>;
    place[last] = valueOf(field, text);
  }
  return settings;
}

/** What was given, as texts of the fields. */
export function textsOf(fields: Field[], settings: Record<string, unknown>): Record<string, string> {
  const value = (path: string) => path.split(".").reduce<unknown>((place, name) => (place as Record<string, unknown> | undefined)?.[name], settings);
  return Object.fromEntries(fields.flatMap(({ path }) => (textOf(value(path)) ? [[path, textOf(value(path))]] : [])));
}

/** What the service refuses, by field where it names one, and the rest. */
export function faultsOf({ message, errors = [] }: { message: string; errors?: Record<string, string>[] | undefined }, fields: Field[]): { byField: Record<string, string>; rest: string } {
  const found: { path: string; depth: number; text: string }[] = [];
  const rest: string[] = [];
  const take = (place: string, text: string) => {
    const inner = fields.filter(({ path }) => path === place || place.startsWith(`${path}.`)).at(-1);
    const path = inner?.path ?? named(text, place, fields);
    if (path) found.push({ path, depth: place.split(".").length, text: text.replaceAll(/--(?=[a-z_]+[.\w]*)/g, (dashes, at: number) => (fields.some(({ path }) => text.startsWith(path, at + 2)) ? "" : dashes)) });
    else rest.push(text);
  };
  for (const { field = "", message = "" } of errors) take(field.replace(/^\w+\.config\.?/, ""), message);
  if (!errors.length) {
    for (const line of message.split(/\n\s*(?=--)/)) {
      const [, place = "", text = line] = /^--([\w.]+): (.*)$/s.exec(line) ?? [];
      take(place, text);
    }
  }
  const byField: Record<string, string> = {};
  for (const { path } of found) {
    const own = found.filter((one) => one.path === path);
    const deepest = own.filter(({ depth }) => depth === Math.max(...own.map(({ depth }) => depth))); // what is said of the whole follows from that
    byField[path] = [...new Set(deepest.map(({ text }) => text))].join(", or ");
  }
  return { byField, rest: rest.join("; ") };
}

/** The field that a message names first: as an option or in backticks or, of the settings of a part, by its last name. */
function named(text: string, part: string, fields: Field[]): string | undefined {
  const before = part && `${part}.`;
  const places = fields.flatMap(({ path }) => {
    const [whole, last] = [path, path.slice(before.length)].map((name) => name.replaceAll(".", "\\."));
    const at = text.search(new RegExp(`(?:--|\`)${whole}(?![\\w.]*\\w)`));
    const inPart = part && path.startsWith(before) ? text.search(new RegExp(`(?<![\\w.-])${last}(?![\\w.])`)) : -1;
    return [at, inPart].filter((place) => place >= 0).map((place) => ({ path, place }));
  });
  return places.sort((a, b) => a.place - b.place)[0]?.path;
}
