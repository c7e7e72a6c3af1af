// Something that the service is asked to do: whether it is at it, what came of it, what went wrong.
import { useSignal } from "@preact/signals";
import { words } from "../api";

export function useTask() {
  const [problem, said, busy] = [useSignal(""), useSignal(""), useSignal(false)];
  /** Does it, and keeps what it returns to be said. */
  const run = async (what: () => Promise<string>) => {
    [problem.value, said.value, busy.value] = ["", "", true];
    try {
      said.value = await what();
    } catch (error) {
      problem.value = words(error);
    }
    busy.value = false;
  };
  return { problem, said, busy, run };
}
