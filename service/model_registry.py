"""The models that serve: found, verified, kept, switched in one step.

A model that was activated is copied into the service's state folder, so that a restart serves the same weights
whatever has become of its run. As long as nobody has activated a model under the name `best`, `best` is that of the
newest completed run; a run stays `best` while it is extended. Before the first one is completed, the model that comes
with the package is `best`.
"""

from __future__ import annotations

import logging
import math
import re
import threading
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import torch

from fbp_ray.checkpoint import Checkpoint, Manifest, read_model, write_checkpoint
from fbp_ray.data.layout import MU_MAX
from fbp_ray.data.values import BRIGHTEST
from fbp_ray.errors import CheckpointError, FbpRayError
from fbp_ray.geometry import Geometry, ParallelBeam
from fbp_ray.run import RunFolder
from fbp_ray.shipped import CHEST_LOW_DOSE, open_place
from fbp_ray.stage_settings import WindowName
from fbp_ray.storage import Folder, LocalFolder
from service.batching import CLASSIC_FBP, Engine, classic, learned
from service.database import Database
from service.given_geometry import given
from service.memory import Bill
from service.observability import Metrics
from service.places import Places, without_secrets
from service.problems import Problem, cannot_remember
from service.settings import Settings, refuse_own
from service.verify import batch_sizes, verify

BEST = "best"
_LOADING = "the models are being loaded"
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")

_log = logging.getLogger("service")


@dataclass(frozen=True)
class ServedModel:
    """A model that serves."""

    name: str
    source: str
    checkpoint: Checkpoint
    engine: Engine
    phantom_error: float
    automatic: bool
    activated: datetime


class ModelRegistry:
    """The models by name. Any thread may ask and activate.

    Args:
        settings: where runs are, and which classic FBP serves without them.
        database: keeps what was activated.
        metrics: told which versions serve.
    """

    def __init__(self, settings: Settings, database: Database, metrics: Metrics) -> None:
        self.settings = settings
        self._database = database
        self._metrics = metrics
        self._places = Places.of(settings)
        self._models: dict[str, ServedModel] = {}
        self._absent = {BEST: _LOADING}  # what should serve and does not, and why
        self._changing = threading.Lock()
        self._looking = threading.Lock()
        self._seen: int | None = None  # version of the database
        self._recorded: dict[str, dict[str, Any]] = {}  # what was activated, in that version
        self._closed = threading.Event()
        self._wake = threading.Event()
        self._refused: set[tuple[str, float]] = set()  # what cannot serve, and when it was completed or activated
        self._statuses: dict[str, tuple[float, float | None]] = {}  # of runs: when written, when completed
        self.device = torch.device(
            ("cuda" if torch.cuda.is_available() else "cpu") if settings.device == "auto" else settings.device
        )
        self.waiting_for: str | None = _LOADING
        """Why the service is not ready; None once it is."""

    def load(self) -> None:
        """Loads what was activated before and the best run, and warms up."""
        try:
            self._look()
            if BEST not in self._models and BEST not in self._absent:
                sizes = batch_sizes(self.device, self.settings.batching.images)
                verify(self.engine(None, "fbp", None, None), CLASSIC_FBP, batches=sizes)
        except Exception:
            self.waiting_for = "the models cannot be loaded yet; the log says why"
            raise
        self.waiting_for = None
        _log.info("ready: %s", ", ".join(f"{m.name} {m.engine.version}" for m in self._models.values()) or CLASSIC_FBP)

    def run(self) -> None:
        """Loads, if that is still to be done, and then looks for newer runs until it is closed."""
        while not self._closed.is_set():
            self._wake.clear()
            try:
                if self.waiting_for is not None:
                    self.load()
                else:
                    self._look()
            except Exception:  # its storage may be away for a while; what serves goes on serving
                _log.exception("looking for models failed")
            self._wake.wait(self.settings.models.look_seconds)

    def close(self) -> None:
        """Stops looking for newer runs."""
        self._closed.set()
        self._wake.set()

    def models(self) -> list[ServedModel]:
        """All models that serve, by name."""
        self._take_in()
        return [model for _, model in sorted(self._models.items())]

    @property
    def absent(self) -> dict[str, str]:
        """The models that are to serve and do not, and why."""
        return dict(self._absent)

    def get(self, name: str) -> ServedModel:
        """The model of that name; raises Problem: 404 where there is none, 503 where it is not loaded yet."""
        model = self._find(name)
        if model is None:
            raise self._unknown(name)
        return model

    def _unknown(self, name: str) -> Problem:
        known = ", ".join([*sorted(self._models), CLASSIC_FBP])
        return Problem(404, f"there is no model {name[:80]!r}; there are {known}. POST /models/NAME/activate adds one")

    def engine(self, name: str | None, method: str | None, window: WindowName | None, cutoff: float | None) -> Engine:
        """What a request asks for: a model, or the classic FBP in a model's geometry.

        Raises:
            Problem: 404 for a model that there is not, 422 for a window without the classic FBP, 503 where what should
                serve is not loaded: no other answers in its place.
        """
        model = self._find(BEST) if name is None or name == CLASSIC_FBP else self.get(name)
        if method == "fbp" or name == CLASSIC_FBP or (model is None and method is None):
            if method == "learned":
                raise Problem(422, f"{CLASSIC_FBP} is not learned; leave out method, or name another model")
            default = self.settings.models
            geometry = model.engine.geometry if model else ParallelBeam.lodopab()
            unit = model.engine.unit if model else MU_MAX
            return classic(geometry, window or default.window, cutoff or default.cutoff, self.device, unit)
        if model is None:
            raise Problem(
                404,
                "there is no learned model yet; train one (POST /jobs), activate one (POST /models/best/activate), or "
                "use method=fbp",
            )
        if window is not None or cutoff is not None:
            raise Problem(422, "a learned model has its own window; window and cutoff need method=fbp")
        return model.engine

    def given(self, geometry: Geometry, window: WindowName | None, cutoff: float | None, bill: Bill) -> Engine:
        """The classic FBP in a geometry that came with the request, whose `bill` it is."""
        default = self.settings.models
        return given(geometry, window or default.window, cutoff or default.cutoff, self.device, bill)

    def activate(self, name: str, source: str) -> ServedModel:
        """Loads, verifies and warms up a model; only then it serves under `name`, from the next request on.

        Args:
            name: that callers use.
            source: a run, checkpoint or sweep folder, the URI of one, or a model that comes with the package.

        Raises:
            CheckpointError: no checkpoint there, or one that does not reconstruct; what served goes on serving.
            ConfigError: the service may not use that place.
            Problem: 422 for a name that cannot be, 503 or 507 when the state folder cannot be written.
        """
        if not NAME.fullmatch(name) or name == CLASSIC_FBP:
            raise Problem(
                422, f"a model's name is of a-z, 0-9, '.', '_' and '-', up to 64, and not {CLASSIC_FBP}; got {name!r}"
            )
        place = self._places.resolve_model(source)
        model = self._load(name, self._places.open_model(place), automatic=False, source=without_secrets(place))
        try:
            write_checkpoint(self._copy(name, model.engine.version), model.checkpoint)
        except OSError as error:
            raise cannot_remember(self.settings.state, error) from None
        row = {
            "name": name,
            "source": model.source,
            "version": model.engine.version,
            "activated": model.activated.timestamp(),
        }
        self._database.write("INSERT OR REPLACE INTO models VALUES (?, ?, ?, ?)", list(row.values()))
        self._switch_unless_changed(row, model)
        return model

    def forget(self, name: str) -> None:
        """Ends serving a model; `best` is then again the newest completed run's. Raises Problem (404)."""
        known = self._models.get(name)
        if not self._database.write("DELETE FROM models WHERE name = ?", (name,)) and not (known and known.automatic):
            raise self._unknown(name)
        self._take_in()
        if name == BEST:
            self._look()

    def _find(self, name: str) -> ServedModel | None:
        """The model of that name; None where there is none. Raises Problem (503) where there should be one."""
        self._take_in()
        model = self._models.get(name)
        if model is None and (why := self._absent.get(name)) is not None:
            raise Problem(503, f"the model {name} does not serve: {why}", {"Retry-After": "2"})
        return model

    def _take_in(self) -> None:
        """Takes in what this or another process has deleted, at once; what was activated is loaded by the next look."""
        try:
            version = self._database.version()
            if version == self._seen:
                return
            with self._changing:
                activated = self._activated()
                for name, model in list(self._models.items()):
                    if not model.automatic and name not in activated:
                        self._metrics.model.remove(name, self._models.pop(name).engine.version)
                        if name == BEST:
                            self._absent[BEST] = _LOADING
                self._absent = {
                    name: self._absent.get(name, _LOADING)
                    for name in {*activated, *({BEST} & self._absent.keys())} - self._models.keys()
                }
                if activated != self._recorded:
                    self._wake.set()
                self._seen, self._recorded = version, activated
        except Problem:  # the folder is away; what serves goes on serving
            _log.warning("the record of models cannot be read")

    def _activated(self) -> dict[str, dict[str, Any]]:
        """The record of what was activated, by name."""
        return {row["name"]: row for row in self._database.read("SELECT * FROM models")}

    def _look(self) -> None:
        """Serves what was activated earlier or by other processes, and the newest completed run as `best`."""
        with self._looking:
            self._take_in()
            activated = self._activated()
            for name, row in activated.items():
                known = self._models.get(name)
                if known is None or known.automatic or known.engine.version != row["version"]:
                    self._restore(row)
            if BEST not in activated:
                self._serve_newest_run()

    def _restore(self, row: dict[str, Any]) -> None:
        """Serves the copy of a model that was activated before the service ended, or by another process of it."""
        name, activated = row["name"], row["activated"]
        copy = self._copy(name, row["version"])
        try:
            model = self._load(name, copy, automatic=False, source=without_secrets(row["source"]))
        except FbpRayError as error:
            if (str(copy), activated) not in self._refused:  # said once; its storage may come back
                _log.error("the model %s cannot be taken up again: %s", name, error)
            self._refused.add((str(copy), activated))
            with self._changing:
                if name not in self._models:
                    self._absent[name] = "its copy cannot be used; activate it again, or delete it"
            return
        when = datetime.fromtimestamp(activated, UTC)
        self._switch_unless_changed(row, replace(model, activated=when))

    def _switch_unless_changed(self, row: dict[str, Any], model: ServedModel) -> None:
        """Serves a model, unless somebody has deleted it or activated another one since it was recorded."""
        with self._changing:
            if self._activated().get(model.name) == row:
                self._switch(model)

    def _serve_newest_run(self) -> None:
        known, model = self._models.get(BEST), None
        for completed, run in self._completed_runs():
            folder = without_secrets(str(run))
            if known is not None and known.source == folder and known.activated.timestamp() >= completed:
                return
            if (folder, completed) in self._refused:
                continue
            try:
                model = self._load(BEST, run, automatic=True)
                break
            except FbpRayError as error:
                self._refused.add((folder, completed))
                _log.warning("the run %s is newer but cannot serve: %s", folder, error)
        if model is None and known is None and self.settings.models.shipped:
            model = self._load(BEST, open_place(CHEST_LOW_DOSE), automatic=True, source=CHEST_LOW_DOSE)
        with self._changing:
            if BEST not in self._activated():
                if model is not None:
                    self._switch(model)
                self._absent.pop(BEST, None)  # where there is no run, the classic FBP serves

    def _completed_runs(self) -> list[tuple[float, Folder]]:
        """When runs were last complete, and their folders, the newest first. Only what has changed is read."""
        storage = self._places.open(without_secrets(self.settings.models.storage))
        statuses = {}
        for name in storage.folders():
            changed = (storage / name).changed("status.json")
            if changed is not None:
                before, written = self._statuses.get(name), changed.timestamp()
                statuses[name] = (
                    before if before and before[0] == written else (written, _completed(storage / name, written))
                )
        self._statuses = statuses
        found = [(when, name) for name, (_, when) in statuses.items() if when is not None]
        return [(when, storage / name) for when, name in sorted(found, reverse=True)]

    def _load(self, name: str, folder: Folder, automatic: bool, source: str = "") -> ServedModel:
        began, source = time.perf_counter(), source or without_secrets(str(folder))
        try:
            model, checkpoint = read_model(
                folder, lambda found: refuse_own(found.model.own_code, self.settings.models.own)
            )
            version = checkpoint.manifest.sha256["weights"][:12]
            unit = unit_of_model(checkpoint.manifest)
            engine = learned(name, version, model.eval().to(self.device), self.device, source, unit)
            high = checkpoint.manifest.data.get("brightest", BRIGHTEST)
            phantom_error = verify(engine, source, high, batch_sizes(self.device, self.settings.batching.images))
        except FbpRayError:
            raise
        except Exception as error:  # whatever some store's library makes of a name, or torch of weights from elsewhere
            _log.warning("the model of %s cannot be loaded", source, exc_info=error)
            why = error if isinstance(error, OSError) else type(error).__name__
            raise CheckpointError(
                f"the model of {source} cannot be loaded: {why}; give a run or checkpoint folder, or copy it again"
            ) from None
        _log.info("model %s of %s loaded in %.1f s", name, source, time.perf_counter() - began)
        return ServedModel(name, source, checkpoint, engine, phantom_error, automatic, datetime.now(UTC))

    def _switch(self, model: ServedModel) -> None:
        before = self._models.get(model.name)
        self._models[model.name] = model  # one step: a request has the old one or the new one
        self._absent.pop(model.name, None)
        if before is not None:
            self._metrics.model.remove(before.name, before.engine.version)
        self._metrics.model.labels(model.name, model.engine.version).set(1)
        _log.info("model %s is now %s of %s", model.name, model.engine.version, model.source)

    def _copy(self, name: str, version: str) -> LocalFolder:
        return LocalFolder(self.settings.state / "models" / name / version)


def unit_of_model(manifest: Manifest) -> float:
    """1/m that the value 1 of a model's images stands for: as its data said, else as its window was told."""
    described = manifest.data.get("description")
    unit = described.get("unit") if isinstance(described, dict) else None
    known = isinstance(unit, int | float) and 0 < unit < math.inf
    return float(unit) if known and unit is not None else manifest.model.window.unit


def _completed(run: Folder, written: float) -> float | None:
    """When a run was last complete, None where it never was.

    A status of an older version does not say when; then it is `written`, the time at which the status was written.
    """
    try:
        status = RunFolder(run).status()
        if status.get("completed") is not None:
            return float(status["completed"])
    except (OSError, ValueError, TypeError, FbpRayError):  # damaged, or not of a run
        return None
    return written if status.get("state") == "completed" else None
