// A new job: what most need in front, all other settings behind that.
import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { returns, send, words, type Documents, Problem } from "../api";
import { Fault } from "../parts/Fault";
import { wordsOnce } from "../parts/task";
import { definitions, fields, held, hold, learn, origin, refused, searched, spaces, texts, type Kind } from "./held";
import { fault, faultsOf, settingsOf, type Field } from "./schema";

const KINDS: Record<Kind, { title: string; short: string[] }> = {
  train: { title: "Train", short: ["recipe", "run.name", "data.dir", "train.epochs"] },
  sweep: { title: "Sweep", short: ["sweep.name", "sweep.trials", "data.dir", "train.epochs"] },
  evaluate: { title: "Evaluate", short: ["checkpoint", "data.dir", "split"] },
  reconstruct: { title: "Make a volume", short: ["checkpoint", "window", "cutoff", "data.dir", "out"] },
};
const idOf = (path: string) => `setting-${path}`;
const sectionOf = (path: string) => path.split(".").slice(0, -1).join(".");

export function NewJob({ onSubmitted }: { onSubmitted: (id: string) => void }) {
  const [problem, unknown, sending, open] = [useSignal(""), useSignal(""), useSignal(false), useSignal(false)];
  const last = useRef({ text: "", key: "" }); // what is sent again, after an answer that never came, is the same job
  useEffect(() => {
    learn()
      .then(() => (unknown.value = ""))
      .catch((error: unknown) => (unknown.value = words(error)));
  }, [returns.value]);
  const { kind, space } = held.value;
  const { title, short } = KINDS[kind];
  const first = short.flatMap((path) => fields.value.find((field) => field.path === path) ?? []);
  const others = fields.value.filter(({ path }) => !short.includes(path));
  const wrong = [...first, ...others].filter(({ path }) => refused.value[path]).map(({ path }) => path);

  /** Says what does not hold at the fields, and leads to the first of them. */
  function refuse(byField: Record<string, string>) {
    refused.value = byField;
    const path = [...first, ...others].find(({ path }) => byField[path])?.path;
    if (!path) return;
    if (!short.includes(path)) open.value = true;
    requestAnimationFrame(() => show(path));
  }

  async function submit(event: Event) {
    event.preventDefault();
    problem.value = "";
    const found = fields.value.map((field) => [field.path, fault(field, texts.value[field.path] ?? "")] as const).filter(([, text]) => text);
    refuse(Object.fromEntries(found));
    if (found.length) {
      problem.value = "Not sent.";
      return;
    }
    sending.value = true;
    try {
      const body = { kind, config: settingsOf(fields.value, texts.value), ...(spaces.value.length ? { space: space || spaces.value[0] } : {}) };
      const text = JSON.stringify(body);
      if (last.current.text !== text) last.current = { text, key: `page-${Date.now()}-${Math.random()}` };
      const job = await send<Documents["JobDocument"]>("POST", "jobs", body, { "Idempotency-Key": last.current.key });
      last.current = { text: "", key: "" };
      origin.value = "";
      onSubmitted(job!.id);
    } catch (error) {
      const { byField, rest } = faultsOf(error instanceof Problem ? { ...error, message: wordsOnce(error) } : { message: words(error) }, fields.value);
      refuse(byField);
      problem.value = rest || "Not taken.";
    } finally {
      sending.value = false;
    }
  }

  const empty = () => [hold({}), (refused.value = {}), (origin.value = ""), (problem.value = "")];
  return (
    <form class="card" onSubmit={(event) => void submit(event)} noValidate>
      <h2>New job</h2>
      <Fault text={unknown.value} />
      <div class="buttons" role="group" aria-label="Kind of job">
        {(Object.keys(KINDS) as Kind[]).map((name) => (
          <button
            type="button"
            key={name}
            aria-pressed={kind === name}
            onClick={() => {
              held.value = { ...held.value, kind: name };
              [refused.value, origin.value, problem.value] = [{}, "", ""];
            }}
          >
            {KINDS[name].title}
          </button>
        ))}
      </div>
      {origin.value && (
        <p role="status">
          With the settings of job {origin.value}.{" "}
          {texts.value["run.name"] || texts.value["sweep.name"] ? "A run or a sweep of the same name goes on where it was." : "It gets a name of its own; with the old one it would go on."}
        </p>
      )}
      {spaces.value.length > 0 && (
        <label>
          What is searched
          <select value={space || spaces.value[0]} onChange={(event) => (held.value = { ...held.value, space: event.currentTarget.value })}>
            {spaces.value.map((name) => (
              <option key={name} value={name}>
                {name.replaceAll("_", " ")}
              </option>
            ))}
          </select>
          <span class="note">{searched.value.join(", ")}</span>
        </label>
      )}
      {!definitions.value && !unknown.value && <p role="status">The service is asked what it takes.</p>}
      <p class="note">{texts.value["run.extend"] ? "A run that is extended keeps its own settings where nothing is given." : "A field that is left empty takes what it shows: the recipe's value, or the default."}</p>
      {first.map((field) => (
        <Entry key={field.path} field={field} />
      ))}
      <details open={open.value} onToggle={(event) => (open.value = event.currentTarget.open)}>
        <summary>All settings</summary>
        {[...new Set(others.map(({ path }) => sectionOf(path)))].map((section) => (
          <fieldset key={section}>
            <legend>{section || "general"}</legend>
            {others
              .filter(({ path }) => sectionOf(path) === section)
              .map((field) => (
                <Entry key={field.path} field={field} />
              ))}
          </fieldset>
        ))}
      </details>
      <Fault text={problem.value}>
        {wrong.length > 0 && (
          <p>
            {"These do not hold, and say why: "}
            {wrong.map((path) => (
              <button type="button" class="link" key={path} onClick={() => show(path)}>
                {path}
              </button>
            ))}
          </p>
        )}
      </Fault>
      <div class="buttons">
        <button type="submit" disabled={sending.value || !definitions.value}>
          {title}
        </button>
        {Object.values(texts.value).some(Boolean) && (
          <button type="button" onClick={empty}>
            Empty the form
          </button>
        )}
      </div>
      {sending.value && <progress aria-label="The job is checked" />}
    </form>
  );
}

/** Leads to a field, and opens what it is in. */
function show(path: string) {
  const element = document.getElementById(idOf(path));
  const panel = element?.closest("details");
  if (panel) panel.open = true;
  element?.scrollIntoView({ block: "center" });
  element?.focus({ preventScroll: true });
}

function Entry({ field }: { field: Field }) {
  const { path, choices, kind: type, otherwise, recipes, help, required } = field;
  const value = texts.value[path] ?? "";
  const wrong = refused.value[path];
  const id = idOf(path);
  const set = (text: string) => {
    hold({ ...texts.value, [path]: text });
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
          <option value="">{otherwise ? `${otherwise} (${recipes ? "by the recipe" : "the default"})` : "not set"}</option>
          {[...new Set([...options, ...(value ? [value] : [])])].map((name) => (
            <option key={name} value={name}>
              {name}
            </option>
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
        {wrong && <b class="wrong">{/^\w+\.\w/.test(wrong) ? wrong : wrong[0]!.toUpperCase() + wrong.slice(1)} </b>}
        {help}
      </p>
    </div>
  );
}
