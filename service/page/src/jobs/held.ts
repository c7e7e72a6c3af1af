// What the form of a new job holds. It outlives errors, other views and a reload of the tab.
import { computed, effect, signal } from "@preact/signals";
import { getJson, type Documents } from "../api";
import { fieldsOf, textOf, textsOf, type Definitions, type Schema } from "./schema";

export type Kind = Documents["JobSummary"]["kind"];
interface Held {
  kind: Kind;
  /** What was typed, by kind of job and field. */
  typed: Partial<Record<Kind, Record<string, string>>>;
  space: string;
}
const KEPT = "fbp-ray-form";
const SCHEMAS: Record<Kind, string> = { train: "TrainJob", sweep: "SweepJob", evaluate: "EvaluateJob", reconstruct: "ReconstructJob" };

function kept(): Held {
  const empty: Held = { kind: "train", typed: {}, space: "" };
  try {
    const held = { ...empty, ...(JSON.parse(sessionStorage.getItem(KEPT) ?? "{}") as Held) };
    return held.kind in SCHEMAS ? held : empty;
  } catch {
    return empty;
  }
}

export const held = signal(kept());
effect(() => {
  const text = JSON.stringify(held.value);
  try {
    sessionStorage.setItem(KEPT, text);
  } catch {
    // there is no room for it: it lasts until the next reload
  }
});

export const definitions = signal<Definitions | null>(null);
const lists = signal<Documents["RecipeList"]>({ recipes: [], searched: {} });
export const refused = signal<Record<string, string>>({});
/** The job whose settings the form has, if it has those of one. */
export const origin = signal("");

export const texts = computed(() => held.value.typed[held.value.kind] ?? {});
const jobSchema = computed(() => definitions.value?.[SCHEMAS[held.value.kind]]);
export const spaces = computed(() => (jobSchema.value?.properties?.space as Schema | undefined)?.enum ?? []);
/** What the trials of a sweep are given, whatever else is said. */
export const searched = computed(() => (spaces.value.length ? (lists.value.searched[held.value.space || spaces.value[0]!] ?? []) : []));
const ofSchema = computed(() => {
  const config = jobSchema.value?.properties?.config;
  return config ? fieldsOf(config, definitions.value!, "", config.default) : [];
});
/** The settings of the recipe that is chosen; none for a run that is extended, which goes on with its own. */
const chosen = computed(() => {
  const field = ofSchema.value.find(({ path }) => path === "recipe");
  const name = texts.value.recipe || field?.otherwise;
  return texts.value["run.extend"] ? {} : (lists.value.recipes.find((one) => one.name === name)?.settings ?? {});
});
/** The fields, which show what holds where they are left empty. */
export const fields = computed(() =>
  ofSchema.value.filter(({ path }) => !searched.value.includes(path)).map((field) => {
    const names = lists.value.recipes.map(({ name }) => name);
    if (field.path === "recipe" && names.length) return { ...field, kind: "choice" as const, choices: names };
    return field.path in chosen.value ? { ...field, otherwise: textOf(chosen.value[field.path]), recipes: true } : field;
  }),
);

/** Asks for the settings that there are; raises Problem. */
export async function learn(): Promise<void> {
  if (definitions.value) return;
  const [found, { components }] = await Promise.all([getJson<Documents["RecipeList"]>("recipes"), getJson<{ components: { schemas: Definitions } }>("openapi.json")]);
  [lists.value, definitions.value] = [found, components.schemas];
}

export function hold(texts: Record<string, string>) {
  const { kind, typed } = held.value;
  held.value = { ...held.value, typed: { ...typed, [kind]: texts } };
}

/** Opens the form with the settings of a job: to go on with it or, where it succeeded, for another. */
export async function openWith({ id, kind, status, request }: Documents["JobDocument"]): Promise<void> {
  await learn();
  held.value = { ...held.value, kind, space: typeof request.space === "string" ? request.space : "" };
  const given = textsOf(ofSchema.value, request.config as Record<string, unknown>);
  const own = kind === "evaluate" ? ["out"] : status === "succeeded" ? ["run.name", "sweep.name", "out"] : [];
  for (const path of own) delete given[path];
  [refused.value, origin.value] = [{}, id];
  hold(given);
  location.hash = "#jobs";
}
