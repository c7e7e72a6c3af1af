// The files that are reconstructed: a sinogram, perhaps with its ground truth and its scan. They are not kept, they may be patients'.
import { batch, computed, effect, signal } from "@preact/signals";
import { models } from "../access";
import { inAddress, textInAddress } from "../address";
import { call, gone, Problem, returns, words } from "../api";
import { openScan, openSinograms, openTruths, type Dropped, type Scan, type Stack } from "../source";

export const SAMPLE_NAME = "lodopab_test_3456.npz";
const TRUTH_NAME = /truth|target|label|image|phantom|(^|[^a-z])gt([^a-z]|$)/i;

export const stack = signal<Stack | null>(null);
export const truths = signal<Stack | null>(null);
/** The stack's own scan; null where the model's holds. */
export const scan = signal<Scan | null>(null);
/** It as JSON; empty where there is none. */
export const geometry = computed(() => scan.value?.json ?? "");
export const fileProblem = signal("");
export const truthProblem = signal("");
export const opening = signal(false);

export const fileName = textInAddress("file");
export const slice = inAddress("slice", 0, (text) => Math.max(0, Math.round(Number(text)) || 0));
effect(() => {
  if (stack.value && slice.value >= stack.value.count) slice.value = stack.value.count - 1;
});

effect(() => {
  if (stack.value) fileName.value = stack.value.name; // whatever an earlier address says
});

/** What to do when the service is there again. */
let again: (() => void) | null = null;
effect(() => {
  returns.value;
  const before = again;
  again = null;
  before?.();
});

let opened = 0;
let readingFile = new AbortController();

/** Gives up a file that is being read. */
export function cancelOpening() {
  opened += 1;
  readingFile.abort();
  opening.value = false;
}

/** Opens files that were dropped together: a sinogram, and perhaps its ground truth, and its scan as JSON. What is wrong changes nothing. */
export async function open(files: File[]) {
  cancelOpening();
  const [turn, truthsBefore] = [opened, truths.value];
  const { signal } = (readingFile = new AbortController());
  again = null;
  fileProblem.value = "";
  truthProblem.value = "";
  opening.value = true;
  try {
    const scans = files.filter(({ name }) => name.endsWith(".json"));
    const arrays = files.filter(({ name }) => !name.endsWith(".json"));
    if (scans.length > 1 || arrays.length > 2) {
      throw new Problem(0, `${files.length} files were dropped; the page takes a sinogram, its ground truth and its scan (.json) at a time.`);
    }
    const own = scans[0] ? await openScan(scans[0]) : null;
    const dropped: Dropped[] = [];
    for (const file of arrays) dropped.push(await openSinograms(file, signal));
    const [first, second] = inOrder(dropped, own);
    const beside = second?.sinograms ?? (await first?.truths()) ?? null;
    if (turn !== opened) return; // other files were dropped meanwhile
    batch(() => {
      if (own) scan.value = own;
      if (!first) return;
      if (!own && scan.value && !takes(scan.value, first.sinograms)) scan.value = null;
      if (fileName.value !== first.sinograms.name) slice.value = 0;
      stack.value = first.sinograms;
      if (beside || truths.value === truthsBefore) truths.value = beside; // else it was dropped for this sinogram meanwhile
      fileName.value = first.sinograms.name;
    });
  } catch (error) {
    if (turn !== opened) return;
    fileProblem.value = words(error);
    if (gone.value) again = () => void open(files);
  } finally {
    if (turn === opened) opening.value = false;
  }
}

const takes = ({ angles, cells }: { angles: number; cells: number }, { rows, columns }: Stack) => rows === angles && columns === cells;

/** Which of two files is the sinogram, and which the ground truth. */
function inOrder(dropped: Dropped[], own: Scan | null): Dropped[] {
  if (dropped.length < 2) return dropped;
  const known = [
    ...(own ? [own] : []),
    ...models.value.map(({ geometry: { sinogram_shape: [angles, cells], image_shape: [columns, rows] } }) => ({ angles: angles!, cells: cells!, columns: columns!, rows: rows! })),
  ];
  const orders = [dropped, dropped.toReversed()];
  const isImage = ({ sinograms: { rows, columns } }: Dropped) => known.some((one) => one.columns === rows && one.rows === columns);
  const found =
    orders.find(([a, b]) => known.some((one) => takes(one, a!.sinograms)) && isImage(b!)) ??
    orders.find(([a, b]) => TRUTH_NAME.test(b!.sinograms.name) && !TRUTH_NAME.test(a!.sinograms.name));
  if (found) return found;
  const names = dropped.map(({ sinograms }) => sinograms.name).join(" or ");
  throw new Problem(0, `Which is the sinogram, ${names}? Drop it here, and the ground truth on its own field.`);
}

export async function openTruth(file: File) {
  truthProblem.value = "";
  try {
    truths.value = await openTruths(file, new AbortController().signal);
  } catch (error) {
    truthProblem.value = words(error);
    if (gone.value) again = () => void openTruth(file);
  }
}

/** The genuine pair that comes with the service. */
export async function openSample() {
  try {
    const content = await (await call(SAMPLE)).blob();
    await open([new File([content], SAMPLE_NAME)]);
  } catch (error) {
    fileProblem.value = words(error);
    if (gone.value) again = () => void openSample();
  }
}
