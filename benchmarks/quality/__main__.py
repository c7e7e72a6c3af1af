"""Quality against milliseconds: windows and networks, trained and scored on one data set, beside the classic FBPs.

    python -m benchmarks.quality --data data/mine --out figures            trains all of them: two hours on 2 cores
    python -m benchmarks.quality --data data/mine --out figures --kinds adaptive,ray_noise
    python -m benchmarks.quality --data data/mine --out figures --epochs 2 --samples 24     quick

Windows learn with the recipe `lodopab-window`, windows with a network after them with `lodopab-tiny` and three times
the epochs or with `lodopab-unet` and a fifth more, on the training part; the Hanns' cut-offs are chosen on the
validation part; figures are of `--split`. Runs stay in OUT/runs and are not trained again. It prints the table and
writes quality.json, quality.md, quality.png (quality against time, noise power spectra, transfer functions) and
front.png (quality against time alone) to OUT.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from benchmarks.projector.machine import OtherPrograms, machine, versions
from benchmarks.quality.methods import KINDS, Method, classic, learned, train_all
from benchmarks.quality.report import front, plot, table
from benchmarks.quality.scores import best_cutoffs, score, time_in_turns
from fbp_ray.cli import parse, run_program
from fbp_ray.config import split_names
from fbp_ray.data import LoDoPaB, geometry_of, photons_of
from fbp_ray.errors import ConfigError
from fbp_ray.evaluate.phantom import look_apart


class Options(BaseModel):
    """Scores every kind of window beside the classic FBPs."""

    model_config = ConfigDict(extra="forbid")

    data: Path = Field(description="a data folder in the layout of LoDoPaB-CT")
    out: Path = Field(default=Path("figures"), description="where the runs and the results go")
    split: Literal["validation", "test"] = Field(default="test", description="the part that is scored")
    kinds: Annotated[tuple[str, ...], BeforeValidator(split_names)] = Field(
        default=tuple(KINDS), description="what is trained, separated by commas"
    )
    epochs: int = Field(default=10, ge=1, description="of each training")
    samples: int | None = Field(default=None, ge=1, description="score the first so many; without it all")
    rounds: int = Field(default=7, ge=1, description="how often each is timed")


def main(argv: Sequence[str]) -> None:
    """Trains, scores, times, prints and writes."""
    options = parse(Options, argv, "python -m benchmarks.quality")
    if unknown := set(options.kinds) - set(KINDS):
        raise ConfigError(f"--kinds has {', '.join(sorted(unknown))}; there are {', '.join(KINDS)}")
    geometry = geometry_of(options.data)
    part = LoDoPaB(options.data, options.split, geometry, options.samples)
    runs = train_all(options.kinds, options.data, options.out / "runs", options.epochs)
    cutoffs = best_cutoffs(options.data, geometry)
    methods: list[Method] = [*classic(geometry, cutoffs, photons_of(options.data)), *learned(runs)]
    scored = {method.name: score(method, part) for method in methods}
    others = OtherPrograms()
    milliseconds = time_in_turns(methods, part, options.rounds)
    disturbed = others.cores()
    apart = {method.name: look_apart(method.reconstruct, geometry, photons_of(options.data)) for method in methods}

    text = table(methods, scored, milliseconds, apart)
    facts = ", ".join(f"{name} {value}" for name, value in (machine() | versions()).items())
    busy = "" if disturbed is None else f"; meanwhile other programs kept {disturbed:.1f} cores busy"
    about = (
        f"{options.data}, {options.split} part, {len(part)} images; "
        f"--epochs {options.epochs}; times over {options.rounds} rounds in turns{busy}\n{facts}"
    )
    print(f"{text}\n\n{about}")
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "quality.md").write_text(f"{text}\n\n{about}\n")
    result = {
        method.name: scored[method.name].mean._asdict()
        | {"interval": {name: scored[method.name].interval(name) for name in ("psnr", "ssim")}}
        | {"parameters": method.parameters, "milliseconds": milliseconds[method.name]}
        | apart[method.name].as_dict()
        for method in methods
    }
    (options.out / "quality.json").write_text(json.dumps(result, indent=1))
    plot(options.out / "quality.png", methods, scored, milliseconds, apart)
    front(options.out / "front.png", methods, scored, milliseconds)
    print(f"written to {options.out}: quality.md, quality.json, quality.png, front.png")


if __name__ == "__main__":
    run_program(main)
