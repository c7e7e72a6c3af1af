// What went wrong, where it was caused, and a way out.
import type { ComponentChildren } from "preact";

export function Fault({ text, retry, children }: { text: string; retry?: () => void; children?: ComponentChildren }) {
  if (!text) return null;
  return (
    <div class="fault" role="alert">
      <p>{text}</p>
      {retry && (
        <button type="button" onClick={retry}>
          Try again
        </button>
      )}
      {children}
    </div>
  );
}
