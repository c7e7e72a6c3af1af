// A training: its curves as they come, and its newest picture.
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { call, type Documents } from "../api";
import { Chart } from "../parts/Chart";
import { Wide } from "../parts/Wide";
import { addressOf, type Row } from "./follow";

const number = (value: unknown) => (typeof value === "number" && Number.isFinite(value) ? value : null);

export function Curves({ rows, best }: { rows: Row[]; best: Documents["Best"] }) {
  if (!rows.some(({ epoch }) => Number(epoch) > 0)) return null; // a window that was solved has no curves
  const x = rows.map(({ epoch }) => Number(epoch));
  const names = Object.keys(rows[0]!);
  const curve = (name: string, label = name.replace("_", " ").replaceAll("_", "-")) => ({ name: label, values: rows.map((row) => number(row[name])) });
  const isLoss = (name: string) => names.includes(name.replace(/^validation_/, "train_")); // figures of images are of the validation part alone
  const losses = names.filter((name) => /^(train|validation)_/.test(name) && isLoss(name)).map((name) => curve(name));
  const quality = names.filter((name) => name.startsWith("validation_") && !isLoss(name)).map((name) => name.slice("validation_".length));
  return (
    <div class="window">
      <section class="chart-card">
        <h2>Loss and its parts</h2>
        <Chart x={x} whole xName="epoch" yName="loss" curves={losses} label="Losses by epoch" />
      </section>
      {quality.map((name) => {
        const { value, over_fbp } = (name === "psnr" || name === "ssim" ? best[name] : null) ?? {};
        const classic = typeof value === "number" && typeof over_fbp === "number" ? value - over_fbp : null;
        const line = classic === null ? [] : [{ name: "classic FBP, best Hann", values: x.map(() => classic), dash: [6, 4] }];
        const title = name === "psnr" ? "PSNR, dB" : name === "ssim" ? "SSIM" : name;
        return (
          <section class="chart-card" key={name}>
            <h2>{title}</h2>
            <Chart x={x} whole xName="epoch" yName={title} curves={[curve(`validation_${name}`, "learned"), ...line]} label={`${title} by epoch`} />
          </section>
        );
      })}
      {names.includes("lr") && (
        <section class="chart-card">
          <h2>Learning rate</h2>
          <Chart x={x} whole xName="epoch" yName="rate" curves={[curve("lr", "learning rate")]} label="Learning rate by epoch" />
        </section>
      )}
    </div>
  );
}

/** The newest reconstruction, fetched anew after each epoch. */
export function Newest({ id, epoch, there }: { id: string; epoch: number; there: boolean }) {
  const picture = useSignal("");
  useEffect(() => () => URL.revokeObjectURL(picture.value), []);
  useEffect(() => {
    if (!there) return;
    const gone = new AbortController();
    call(`${addressOf(id)}/newest`, { signal: gone.signal })
      .then((answer) => answer.blob())
      .then((content) => {
        URL.revokeObjectURL(picture.value);
        picture.value = URL.createObjectURL(content);
      })
      .catch(() => undefined); // it is being replaced: the next epoch has another
    return () => gone.abort();
  }, [id, epoch, there]);
  if (!picture.value) return null;
  return (
    <section class="chart-card">
      <h2>The newest reconstruction</h2>
      <Wide label="The picture">
        <img src={picture.value} alt={`Reconstructions of a validation sample after epoch ${epoch}`} />
      </Wide>
    </section>
  );
}
