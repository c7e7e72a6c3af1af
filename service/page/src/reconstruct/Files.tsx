// Where files are dropped and chosen, and what they were.
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { Fault } from "../parts/Fault";
import { Slider } from "./Controls";
import { cancelOpening, fileName, fileProblem, open, opening, openSample, openTruth, SAMPLE_NAME, scan, slice, stack, truthProblem, truths } from "./given";
import { truthMismatch } from "./state";

/** A file that falls beside the fields is a sinogram, too; the browser would leave the page for it. */
function useWholePage() {
  useEffect(() => {
    const over = (event: DragEvent) => event.preventDefault();
    const dropped = (event: DragEvent) => {
      if (event.defaultPrevented) return;
      event.preventDefault();
      void open([...(event.dataTransfer?.files ?? [])]);
    };
    addEventListener("dragover", over);
    addEventListener("drop", dropped);
    return () => {
      removeEventListener("dragover", over);
      removeEventListener("drop", dropped);
    };
  }, []);
}

export function Files() {
  useWholePage();
  return (
    <section aria-label="Files">
      <Drop label="Sinogram" hint="drop a file, or choose one" onFiles={(files) => void open(files)} multiple>
        {stack.value && (
          <span>
            {stack.value.name}: {stack.value.single ? "" : `${stack.value.count} × `}
            {stack.value.rows} × {stack.value.columns}
          </span>
        )}
        {!stack.value && fileName.value && fileName.value !== SAMPLE_NAME && !opening.value && (
          <span>Drop {fileName.value} again: files are not kept, all else is.</span>
        )}
      </Drop>
      {opening.value && (
        <div class="buttons">
          <progress aria-label="The file is read" />
          <button type="button" onClick={cancelOpening}>
            Cancel
          </button>
        </div>
      )}
      <Fault text={fileProblem.value} />
      <button type="button" onClick={() => void openSample()}>
        Take the sample
      </button>
      {stack.value?.name === SAMPLE_NAME && (
        <p class="note">
          LoDoPaB-CT, test sample 3456 (Leuschner et al., Scientific Data 2021),{" "}
          <a href="https://creativecommons.org/licenses/by/4.0/">CC BY 4.0</a>
        </p>
      )}
      {scan.value && (
        <p class="note">
          In the scan of {scan.value.name}: {scan.value.angles} angles, {scan.value.cells} cells.{" "}
          <button type="button" onClick={() => (scan.value = null)}>
            Remove the scan
          </button>
        </p>
      )}
      {stack.value && stack.value.count > 1 && (
        <Slider
          label="Slice"
          value={slice.value}
          low={0}
          high={stack.value.count - 1}
          step={1}
          text={(value) => `${value} of 0 to ${stack.value!.count - 1}`}
          onInput={(value) => (slice.value = value)}
        />
      )}
      {stack.value && (
        <>
          <Drop label="Ground truth" hint="for PSNR and SSIM" onFiles={([file]) => file && void openTruth(file)}>
            {truths.value && <span>{truths.value.name}</span>}
          </Drop>
          <Fault text={truthProblem.value || truthMismatch.value} />
        </>
      )}
    </section>
  );
}

interface DropProps {
  label: string;
  hint: string;
  onFiles: (files: File[]) => void;
  multiple?: boolean;
  children?: preact.ComponentChildren;
}

function Drop({ label, hint, onFiles, multiple = false, children }: DropProps) {
  const over = useSignal(false);
  return (
    <label
      class={`drop ${over.value ? "over" : ""}`}
      onDragOver={(event) => {
        event.preventDefault();
        over.value = true;
      }}
      onDragLeave={() => (over.value = false)}
      onDrop={(event) => {
        event.preventDefault();
        over.value = false;
        onFiles([...(event.dataTransfer?.files ?? [])]);
      }}
    >
      <b>{label}</b>
      <span class="note">{hint}</span>
      <input
        class="hidden"
        type="file"
        aria-label={`${label}: ${hint}`}
        multiple={multiple}
        onChange={(event) => {
          onFiles([...(event.currentTarget.files ?? [])]);
          event.currentTarget.value = "";
        }}
      />
      {children}
    </label>
  );
}
