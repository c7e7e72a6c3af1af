// What may be wider than the window, and is then moved with the keyboard, too.
import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";

export function Wide({ label, children }: { label: string; children: ComponentChildren }) {
  const place = useRef<HTMLDivElement>(null);
  const more = useSignal(false);
  useEffect(() => {
    const element = place.current!;
    const observer = new ResizeObserver(() => (more.value = element.scrollWidth > element.clientWidth + 1));
    for (const one of [element, ...element.children]) observer.observe(one);
    return () => observer.disconnect();
  }, []);
  return (
    <>
      {more.value && <p class="note">Wider than the window: move it sideways.</p>}
      <div class="wide" tabIndex={0} role="group" aria-label={label} ref={place}>
        {children}
      </div>
    </>
  );
}
