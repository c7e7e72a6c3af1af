"""The models that serve: found, verified, kept, switched in one step.

A model that was activated is copied into the service's state, so that a restart serves the same weights whatever has
become of the run. `best` is the newest completed run's, which it stays while it is extended, as long as nobody
activates another under that name.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime

import torch

from fbp_ray.checkpoint import Checkpoint, put_weights, read_checkpoint, write_checkpoint
from fbp_ray.errors import CheckpointError, FbpRayError
from fbp_ray.filters import WindowName
from fbp_ray.geometry import ParallelBeam
from fbp_ray.model import LearnableFBP
from fbp_ray.run import RunFolder
from fbp_ray.storage import Folder, LocalFolder, absolute, open_folder
from service.database import Database
from service.documents import GeometryDocument, ModelDocument
from service.engine import CLASSIC, UNIT, Engine, classic, learned
from service.observe import Metrics
from service.phantom import verify
from service.problems import Problem
from service.settings import Settings

BEST = "best"
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_log = logging.getLogger("service")


@dataclass(frozen=True)
class Serving:
    """A model that serves."""

    name: str
    source: str
    checkpoint: Checkpoint
    engine: Engine
    error: float
    automatic: bool
    activated: datetime

    def document(self) -> ModelDocument:
        """What callers are told of it."""
        manifest = self.checkpoint.manifest
        return ModelDocument(
            name=self.name,
            version=self.engine.version,
            source=self.source,
            automatic=self.automatic,
            activated=self.activated,
            created=manifest.created,
            epoch=manifest.epoch,
            metrics=manifest.metrics,
            phantom_error=self.error,
            training_data=manifest.data,
            window=manifest.model.window.kind,
            sha256=manifest.sha256["weights"],
            geometry=GeometryDocument.of(manifest.model.geometry),
            unit=UNIT,
            device=str(self.engine.device),
        )


class ModelRegistry:
    """The models by name. Any thread may ask and activate.

    Args:
        settings: where runs are, and which classic FBP serves without them.
        record: remembers what was activated.
        metrics: name the versions.
    """

    def __init__(self, settings: Settings, record: Database, metrics: Metrics) -> None:
        self.settings = settings
        self._record = record
        self._metrics = metrics
        self._serving: dict[str, Serving] = {}
        self._changing = threading.Lock()
        self._closed = threading.Event()
        self._refused: set[tuple[str, float]] = set()  # what cannot serve, and when it was completed or activated
        self._statuses: dict[str, tuple[float, float | None]] = {}  # of runs: when it was written, when it was complete
        self.device = torch.device(
            ("cuda" if torch.cuda.is_available() else "cpu") if settings.device == "auto" else settings.device
        )
        self.waiting_for: str | None = "the models are being loaded"
        self.failed = False

    def start(self) -> None:
        """Loads what was activated before and the best run, warms up, and then looks for newer runs until closed."""
        try:
            for row in self._record.read("SELECT * FROM models"):
                self._take_up(row["name"], row["source"], row["version"], row["activated"])
            self._look()
            if BEST not in self._serving:
                verify(self.engine(None, "fbp", None, None), CLASSIC)
            self.waiting_for = None
        except Exception as error:
            self.waiting_for, self.failed = f"warming up failed: {error}", True
            _log.exception("warming up failed")
            return
        _log.info("ready: %s", ", ".join(f"{s.name} {s.engine.version}" for s in self._serving.values()) or CLASSIC)
        while not self._closed.wait(self.settings.models.look_seconds):
            try:
                self._look()
            except Exception:  # of a storage that is gone for a while; what serves goes on serving
                _log.exception("looking for newer runs failed")

    def close(self) -> None:
        """Looks for no more runs."""
        self._closed.set()

    def documents(self) -> list[ModelDocument]:
        """All models that serve."""
        return [serving.document() for _, serving in sorted(self._serving.items())]

    def document(self, name: str) -> ModelDocument:
        """One of them; raises Problem (404) for a name that there is not."""
        return self._get(name).document()

    def engine(self, name: str | None, method: str | None, window: WindowName | None, cutoff: float | None) -> Engine:
        """What a request asks for: a model, or the classic FBP in a model's geometry.

        Raises:
            Problem: 404 for a model that there is not, 422 for a window without the classic FBP.
        """
        serving = self._get(name) if name not in (None, CLASSIC) else self._serving.get(BEST)
        choice = self.settings.models
        if method == "fbp" or name == CLASSIC or (serving is None and method is None):
            if method == "learned":
                raise Problem(422, f"{CLASSIC} is not learned; leave out method, or name another model")
            geometry = serving.engine.geometry if serving else ParallelBeam.lodopab()
            return classic(geometry, window or choice.window, cutoff or choice.cutoff, self.device)
        if serving is None:
            raise Problem(
                404,
                "there is no learned model yet; train one (POST /jobs), activate one (POST /models/best/activate), or "
                "use method=fbp",
            )
        if window is not None or cutoff is not None:
            raise Problem(422, "a learned model has its own window; window and cutoff need method=fbp")
        return serving.engine

    def activate(self, name: str, source: str) -> ModelDocument:
        """Loads, verifies and warms up a model; only then it serves under `name`, from the next request on.

        Args:
            name: that callers use.
            source: a run, checkpoint or sweep folder, or the URI of one.

        Raises:
            CheckpointError: no checkpoint there, or one that does not reconstruct; what served goes on serving.
            Problem: 422 for a name that cannot be, 503 when the state folder cannot be written.
        """
        if not NAME.fullmatch(name) or name == CLASSIC:
            raise Problem(
                422, f"a model's name is of a-z, 0-9, '.', '_' and '-', up to 64, and not {CLASSIC}; got {name!r}"
            )
        place = absolute(source)
        serving = self._load(name, place, automatic=False)
        with self._changing:
            try:
                write_checkpoint(self._kept(name, serving.engine.version), serving.checkpoint)
            except OSError as error:
                raise Problem(
                    503, f"the service's state folder cannot be written: {error}; make room in {self.settings.state}"
                ) from None
            self._record.write(
                "INSERT OR REPLACE INTO models VALUES (?, ?, ?, ?)",
                (name, place, serving.engine.version, serving.activated.timestamp()),
            )
            self._switch(serving)
        return serving.document()

    def forget(self, name: str) -> None:
        """Ends serving a model; `best` is then again the newest completed run's. Raises Problem (404)."""
        self._get(name)
        with self._changing:
            self._record.write("DELETE FROM models WHERE name = ?", (name,))
            self._metrics.model.remove(name, self._serving.pop(name).engine.version)
        if name == BEST:
            self._look()

    def _get(self, name: str | None) -> Serving:
        found = self._serving.get(str(name))
        if found is None:
            known = ", ".join([*sorted(self._serving), CLASSIC])
            raise Problem(
                404, f"there is no model {str(name)[:80]!r}; there are {known}. POST /models/NAME/activate adds one"
            )
        return found

    def _take_up(self, name: str, source: str, version: str, activated: float) -> None:
        """A model that was activated before the service ended, or by another process of it."""
        kept = str(self._kept(name, version))
        try:
            serving = self._load(name, kept, automatic=False)
        except FbpRayError as error:
            if (kept, activated) not in self._refused:  # said once; its storage may come back
                _log.error("the model %s cannot be taken up again: %s", name, error)
            self._refused.add((kept, activated))
            return
        when = datetime.fromtimestamp(activated, UTC)
        self._switch(Serving(name, source, serving.checkpoint, serving.engine, serving.error, False, when))

    def _look(self) -> None:
        """Takes the newest completed run that can serve for `best`, and what other processes have activated."""
        recorded = {row["name"]: row for row in self._record.read("SELECT * FROM models")}
        for name, row in recorded.items():
            known = self._serving.get(name)
            if known is None or known.engine.version != row["version"]:
                self._take_up(name, row["source"], row["version"], row["activated"])
        if BEST in recorded:
            return
        known = self._serving.get(BEST)
        for changed, place in self._completed():
            if known is not None and known.source == place and known.activated.timestamp() >= changed:
                return
            if (place, changed) in self._refused:
                continue
            try:
                serving = self._load(BEST, place, automatic=True)
            except FbpRayError as error:
                self._refused.add((place, changed))
                _log.warning("the run %s is newer but cannot serve: %s", place, error)
                continue
            with self._changing:
                if not self._record.read("SELECT 1 FROM models WHERE name = ?", (BEST,)):
                    self._switch(serving)
            return

    def _completed(self) -> list[tuple[float, str]]:
        """When runs were last complete, and their folders, the newest in front. Only what is new is read."""
        storage = open_folder(self.settings.models.storage).absolute()
        statuses = {}
        for name in storage.folders():
            changed = (storage / name).changed("status.json")
            if changed is not None:
                before = self._statuses.get(name)
                when = changed.timestamp()
                statuses[name] = before if before and before[0] == when else (when, _complete(storage / name, when))
        self._statuses = statuses
        found = [(when, str(storage / name)) for name, (_, when) in statuses.items() if when is not None]
        return sorted(found, reverse=True)

    def _load(self, name: str, source: str, automatic: bool) -> Serving:
        began = time.perf_counter()
        try:
            checkpoint = read_checkpoint(source)
        except FbpRayError:
            raise
        except Exception as problem:  # whatever the library of some store makes of a name
            raise CheckpointError(f"{source} cannot be read: {problem}; give a run or checkpoint folder") from None
        manifest = checkpoint.manifest
        try:
            model = LearnableFBP(manifest.model)
            put_weights(model, checkpoint.contents["weights"], source)
            engine = learned(name, manifest.sha256["weights"][:12], model.eval().to(self.device), self.device)
            error = verify(engine, source)
        except FbpRayError:
            raise
        except Exception as problem:  # whatever torch makes of weights from elsewhere
            raise CheckpointError(
                f"the model of {source} cannot be built: {problem}; copy the checkpoint again"
            ) from None
        _log.info("model %s of %s loaded in %.1f s", name, source, time.perf_counter() - began)
        return Serving(name, source, checkpoint, engine, error, automatic, datetime.now(UTC))

    def _switch(self, serving: Serving) -> None:
        before = self._serving.get(serving.name)
        self._serving[serving.name] = serving  # one step: a request has the old one or the new one
        if before is not None:
            self._metrics.model.remove(before.name, before.engine.version)
        self._metrics.model.labels(serving.name, serving.engine.version).set(1)
        _log.info("model %s is now %s of %s", serving.name, serving.engine.version, serving.source)

    def _kept(self, name: str, version: str) -> LocalFolder:
        return LocalFolder(self.settings.state / "models" / name / version)


def _complete(run: Folder, written: float) -> float | None:
    """When a run was last complete, None where it never was; `written` where its status, written then, does not say."""
    try:
        status = RunFolder(run).status()
        if status.get("completed") is not None:
            return float(status["completed"])
    except (OSError, ValueError, TypeError, FbpRayError):  # damaged, or no run's
        return None
    return written if status.get("state") == "completed" else None
