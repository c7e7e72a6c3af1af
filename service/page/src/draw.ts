// Images on canvases: each pixel of the screen has the colour of the image's pixel there, nothing is smoothed.
import type { Colours } from "./colours";
import { plainPainter } from "./draw-plain";
import { webglPainter } from "./draw-webgl";

/** An image of which axis 0 goes to the right (x), as the service's have it, or down. */
export interface Picture {
  values: Float32Array;
  /** Lengths of axis 0 and axis 1. */
  shape: [number, number];
  /** Axis 0 goes to the right and axis 1 down; else axis 0 goes down. */
  transposed: boolean;
}

/** The part of an image that is shown: its middle as a fraction of either side, and how often it is enlarged. */
export interface Region {
  x: number;
  y: number;
  zoom: number;
}

export interface Painter {
  paint: (picture: Picture, colours: Colours, region: Region) => void;
  free: () => void;
}

const LARGEST = 4096; // a side that every WebGL 2 takes for a texture

/** Whether a painter with textures can have an image. */
export const fitsTexture = ({ shape }: Picture) => Math.max(...shape) <= LARGEST;

/** A painter of a canvas: WebGL 2 where the browser has it, and the images fit. */
export function painter(canvas: HTMLCanvasElement, textures: boolean): Painter {
  return (textures && webglPainter(canvas)) || plainPainter(canvas);
}

export const columnsOf = ({ shape, transposed }: Picture) => shape[transposed ? 0 : 1];
export const rowsOf = ({ shape, transposed }: Picture) => shape[transposed ? 1 : 0];

/** The value at a column and a row of what is shown. */
export function valueAt({ values, shape, transposed }: Picture, column: number, row: number): number {
  return values[transposed ? column * shape[1] + row : row * shape[1] + column] ?? NaN;
}

/** The pixel at a place, as fractions of the sides; null beside the image. */
export function pixelAt(picture: Picture, x: number, y: number): [number, number] | null {
  const [column, row] = [Math.floor(x * columnsOf(picture)), Math.floor(y * rowsOf(picture))];
  return column >= 0 && row >= 0 && column < columnsOf(picture) && row < rowsOf(picture) ? [column, row] : null;
}
