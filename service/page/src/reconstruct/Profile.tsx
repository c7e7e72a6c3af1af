// The profile along the line, through all images.
import { computed } from "@preact/signals";
import { Chart } from "../parts/Chart";
import { save } from "../parts/save";
import { pixelsAlong, profile, sidesOf } from "./pixels";
import { alike, images, line, reading, unit } from "./state";

const curves = computed(() => {
  const [ends, first] = [line.value, [...images.value.values()][0]];
  if (!ends || !first) return null;
  const pixels = pixelsAlong(ends, ...sidesOf(first.picture));
  const mm = first.pixel;
  const shown = [...images.value.values()].filter((image) => alike(image, first));
  const { of } = reading.value;
  return {
    x: pixels.map(({ away }) => away * (mm ?? 1)),
    xName: mm ? "mm" : "pixels",
    curves: shown.map(({ title, picture }) => ({ name: title, values: profile(picture, pixels).map(of) })),
  };
});

/** The profile as a table, every value to the last digit of float32. */
function saveProfile() {
  const { x, xName, curves: columns } = curves.value!;
  const head = [xName, ...columns.map(({ name }) => `"${name}, ${reading.value.name}"`)].join(",");
  const rows = x.map((away, i) => [away.toPrecision(7), ...columns.map(({ values }) => values[i]!.toPrecision(9))].join(","));
  save(new Blob([[head, ...rows, ""].join("\n")], { type: "text/csv" }), "profile.csv");
}

export function Profile() {
  if (!curves.value) return null;
  return (
    <section class="profile" aria-label="Profile">
      <h2>Profile</h2>
      <Chart {...curves.value} yName={reading.value.name} digits={unit.value === "raw" ? 9 : 5} label="Values along the line, through all images" />
      <div class="buttons">
        <button type="button" onClick={saveProfile}>
          CSV
        </button>
        <button type="button" onClick={() => (line.value = null)}>
          Remove the line
        </button>
      </div>
    </section>
  );
}
