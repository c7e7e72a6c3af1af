// The painter in WebGL 2: the values are a texture of float32, the colours another.
import type { Painter, Picture } from "./draw";

const CORNERS = `#version 300 es
void main() {
  vec2 corner = vec2(gl_VertexID & 1, gl_VertexID >> 1) * 4.0 - 1.0;
  gl_Position = vec4(corner, 0, 1);
}`;
const COLOURS = `#version 300 es
precision highp float;
precision highp sampler2D;
uniform sampler2D values, colours;
uniform vec4 region; // left and top as fractions, and the fractions that a pixel of the screen is
uniform vec2 size;   // columns and rows
uniform float height, low, high;
uniform bool transposed;
out vec4 colour;
void main() {
  vec2 place = (region.xy + vec2(gl_FragCoord.x, height - gl_FragCoord.y) * region.zw) * size;
  if (any(lessThan(place, vec2(0))) || any(greaterThanEqual(place, size))) { colour = vec4(0); return; }
  ivec2 pixel = ivec2(place);
  float value = texelFetch(values, transposed ? pixel.yx : pixel, 0).r;
  float share = clamp((value - low) / (high - low), 0.0, 1.0);
  colour = texelFetch(colours, ivec2(int(share * 255.0 + 0.5), 0), 0);
}`;

const SOFTWARE = /swiftshader|llvmpipe|softpipe|software|basic render/i;
let card: boolean | undefined;

/** Whether WebGL 2 runs on a graphics card: computed by the processor it takes longer than the plain painter. */
function hasCard(): boolean {
  if (card === undefined) {
    const gl = document.createElement("canvas").getContext("webgl2");
    const name = gl?.getParameter(gl.getExtension("WEBGL_debug_renderer_info")?.UNMASKED_RENDERER_WEBGL ?? gl.RENDERER);
    card = !!gl && !SOFTWARE.test(String(name));
    gl?.getExtension("WEBGL_lose_context")?.loseContext();
  }
  return card;
}

/** A painter; null where it would be slow, or there is no WebGL 2. */
export function webglPainter(canvas: HTMLCanvasElement): Painter | null {
  const gl = hasCard() ? canvas.getContext("webgl2", { antialias: false, depth: false }) : null;
  if (!gl) return null;
  const program = gl.createProgram();
  for (const [kind, text] of [[gl.VERTEX_SHADER, CORNERS], [gl.FRAGMENT_SHADER, COLOURS]] as const) {
    const shader = gl.createShader(kind)!;
    gl.shaderSource(shader, text);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) return null;
  gl.useProgram(program);
  const place = (name: string) => gl.getUniformLocation(program, name);
  const places = { region: place("region"), size: place("size"), height: place("height"), low: place("low"), high: place("high"), transposed: place("transposed") };
  const texture = (unit: number) => {
    gl.activeTexture(gl.TEXTURE0 + unit);
    gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
    for (const filter of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, filter, gl.NEAREST);
    for (const wrap of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) gl.texParameteri(gl.TEXTURE_2D, wrap, gl.CLAMP_TO_EDGE);
  };
  texture(0);
  texture(1);
  gl.uniform1i(place("values"), 0);
  gl.uniform1i(place("colours"), 1);
  gl.pixelStorei(gl.UNPACK_ALIGNMENT, 4);
  let [drawn, table]: [Picture["values"] | null, Uint8Array | null] = [null, null];
  return {
    paint(picture, colours, { x, y, zoom }) {
      if (picture.values !== drawn) {
        gl.activeTexture(gl.TEXTURE0);
        gl.texImage2D(gl.TEXTURE_2D, 0, gl.R32F, picture.shape[1], picture.shape[0], 0, gl.RED, gl.FLOAT, picture.values);
        drawn = picture.values;
      }
      if (colours.table !== table) {
        gl.activeTexture(gl.TEXTURE1);
        gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, 256, 1, 0, gl.RGBA, gl.UNSIGNED_BYTE, colours.table);
        table = colours.table;
      }
      const [rows, columns] = picture.transposed ? [picture.shape[1], picture.shape[0]] : picture.shape;
      gl.viewport(0, 0, canvas.width, canvas.height);
      gl.uniform4f(places.region, x - 0.5 / zoom, y - 0.5 / zoom, 1 / zoom / canvas.width, 1 / zoom / canvas.height);
      gl.uniform2f(places.size, columns, rows);
      gl.uniform1f(places.height, canvas.height);
      gl.uniform1f(places.low, colours.low);
      gl.uniform1f(places.high, colours.high);
      gl.uniform1i(places.transposed, picture.transposed ? 1 : 0);
      gl.drawArrays(gl.TRIANGLES, 0, 3);
    },
    free() {
      gl.getExtension("WEBGL_lose_context")?.loseContext();
    },
  };
}
