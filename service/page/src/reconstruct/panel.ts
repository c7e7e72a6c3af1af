// One image of the comparison: asks for what it should show, and for the slices around it.
import { effect, signal, type ReadonlySignal } from "@preact/signals";
import { isAbort, Problem, returns, words } from "../api";
import type { Picture } from "../draw";
import { has, known, load, nameOf, room, type Ask, type Image } from "../images";
import { measure } from "../measure";
import type { Quality } from "../quality";

// Slices that are read ahead in one request: more of those that are far ahead, of which the service makes one batch; fewer of those that may be
// asked for before they are there.
const [FEWEST, MOST] = [4, 16];
const PASSING = [401, 408, 429]; // refusals that do not last

/** What all panels have in common. */
export interface Around {
  slice: ReadonlySignal<number>;
  truth: ReadonlySignal<{ picture: Picture; index: number } | null>;
  /** How many panels share the room for images. */
  count: () => number;
}

export class Panel {
  readonly image = signal<Image | null>(null);
  readonly problem = signal("");
  /** The same again would be refused again. */
  readonly refused = signal(false);
  readonly busy = signal(false);
  readonly quality = signal<Quality | null>(null);
  /** Somebody looks at it. */
  readonly watched = signal(true);
  /** Counts up to have it try again. */
  readonly retries = signal(0);

  private running = false;
  private stale = false;
  private doing = new AbortController();
  private ahead = new AbortController();
  private stack: Ask["stack"] | null = null;
  private forward = 1;
  private shown = 0;
  /** What is read ahead; empty for nothing. */
  private reading = "";

  constructor(
    readonly id: string,
    private readonly ask: () => Ask | null,
    private readonly around: Around,
  ) {
    const { slice, truth } = around;
    effect(() => {
      const [wanted, index] = [this.watched.value ? this.ask() : null, slice.value];
      returns.value;
      this.retries.value;
      if (wanted) this.want(wanted, index);
    });
    effect(() => {
      const [image, beside] = [this.image.value, truth.value];
      this.quality.value = null;
      if (image && beside && image.index === beside.index) {
        void measure(image.picture, beside.picture).then((found) => {
          if (this.image.peek() === image && truth.peek() === beside) this.quality.value = found;
        });
      }
    });
  }

  /** What it should show. */
  asked = () => this.ask();

  /** Gives up what it waits for. */
  cancel() {
    this.stale = false;
    this.doing.abort();
    this.refused.value = false;
    this.problem.value = "Cancelled: what was asked for was not made.";
  }

  private want(ask: Ask, index: number) {
    if (this.stack !== ask.stack) {
      this.stack = ask.stack;
      this.image.value = null;
      this.doing.abort();
    }
    if (this.reading !== nameOf(ask)) this.ahead.abort();
    const found = known(ask, index);
    if (found) {
      this.show(ask, index, found);
    } else if (this.running) {
      this.stale = true; // what is asked for now is finished first, so that a slider that is moved shows something
    } else {
      void this.load();
    }
  }

  private async load() {
    this.running = true;
    this.busy.value = true;
    do {
      this.stale = false;
      const [ask, index] = [this.ask(), this.around.slice.peek()];
      if (!ask) break;
      this.doing = new AbortController();
      try {
        const image = known(ask, index) ?? (await load(ask, index, 1, this.doing.signal));
        if (this.stack === ask.stack) this.show(ask, index, image);
      } catch (error) {
        if (!isAbort(error) && !this.stale) {
          this.problem.value = words(error);
          this.refused.value = error instanceof Problem && error.status >= 400 && error.status < 500 && !PASSING.includes(error.status);
          this.image.value = null;
        }
      }
    } while (this.stale);
    this.running = false;
    this.busy.value = false;
  }

  private show(ask: Ask, index: number, image: Image) {
    this.problem.value = "";
    this.image.value = image;
    if (index !== this.shown) this.forward = index > this.shown ? 1 : -1;
    this.shown = index;
    if (ask.stack.count > 1) void this.readAhead(ask, image);
  }

  /** Asks for the slices around the one that is shown, first in the direction in which they are looked through. */
  private async readAhead(ask: Ask, image: Image) {
    const name = nameOf(ask);
    if (this.reading === name) return;
    this.ahead.abort();
    const { signal } = (this.ahead = new AbortController());
    this.reading = name;
    try {
      for (let next = this.missing(ask, image); next; next = this.missing(ask, image)) {
        await load(ask, ...next, signal);
        if (signal.aborted) return;
      }
    } catch {
      // what is wrong is said when the slice is asked for
    } finally {
      if (this.ahead.signal === signal) this.reading = "";
    }
  }

  /** The first and the number of the nearest slices that are not there. */
  private missing(ask: Ask, image: Image): [number, number] | null {
    const lacks = (number: number) => number >= 0 && number < ask.stack.count && !has(ask, number);
    const farthest = room(image, this.around.count()) / 2;
    for (const step of [this.forward, -this.forward]) {
      for (let away = 1; away < farthest; away++) {
        const next = this.around.slice.peek() + step * away;
        if (!lacks(next)) continue;
        const most = Math.min(MOST, Math.max(FEWEST, Math.floor(away / 2)));
        let count = 1;
        while (count < most && lacks(next + step * count)) count++;
        return [step > 0 ? next : next - count + 1, count];
      }
    }
    return null;
  }
}
