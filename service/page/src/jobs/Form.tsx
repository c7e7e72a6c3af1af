// A new job: what most need in front, all other settings behind that.
import { computed, signal, useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { getJson, send, words, type Documents } from "../api";
import { Fault } from "../parts/Fault";
import { fault, faultsOf, fieldsOf, settingsOf, type Definitions, type Field, type Schema } from "./schema";

type Kind = Documents["JobSummary"]["kind"];
const KINDS: Record<Kind, { title: string; schema: string; short: string[] }> = {
  train: { title: "Train", schema: "TrainJob", short: ["recipe", "run.name", "data.dir", "train.epochs"] },
  sweep: { title: "Sweep", schema: "SweepJob", short: ["sweep.name", "sweep.trials", "data.dir", "train.epochs"] },
  evaluate: { title: "Evaluate", schema: "EvaluateJob", short: ["checkpoint", "data.dir", "split"] },
  reconstruct: { title: "Make a volume", schema: "ReconstructJob", short: ["checkpoint", "window", "cutoff", "data.dir", "out"] },
};

const definitions = signal<Definitions | null>(null);
const kind = signal<Kind>("train");
/** What was typed, by kind of job and field: it outlives errors and other views. */
const typed = signal<Record<string, Record<string, string>>>({});
const space = signal("");
const refused = signal<Record<string, string>>({});

const jobSchema = computed(() => definitions.value?.[KINDS[kind.value].schema]);
const spaces = computed(() => (jobSchema.value?.properties?.space as Schema | undefined)?.enum ?? []);
const fields = computed(() => {
  const config = jobSchema.value?.properties?.config;
  return config ? fieldsOf(config, definitions.value!, "", config.default) : [];
});

export function NewJob({ onSubmitted }: { onSubmitted: (id: string) => void }) {
  const problem = useSignal("");
  const sending = useSignal(false);
  const last = useRef({ text: "", key: "" }); // what is sent again, after an answer that never came, is the same job
  useEffect(() => {
    if (definitions.value) return;
    getJson<{ components: { schemas: Definitions } }>("openapi.json")
      .then(({ components }) => (definitions.value = components.schemas))
      .catch((error: unknown) => (problem.value = words(error)));
  }, []);
  const { title, short } = KINDS[kind.value];
  const texts = typed.value[kind.value] ?? {};
  const [first, others] = [short.flatMap((path) => fields.value.find((field) => field.path === path) ?? []), fields.value.filter(({ path }) => !short.includes(path))];

  async function submit(event: Event) {
    event.preventDefault();
    problem.value = "";
    refused.value = Object.fromEntries(fields.value.flatMap((field) => (fault(field, texts[field.path] ?? "") ? [[field.path, fault(field, texts[field.path] ?? "")]] : [])));
    if (Object.keys(refused.value).length) {
      problem.value = "Not sent: some settings do not hold; they say why.";
      return;
    }
    sending.value = true;
    try {
      const body = { kind: kind.value, config: settingsOf(fields.value, texts), ...(spaces.value.length ? { space: space.value || spaces.value[0] } : {}) };
      const text = JSON.stringify(body);
      if (last.current.text !== text) last.current = { text, key: `page-${Date.now()}-${Math.random()}` };
      const job = await send<Documents["JobDocument"]>("POST", "jobs", body, { "Idempotency-Key": last.current.key });
      last.current = { text: "", key: "" };
      onSubmitted(job!.id);
    } catch (error) {
      const { byField, rest } = faultsOf(words(error), fields.value);
      refused.value = byField;
      problem.value = rest || "Not taken: some settings do not hold; they say why.";
    } finally {
      sending.value = false;
    }
  }

  return (
    <form class="card" onSubmit={(event) => void submit(event)} noValidate>
      <h2>New job</h2>
      <div class="buttons" role="group" aria-label="Kind of job">
        {(Object.keys(KINDS) as Kind[]).map((name) => (
          <button type="button" key={name} aria-pressed={kind.value === name} onClick={() => ([kind.value, refused.value] = [name, {}])}>
            {KINDS[name].title}
          </button>
        ))}
      </div>
      {spaces.value.length > 0 && (
        <label>
          What is searched
          <select value={space.value || spaces.value[0]} onChange={(event) => (space.value = event.currentTarget.value)}>
            {spaces.value.map((name) => (
              <option key={name}>{name}</option>
            ))}
          </select>
        </label>
      )}
      <p class="note">What is left open is the recipe's, or what the field shows.</p>
      {first.map((field) => (
        <Entry key={field.path} field={field} />
      ))}
      <details open={others.some(({ path }) => refused.value[path]) || undefined}>
        <summary>All settings</summary>
        {[...new Set(others.map(({ path }) => path.split(".").slice(0, -1).join(".")))].map((section) => (
          <fieldset key={section}>
            <legend>{section || "general"}</legend>
            {others
              .filter(({ path }) => path.split(".").slice(0, -1).join(".") === section)
              .map((field) => (
                <Entry key={field.path} field={field} />
              ))}
          </fieldset>
        ))}
      </details>
      <Fault text={problem.value} />
      <button type="submit" disabled={sending.value || !definitions.value}>
        {title}
      </button>
      {sending.value && <progress aria-label="The job is checked" />}
    </form>
  );
}

function Entry({ field }: { field: Field }) {
  const { path, choices, kind: type, otherwise, help, required } = field;
  const value = typed.value[kind.value]?.[path] ?? "";
  const wrong = refused.value[path];
  const id = `setting-${path}`;
  const set = (text: string) => {
    typed.value = { ...typed.value, [kind.value]: { ...typed.value[kind.value], [path]: text } };
    const { [path]: _, ...rest } = refused.value;
    refused.value = fault(field, text) ? { ...rest, [path]: fault(field, text) } : rest;
  };
  const common = { id, "aria-describedby": `${id}-help`, "aria-invalid": !!wrong, value };
  const options = type === "switch" ? ["true", "false"] : choices;
  return (
    <div class="entry">
      <label for={id}>
        {path}
        {required && " (needed)"}
      </label>
      {options.length ? (
        <select {...common} onChange={(event) => set(event.currentTarget.value)}>
          <option value="">{otherwise ? `as it is: ${otherwise}` : "as it is"}</option>
          {options.map((name) => (
            <option key={name}>{name}</option>
          ))}
        </select>
      ) : (
        <input
          {...common}
          inputMode={type === "number" || type === "integer" ? "decimal" : "text"}
          placeholder={otherwise}
          autocomplete="off"
          onInput={(event) => set(event.currentTarget.value)}
        />
      )}
      <p class="note" id={`${id}-help`}>
        {wrong && <b class="wrong">{wrong} </b>}
        {help}
      </p>
    </div>
  );
}
