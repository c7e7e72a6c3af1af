// What the view Window shows: the window of a model, and the noise that it sees in the sinogram at hand.
import { computed, effect, signal } from "@preact/signals";
import { access, models } from "../access";
import { path, textInAddress } from "../address";
import { call, getJson, isAbort, returns, whole, words, type Documents } from "../api";
import type { Picture } from "../draw";
import { request } from "../images";
import { readNpy } from "../npy";
import { slice, stack } from "../reconstruct/given";
import { cutoff } from "../reconstruct/state";

const wanted = textInAddress("of");
export const model = computed(() => {
  const names = models.value.map(({ name }) => name);
  return names.includes(wanted.value) ? wanted.value : names.includes("best") ? "best" : (names[0] ?? "");
});
export const chooseModel = (name: string) => (wanted.value = name);
const version = computed(() => models.value.find(({ name }) => name === model.value)?.version);

export const windowDocument = signal<Documents["WindowDocument"] | null>(null);
export const problem = signal("");
export const noise = signal<Picture | null>(null);
export const noiseProblem = signal("");
/** Of the rays whose window is shown. */
export const logVariance = signal(-2);
export const logEnergy = signal(0.4);
export const angleIndex = signal(0);

const isShown = computed(() => path.value.startsWith("window") && !!access.value && !!model.value);
let asking = new AbortController();

effect(() => {
  const [name, at] = [model.value, cutoff.value];
  [version.value, returns.value];
  if (!isShown.value) return;
  asking.abort();
  const { signal: gone } = (asking = new AbortController());
  getJson<Documents["WindowDocument"]>(`models/${encodeURIComponent(name)}/window?cutoff=${at}`, gone)
    .then((found) => {
      windowDocument.value = found;
      problem.value = "";
    })
    .catch((error: unknown) => {
      if (!isAbort(error)) [windowDocument.value, problem.value] = [null, words(error)];
    });
});

const bySinogram = computed(() => windowDocument.value?.noise ?? false);
let measuring = new AbortController();

effect(() => {
  const [from, index, name] = [stack.value, slice.value, model.value];
  version.value;
  measuring.abort();
  noise.value = null;
  noiseProblem.value = "";
  if (!isShown.value || !from || !bySinogram.value) return;
  const { signal: gone } = (measuring = new AbortController());
  void askNoise(name, gone, request({ title: name, stack: from, query: "", version: "", geometry: "", pixel: null }, index, 1));
});

async function askNoise(name: string, gone: AbortSignal, sent: Promise<RequestInit>) {
  try {
    const answer = await call(`noise?model=${encodeURIComponent(name)}`, { ...(await sent), signal: gone });
    const read = readNpy(await whole(answer));
    if (read && !gone.aborted) noise.value = { values: read.values, shape: read.shape as [number, number], transposed: false };
  } catch (error) {
    if (!isAbort(error)) noiseProblem.value = words(error);
  }
}
