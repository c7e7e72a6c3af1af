// Something that the service is asked to do: whether it is at it, what came of it, what went wrong.
import { computed, signal } from "@preact/signals";
import { useMemo } from "preact/hooks";
import { NO_ANSWER, words } from "../api";

/** The task that has said something last: what others have said is no longer so. */
const latest = signal<object | null>(null);

/** Words for an error of something that is done once: the page does not try it again. */
export const wordsOnce = (error: unknown) =>
  words(error) === NO_ANSWER ? "The service did not answer, so this may not have been done. When it is back, look, and press again." : words(error);

export function useTask() {
  return useMemo(() => {
    const [problem, text, busy, own] = [signal(""), signal(""), signal(false), {}];
    const said = computed(() => (latest.value === own ? text.value : ""));
    /** Does it, and keeps what it returns to be said. */
    const run = async (what: () => Promise<string>) => {
      [problem.value, text.value, busy.value] = ["", "", true];
      try {
        text.value = await what();
        latest.value = own;
      } catch (error) {
        problem.value = wordsOnce(error);
      }
      busy.value = false;
    };
    return { problem, said, busy, run };
  }, []);
}
