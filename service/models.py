"""The models over HTTP: response schemas and routes."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from fbp_ray.geometry import FanBeam, Geometry
from service.access import Operate, Reconstruct
from service.batching import CLASSIC_FBP
from service.model_registry import ModelRegistry, ServedModel
from service.problems import documented
from service.turns import Turns

router = APIRouter(tags=["models"])
Name = Annotated[str, Path(description="the model's name", max_length=64, examples=["best"])]


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
    source_to_axis_m: float | None = Field(default=None, description="of a fan beam")
    source_to_detector_m: float | None = Field(default=None, description="of a fan beam")

    @classmethod
    def of(cls, geometry: Geometry) -> GeometryDocument:
        """The document of a geometry."""
        fan = geometry if isinstance(geometry, FanBeam) else None
        return cls(
            digest=geometry.digest,
            sinogram_shape=geometry.sinogram_shape,
            image_shape=geometry.image_shape,
            cell_size_m=geometry.cell_size,
            pixel_size_m=geometry.pixel_size,
            first_angle_rad=float(geometry.theta[0]),
            last_angle_rad=float(geometry.theta[-1]),
            axis_offset_m=geometry.axis_offset,
            source_to_axis_m=fan and fan.source_to_axis,
            source_to_detector_m=fan and fan.source_to_detector,
        )


class ModelDocument(BaseModel):
    """A model that serves."""

    name: str
    version: str = Field(description="the first twelve digits of the weights' checksum")
    source: str = Field(
        description="the run, checkpoint or sweep that it came from, or the name of a model that comes with fbp-ray"
    )
    automatic: bool = Field(description="the newest completed run's, or fbp-ray's own; not one that somebody activated")
    activated: datetime
    created: datetime
    epoch: int
    metrics: dict[str, float] = Field(description="on the validation part, when it was saved")
    phantom_error: float = Field(description="relative error on the built-in phantom, without noise")
    training_data: dict[str, Any]
    window: str
    sha256: str = Field(description="checksum of the weights file")
    geometry: GeometryDocument
    unit: str = Field(description="what the images' values are, in words")
    value_scale: float | None = Field(description="1/m that the value 1 stands for; null where that is not known")
    device: str

    @classmethod
    def of(cls, model: ServedModel) -> ModelDocument:
        """The document of a model."""
        manifest = model.checkpoint.manifest
        return cls(
            name=model.name,
            version=model.engine.version,
            source=model.source,
            automatic=model.automatic,
            activated=model.activated,
            created=manifest.created,
            epoch=manifest.epoch,
            metrics=manifest.metrics,
            phantom_error=model.phantom_error,
            training_data=manifest.data,
            window=manifest.model.window.kind,
            sha256=manifest.sha256["weights"],
            geometry=GeometryDocument.of(manifest.model.geometry),
            unit=model.engine.values,
            value_scale=model.engine.unit,
            device=str(model.engine.device),
        )


class ModelList(BaseModel):
    """The models that serve; without any, the classic FBP does."""

    models: list[ModelDocument]
    absent: dict[str, str] = Field(default={}, description="models that are to serve and do not yet, and why")
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
        description="a run, checkpoint or sweep folder of the service's machine, a URI, or a model of fbp-ray's own",
    )


def _registry(request: Request) -> ModelRegistry:
    registry: ModelRegistry = request.app.state.registry
    return registry


def _turns(request: Request) -> Turns:
    turns: Turns = request.app.state.turns
    return turns


@router.get("/models", dependencies=[Reconstruct], responses=documented(401, 403))
async def list_models(request: Request) -> ModelList:
    """The models that serve."""
    classic = request.app.state.settings.models
    models = await _turns(request).run(_registry(request).models)
    return ModelList(
        models=[ModelDocument.of(model) for model in models],
        absent=_registry(request).absent,
        without_model=f"{CLASSIC_FBP}: {classic.window}, cut-off {classic.cutoff:g}",
    )


@router.get("/models/{name}", dependencies=[Reconstruct], responses=documented(401, 403, 404, 422, 503))
async def get_model(request: Request, name: Name) -> ModelDocument:
    """One model: geometry, shapes, unit, training data, metrics, checksum."""
    return ModelDocument.of(await _turns(request).run(_registry(request).get, name))


@router.post(
    "/models/{name}/activate", dependencies=[Operate], responses=documented(400, 401, 403, 413, 415, 422, 503, 507)
)
async def activate_model(request: Request, name: Name, activation: Activation) -> ModelDocument:
    """Loads a model, verifies it on the built-in phantom, and then serves it; on any failure the old one serves on."""
    activating: Turns = request.app.state.activating
    return ModelDocument.of(await activating.run(_registry(request).activate, name, activation.source))


@router.delete(
    "/models/{name}", dependencies=[Operate], status_code=204, responses=documented(401, 403, 404, 422, 503, 507)
)
async def forget_model(request: Request, name: Name) -> Response:
    """Ends serving a model; `best` is then again the newest completed run's, or the one that comes with fbp-ray."""
    activating: Turns = request.app.state.activating
    await activating.run(_registry(request).forget, name)
    return Response(status_code=204)
