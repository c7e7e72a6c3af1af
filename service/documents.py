"""What the service says of models, as JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from fbp_ray.geometry import ParallelBeam


class GeometryDocument(BaseModel):
    """A scan and its image grid."""

    digest: str = Field(description="names the geometry; every reconstruction's X-Geometry has it")
    sinogram_shape: tuple[int, int] = Field(description="(angles, detector cells)")
    image_shape: tuple[int, int] = Field(description="(x, y)")
    cell_size_m: float
    pixel_size_m: float
    first_angle_rad: float
    last_angle_rad: float
    axis_offset_m: float

    @classmethod
    def of(cls, geometry: ParallelBeam) -> GeometryDocument:
        """The document of a geometry."""
        theta = geometry.theta
        return cls(
            digest=geometry.digest,
            sinogram_shape=geometry.sinogram_shape,
            image_shape=geometry.image_shape,
            cell_size_m=geometry.cell_size,
            pixel_size_m=geometry.pixel_size,
            first_angle_rad=float(theta[0]),
            last_angle_rad=float(theta[-1]),
            axis_offset_m=geometry.axis_offset,
        )


class ModelDocument(BaseModel):
    """A model that serves."""

    name: str
    version: str = Field(description="the first twelve digits of the weights' checksum")
    source: str = Field(description="the run, checkpoint or sweep that it came from")
    automatic: bool = Field(description="the newest completed run's, rather than one that somebody activated")
    activated: datetime
    created: datetime
    epoch: int
    metrics: dict[str, float] = Field(description="on the validation part, when it was saved")
    phantom_error: float = Field(description="relative error on the built-in phantom, without noise")
    training_data: dict[str, Any]
    window: str
    sha256: str = Field(description="checksum of the weights file")
    geometry: GeometryDocument
    unit: str = Field(description="of the images' values")
    device: str


class ModelList(BaseModel):
    """The models that serve; without any, the classic FBP does."""

    models: list[ModelDocument]
    without_model: str = Field(description="what serves where no model is called `best`")


class Activation(BaseModel):
    """Where a model is to come from."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"source": "runs/quickstart"}, {"source": "s3://ct/runs/sweep/best"}]},
    )

    source: str = Field(
        min_length=1,
        max_length=1000,
        description="a run, checkpoint or sweep folder of the service's machine, or a URI",
    )
