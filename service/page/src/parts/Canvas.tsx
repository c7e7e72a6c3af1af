// A canvas that shows a picture at the screen's own resolution.
import { useEffect, useRef } from "preact/hooks";
import type { Colours } from "../colours";
import { fitsTexture, painter, type Painter, type Picture, type Region } from "../draw";

export const WHOLE: Region = { x: 0.5, y: 0.5, zoom: 1 };

export function Canvas(props: { picture: Picture; colours: Colours; region?: Region; label: string }) {
  const textures = fitsTexture(props.picture);
  return <Drawn key={String(textures)} {...props} textures={textures} />;
}

function Drawn({ picture, colours, region = WHOLE, label, textures }: Parameters<typeof Canvas>[0] & { textures: boolean }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const drawing = useRef<Painter | null>(null);
  const latest = useRef(() => {});
  latest.current = () => drawing.current?.paint(picture, colours, region);

  useEffect(() => {
    const element = canvas.current!;
    drawing.current = painter(element, textures);
    const observer = new ResizeObserver(([entry]) => {
      const { width, height } = entry!.contentRect;
      const ratio = devicePixelRatio;
      element.width = Math.max(1, Math.round(width * ratio));
      element.height = Math.max(1, Math.round(height * ratio));
      latest.current();
    });
    observer.observe(element);
    return () => {
      observer.disconnect();
      drawing.current?.free();
    };
  }, [textures]);
  useEffect(() => {
    const frame = requestAnimationFrame(() => {
      latest.current();
      canvas.current?.dispatchEvent(new CustomEvent("drawn", { bubbles: true }));
    });
    return () => cancelAnimationFrame(frame);
  }, [picture, colours, region]);
  return <canvas ref={canvas} role="img" aria-label={label} />;
}
