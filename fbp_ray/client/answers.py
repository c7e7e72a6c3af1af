"""What callers get, and how it is read from the service's answers."""

from __future__ import annotations

import io
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

import httpx
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from fbp_ray.client.connection import Call, request_id
from fbp_ray.errors import DataError, GeometryError, ServiceError
from fbp_ray.geometry import FanBeam, Geometry, ParallelBeam


class Reconstruction(NamedTuple):
    """Images, and what made them."""

    image: NDArray[np.float32]
    """(H, W) of one sinogram, (n, H, W) of a stack; axis 0 = x."""

    model: str
    version: str
    """Of the model; of the classic FBP its window and cut-off."""

    method: str
    """learned or fbp."""

    geometry: str
    """The digest of the geometry."""

    unit: str
    """What the values are, in words."""

    seconds: float
    """The time that the service took, from the whole request to the first image."""

    request_id: str
    """The id of the request in the service's log."""

    scale: float | None
    """1/m that the value 1 stands for; None where the service does not know."""


class Document(BaseModel):
    """A part of a JSON answer. A newer service may say more: what is not declared here is kept, too."""

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())


class Model(Document):
    """A model that serves."""

    name: str
    version: str
    source: str
    automatic: bool
    activated: datetime
    created: datetime
    epoch: int
    metrics: dict[str, float]
    geometry: dict[str, Any]
    unit: str
    value_scale: float | None = None
    """1/m that the value 1 of its images stands for."""


class Progress(Document):
    """How far a job is."""

    unit: str = "epoch"
    done: int = 0
    total: int | None = None
    rows: list[dict[str, Any]] = []
    """One an epoch: losses, PSNR and SSIM; of a sweep one a trial."""

    best: dict[str, Any] = {}


class Job(Document):
    """A job."""

    id: str
    kind: str
    status: str
    """pending, running, succeeded, failed, stopped (on request) or lost (its cluster is gone)."""

    reason: str = ""
    """Why it is pending, failed, stopped or lost."""

    created: datetime
    started: datetime | None = None
    ended: datetime | None = None
    place: str = ""
    """The folder of its results, as the service's machine names it."""

    request: dict[str, Any] = {}
    progress: Progress = Progress()

    @property
    def has_ended(self) -> bool:
        """Nothing more comes of it."""
        return self.status in ("succeeded", "failed", "stopped", "lost")


class Models(Document):
    """The models that serve."""

    models: list[Model]


class Jobs(Document):
    """Some of the jobs."""

    jobs: list[Job]


AnyDocument = TypeVar("AnyDocument", bound=Document)


def as_sinograms(array: Any) -> NDArray[np.float32]:
    """A sinogram (A, D) or a stack (n, A, D) as little-endian float32: a numpy array, or a torch tensor anywhere.

    Raises:
        GeometryError: other axes.
        DataError: values that are not floating point.
    """
    if hasattr(array, "detach"):
        array = array.detach().cpu()
        array = (array.float() if array.is_floating_point() else array).numpy()
    values = np.asarray(array)
    if values.dtype.kind != "f":
        counts = "; photon counts become line integrals by -log(counts / unattenuated)" * (values.dtype.kind in "iu")
        raise DataError(f"line integrals are floating point, but this array holds {values.dtype}{counts}")
    if values.ndim not in (2, 3):
        raise GeometryError(
            f"a sinogram has the axes (angles, cells), a stack (n, angles, cells), but this array has the shape "
            f"{values.shape}; reshape it"
        )
    with np.errstate(over="ignore"):  # the service refuses what is not finite, and says where it is
        return np.ascontiguousarray(values, dtype="<f4")


def check_geometry(geometry: Geometry, sinograms: NDArray[np.float32]) -> None:
    """Raises GeometryError where sinograms are not of a scan, or that is no `ParallelBeam` or `FanBeam`."""
    if type(geometry) not in (ParallelBeam, FanBeam):
        raise GeometryError(
            f"geometry is a ParallelBeam or FanBeam of fbp_ray, but this is a {type(geometry).__name__}; of JSON, make "
            "one with fbp_ray.geometry.geometry_from(fields)"
        )
    geometry.check(sinograms, "sinogram")


def reconstruction(call: Call, answer: httpx.Response, axes: int) -> Reconstruction:
    """The images of an answer; raises ServiceError where it holds none."""
    head = answer.headers
    try:
        image = np.load(io.BytesIO(answer.content), allow_pickle=False)
        if image.dtype != np.float32 or image.ndim != axes:
            raise ValueError(f"{image.dtype} of shape {image.shape}")
        return Reconstruction(
            image=image,
            model=head["x-model"],
            version=head["x-model-version"],
            method=head["x-method"],
            geometry=head["x-geometry"],
            unit=head["x-value-unit"],
            seconds=float(head["x-seconds"]),
            request_id=request_id(answer),
            scale=float(head["x-value-scale"]) if "x-value-scale" in head else None,
        )
    except (ValueError, EOFError, KeyError) as error:
        raise unexpected(call, answer, f"a float32 array with {axes} axes and X- headers", error) from None


def document(kind: type[AnyDocument], call: Call, answer: httpx.Response) -> AnyDocument:
    """A JSON answer as what it should be; raises ServiceError."""
    try:
        return kind.model_validate_json(answer.content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "all of it"
        raise unexpected(call, answer, f"JSON for {kind.__name__}", f"{where}: {first['msg']}") from None


def unexpected(call: Call, answer: httpx.Response, expected: str, why: object) -> ServiceError:
    """The error of an answer that the service does not give."""
    kind = answer.headers.get("content-type", "no type")
    return ServiceError(
        f"the answer to {call} should be {expected}, but it has {len(answer.content)} bytes of {kind} "
        f"({str(why)[:200]}); is it the fbp-ray service, and of this version, that answers at {answer.url.host}?",
        status=answer.status_code,
        request_id=request_id(answer),
    )
