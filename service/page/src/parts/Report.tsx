// A report: opened in a tab of its own or, with a token, which a link cannot carry, saved.
import { access } from "../access";
import { call } from "../api";
import { Fault } from "./Fault";
import { save } from "./save";
import { useTask } from "./task";

export function Report({ place, folder }: { place: string; folder: string }) {
  const { problem, busy, run } = useTask();
  const name = place === folder ? "report" : place.split("/").at(-1)!;
  const address = `report?place=${encodeURIComponent(place)}`;
  if (!access.value?.tokens) {
    return (
      <a href={address} target="_blank" rel="noreferrer">
        {name}{" "}
      </a>
    );
  }
  const fetchIt = async () => {
    save(await (await call(address)).blob(), `${folder.split("/").at(-1)}-${name}.html`);
    return "";
  };
  return (
    <>
      <button type="button" disabled={busy.value} onClick={() => void run(fetchIt)}>
        {name}
      </button>
      <Fault text={problem.value} />
    </>
  );
}
