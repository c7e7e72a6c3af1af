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
  help: string;
}

const follow = (schema: Schema, all: Definitions): Schema => (schema.$ref ? all[schema.$ref.split("/").at(-1)!]! : schema);

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
    const otherwise = preset === undefined || preset === null ? "" : typeof preset === "string" ? preset : JSON.stringify(preset);
    return { path, kind, choices, schema: one, required: required.includes(name), otherwise, help: given.description ?? inner.description ?? "" } satisfies Field;
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
    return "Letters, digits and . _ - alone, the first a letter or a digit, and not too long.";
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

/** The parts of the service's message that are about fields, by field, and the rest. */
export function faultsOf(message: string, fields: Field[]): { byField: Record<string, string>; rest: string } {
  const byField: Record<string, string> = {};
  const rest: string[] = [];
  for (const sentence of message.split(/; |\n/)) {
    const place = /(?:\bconfig\.|--)([\w.]+): (.*)/.exec(sentence);
    const field = place && fields.find(({ path }) => place[1] === path || place[1]!.startsWith(`${path}.`));
    if (field) byField[field.path] = place[2]!;
    else rest.push(sentence);
  }
  return { byField, rest: rest.join("; ") };
}
