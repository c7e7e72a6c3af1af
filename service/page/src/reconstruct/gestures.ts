// What the mouse, fingers and keys do on an image. All images follow.
import { columnsOf, rowsOf, type Picture } from "../draw";
import { slice, stack } from "./given";
import { dragWindow, line, pointer, region, tool, type Place } from "./state";

const CLOSEST = 64; // the most that an image is enlarged
const PER_PIXEL = 1 / 250; // of a drag, as a share of the width
const TAP = 8; // pixels that a finger may move without meaning it

interface Held {
  tool: "window" | "move" | "line";
  x: number;
  y: number;
  from: Place;
  /** It has moved far enough to mean it. */
  moved: boolean;
}
const attached = new WeakMap<HTMLElement, { picture: Picture }>();

/** Has an element answer; `picture` is what it shows now. */
export function gestures(element: HTMLElement, picture: Picture) {
  const known = attached.get(element);
  if (known) {
    known.picture = picture;
    return;
  }
  const now = { picture };
  attached.set(element, now);
  const fingers = new Map<number, PointerEvent>();
  let held: Held | null = null;

  const placeOf = (event: { clientX: number; clientY: number }): Place => {
    const box = element.getBoundingClientRect();
    const { x, y, zoom } = region.value;
    return {
      x: x + ((event.clientX - box.left) / box.width - 0.5) / zoom,
      y: y + ((event.clientY - box.top) / box.height - 0.5) / zoom,
    };
  };

  element.addEventListener("pointerdown", (event) => {
    element.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, event);
    const chosen = event.shiftKey ? "line" : event.button === 1 || event.ctrlKey ? "move" : tool.value;
    held = fingers.size > 1 ? null : { tool: chosen, x: event.clientX, y: event.clientY, from: placeOf(event), moved: event.pointerType !== "touch" };
    pointer.value = placeOf(event);
  });
  element.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (before && fingers.size === 2) pinch(before, event);
    if (before) fingers.set(event.pointerId, event);
    pointer.value = placeOf(event);
    if (!held) return;
    const [dx, dy] = [event.clientX - held.x, event.clientY - held.y];
    held.moved ||= Math.hypot(dx, dy) > TAP;
    if (!held.moved) return;
    if (held.tool === "line") {
      line.value = [held.from, placeOf(event)];
      return;
    }
    if (held.tool === "window") drag(dx, dy);
    else move(dx, dy);
    [held.x, held.y] = [event.clientX, event.clientY];
  });
  for (const end of ["pointerup", "pointercancel"] as const) {
    element.addEventListener(end, (event) => {
      fingers.delete(event.pointerId);
      held = null;
    });
  }
  element.addEventListener("pointerleave", (event) => {
    if (event.pointerType !== "touch") pointer.value = null; // where a finger was, is read when it is gone
  });
  element.addEventListener("touchstart", (event) => event.touches.length > 1 && event.preventDefault(), { passive: false });
  element.addEventListener("dblclick", () => (region.value = { x: 0.5, y: 0.5, zoom: 1 }));
  element.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      zoomAt(placeOf(event), Math.exp(-event.deltaY / 400));
    },
    { passive: false },
  );

  function move(dx: number, dy: number) {
    const { x, y, zoom } = region.value;
    const box = element.getBoundingClientRect();
    region.value = bounded(x - dx / box.width / zoom, y - dy / box.height / zoom, zoom);
  }

  function pinch(before: PointerEvent, event: PointerEvent) {
    const other = [...fingers.values()].find(({ pointerId }) => pointerId !== event.pointerId)!;
    const distance = (one: PointerEvent) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
    zoomAt(placeOf(other), distance(event) / Math.max(1, distance(before)));
  }

  element.addEventListener("keydown", (event) => {
    if (key(event, now.picture)) event.preventDefault();
  });
}

const drag = (dx: number, dy: number) => dragWindow(dx * PER_PIXEL, dy * PER_PIXEL);

function bounded(x: number, y: number, zoom: number) {
  const margin = 0.5 / zoom;
  const clip = (value: number) => Math.min(1 - margin, Math.max(margin, value));
  return { x: clip(x), y: clip(y), zoom };
}

/** Enlarges about a place, which stays where it is. */
export function zoomAt(place: Place, times: number) {
  const { x, y, zoom } = region.value;
  const next = Math.min(CLOSEST, Math.max(1, zoom * times));
  const share = zoom / next;
  region.value = bounded(place.x + (x - place.x) * share, place.y + (y - place.y) * share, next);
}

const MOVES: Record<string, [number, number]> = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** What a key does; false where it does nothing. */
function key(event: KeyboardEvent, picture: Picture): boolean {
  const place = pointer.value ?? { x: region.value.x, y: region.value.y };
  const moves = MOVES[event.key];
  if (moves && event.altKey) {
    drag(10 * moves[0], 10 * moves[1]);
  } else if (moves) {
    const step = event.shiftKey ? 10 : 1;
    const [columns, rows] = [columnsOf(picture), rowsOf(picture)];
    const stepped = (at: number, by: number, length: number) =>
      (Math.min(length - 1, Math.max(0, Math.floor(at * length) + by * step)) + 0.5) / length;
    const next = { x: stepped(place.x, moves[0], columns), y: stepped(place.y, moves[1], rows) };
    pointer.value = next;
    if (line.value && tool.value === "line") line.value = [line.value[0], next];
    const { x, y, zoom } = region.value;
    const follow = (at: number, middle: number) => Math.min(at + 0.5 / zoom, Math.max(at - 0.5 / zoom, middle));
    region.value = bounded(follow(next.x, x), follow(next.y, y), zoom);
  } else if (event.key === "+" || event.key === "=") zoomAt(place, 1.25);
  else if (event.key === "-") zoomAt(place, 0.8);
  else if (event.key === "0") region.value = { x: 0.5, y: 0.5, zoom: 1 };
  else if (event.key === "l" || event.key === "L") {
    tool.value = tool.value === "line" ? "window" : "line";
    if (tool.value === "line") line.value = [place, place];
  } else if (event.key === "PageDown") slice.value = Math.min(slice.value + 1, (stack.value?.count ?? 1) - 1);
  else if (event.key === "PageUp") slice.value = Math.max(slice.value - 1, 0);
  else if (event.key === "Escape") [line.value, pointer.value] = [null, null];
  else return false;
  return true;
}
