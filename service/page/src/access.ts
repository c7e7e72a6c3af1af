// Who the service takes this tab for, and the models that it may ask for.
import { computed, effect, signal } from "@preact/signals";
import { getJson, gone, isAbort, Problem, returns, tokenAsked, words, type Documents } from "./api";

const LOOK_MS = 10_000;

export const access = signal<Documents["AccessDocument"] | null>(null);
export const models = signal<Documents["ModelDocument"][]>([]);
/** Models that are to serve and do not, and why: after a restart of the service they are loaded one by one. */
export const absent = signal<Record<string, string>>({});
/** Why nothing is known of the service; empty while it answers. */
export const trouble = signal("");
export const mayOperate = computed(() => access.value?.role === "operate");

/** Asks anew who we are and what serves. */
export async function refresh(): Promise<void> {
  try {
    access.value = await getJson("access");
    await refreshModels();
    trouble.value = "";
  } catch (error) {
    if (isAbort(error)) return;
    if (error instanceof Problem && error.status === 401) access.value = null;
    trouble.value = words(error);
  }
}

export async function refreshModels(): Promise<void> {
  const { models: found, absent: lacking } = await getJson<Documents["ModelList"]>("models");
  if (JSON.stringify(found) !== JSON.stringify(models.value)) models.value = found;
  if (JSON.stringify(lacking) !== JSON.stringify(absent.value)) absent.value = lacking ?? {};
}

effect(() => {
  returns.value; // again when the service comes back, and when a token was given
  if (tokenAsked.value === null) void refresh();
});
const look = () => {
  if (access.value && !gone.value && !document.hidden) void refreshModels().catch(() => undefined);
};
addEventListener("focus", look);
setInterval(look, LOOK_MS); // somebody else, or a job, may have another model serve
