// How wide an element is, in pixels: what is drawn at that size has words of the page's own size.
import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";

export function useWidth(otherwise: number) {
  const place = useRef<HTMLDivElement>(null);
  const width = useSignal(otherwise);
  useEffect(() => {
    const observer = new ResizeObserver(([entry]) => (width.value = Math.max(200, Math.floor(entry!.contentRect.width))));
    observer.observe(place.current!);
    return () => observer.disconnect();
  }, []);
  return { place, width: width.value };
}
