"""The settings of the service: one frozen tree, filled from YAML, `.env`, the environment and the command line."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import Field, SecretStr

from fbp_ray.cli import parse_with_environment
from fbp_ray.errors import ConfigError
from fbp_ray.settings import Frozen, LocalPath, PlaceName, as_text
from fbp_ray.stage_settings import WindowName

PREFIX = "FBPRAY"
Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Megabytes = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Token = Annotated[SecretStr, Field(min_length=16)]


class AccessConfig(Frozen):
    """Who may do what, by bearer tokens of at least 16 characters. Without any, this machine alone may do all."""

    reconstruct: tuple[Token, ...] = Field(
        default=(), description="tokens that may reconstruct; better in the environment or a file than here"
    )
    operate: tuple[Token, ...] = Field(default=(), description="tokens that may do everything")
    reconstruct_file: LocalPath | None = Field(default=None, description="file with such tokens, one a line")
    operate_file: LocalPath | None = Field(default=None, description="file with such tokens, one a line")
    cors_origins: tuple[str, ...] = Field(
        default=(), description="origins whose pages may call the service from a browser, such as https://ct.example"
    )


class LimitsConfig(Frozen):
    """What is refused for its size, and for how long anything may take."""

    body_mb: Megabytes = Field(default=512, description="megabytes of a body, unpacked too")
    stack: Count = Field(default=256, description="sinograms of a request")
    waiting_mb: Megabytes | None = Field(
        default=None,
        description="megabytes for all requests together: bodies, what they unpack to, images, answers; then 503. "
        "Without it 60 % of the memory that is free",
    )
    json_kb: Count = Field(default=256, description="kilobytes of a JSON body")
    json_depth: Count = Field(default=16, description="nesting of a JSON body")
    angles: Count = Field(default=16384, description="angles of a geometry that comes with a stack")
    cells: Count = Field(default=16384, description="detector cells of such a geometry")
    pixels: Count = Field(default=4096 * 4096, description="pixels of its image")
    updates_g: Megabytes = Field(
        default=5, description="pixels of its image times angles, in 10^9: so long may an image keep others waiting"
    )
    head_kb: Count = Field(default=64, description="kilobytes of a request's URL and headers")
    connections: Count = Field(default=512, description="connections at a time; a few more for /health")
    request_seconds: Seconds = Field(default=120, description="from the first byte of a request to its images")
    idle_seconds: Seconds = Field(default=10, description="for the headers of a request, and without news of a client")
    slowest_kb: Megabytes = Field(
        default=10, description="kilobytes a second that a client sends or takes, over idle_seconds, or is let go"
    )
    file_seconds: Count = Field(default=20, description="processor seconds for the reading of an HDF5 or TIFF file")
    end_seconds: Seconds = Field(
        default=10, description="from the signal to end until the process is gone, whatever is unfinished"
    )


class BatchingConfig(Frozen):
    """How sinograms that arrive together share a batch."""

    images: Count = Field(default=32, description="the most images of a batch; fewer where the memory has no room")
    wait_ms: Annotated[float, Field(ge=0, le=1000)] = Field(
        default=2, description="milliseconds that a batch waits for requests that are on their way"
    )
    queue: Count = Field(default=256, description="images that may wait; then the service answers 503 at once")


class ModelsConfig(Frozen):
    """Where the models come from."""

    storage: PlaceName = Field(
        default="runs", description="run folders: `best` is the newest completed one's, unless set"
    )
    look_seconds: Seconds = Field(default=10, description="from one look for a newer run to the next")
    shipped: bool = Field(
        default=True,
        description="until there is a completed run, and unless set, `best` is the model that comes with fbp-ray",
    )
    own: tuple[str, ...] = Field(
        default=(),
        description="windows, networks, loss terms and metrics of your own, PACKAGE.MODULE:NAME, that may run here "
        "and in jobs",
    )
    window: WindowName = Field(default="hann", description="window of the classic FBP that serves without a model")
    cutoff: Annotated[float, Field(gt=0, le=1)] = Field(default=1.0, description="its cut-off")


class JobsConfig(Frozen):
    """Training, sweep and evaluation jobs, through Ray."""

    storage: PlaceName = Field(
        default="runs", description="where runs and sweeps go whose configuration names no storage"
    )
    at_once: Count = Field(default=1, description="jobs at a time; the others wait for their turn")
    queue: Count = Field(default=500, description="jobs that may wait; then the service answers 503 at once")
    dashboard: str | None = Field(
        default=None,
        description="http://HOST:8265 of the cluster to use; without it that of RAY_ADDRESS, else a head "
        "on this machine that the service starts when the first job comes",
    )
    python: PlaceName | None = Field(
        default=None, description="the Python that runs jobs; without it this one, or `python` on a cluster"
    )
    lost_seconds: Seconds = Field(default=30, description="a cluster that is silent for so long has lost its jobs")


class Settings(Frozen):
    """Reconstructs sinograms over HTTP, and runs training, sweep and evaluation jobs. Each setting is also an
    environment variable: --port is FBPRAY_PORT, --limits.stack is FBPRAY_LIMITS__STACK; a file .env is read too."""

    host: str = Field(default="127.0.0.1", description="address to listen on; beyond loopback only with tokens")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(default=8000, description="port; 0 takes a free one")
    root_path: Annotated[str, Field(pattern=r"^((/[\w.~-]+)+)?$")] = Field(
        default="", description="path below which a proxy offers the service, such as /fbp, whether it strips it or not"
    )
    state: LocalPath = Field(default=Path("service-state"), description="folder for the record of jobs and models")
    places: tuple[PlaceName, ...] = Field(
        default=(),
        description="folders and URIs (s3://BUCKET/FOLDER) that models, jobs and their data may be in, besides the two "
        "storages, and runs and data where the service is started",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="where models run")
    log: Literal["json", "text"] = Field(default="json", description="form of the log on standard error")
    access: AccessConfig = AccessConfig()
    limits: LimitsConfig = LimitsConfig()
    batching: BatchingConfig = BatchingConfig()
    models: ModelsConfig = ModelsConfig()
    jobs: JobsConfig = JobsConfig()


def refuse_own(named: Iterable[str], allowed: Collection[str]) -> None:
    """Raises ConfigError for code of somebody's own that is not among what may run here."""
    for name in named:
        if name not in allowed:
            raise ConfigError(
                f"{name} is code of somebody's own, which the service does not run unless told to: name it in its "
                f"setting models.own, which has {', '.join(allowed) or 'none'}"
            )


Tree = TypeVar("Tree", bound=Settings)


def read_settings(argv: Sequence[str]) -> Settings:
    """The settings from the command line, the environment, `.env` and `--config FILE`; the earlier of these wins.

    Raises:
        ConfigError: a setting that does not hold, or an address beyond loopback without a token.
    """
    return read_tree(Settings, argv, "python -m service")


def read_tree(tree: type[Tree], argv: Sequence[str], program: str) -> Tree:
    """The same for a tree with further settings, and for another program."""
    settings = parse_with_environment(tree, argv, program, PREFIX)
    access = settings.access
    read = {
        role: (*getattr(access, role), *_tokens(file))
        for role, file in (("reconstruct", access.reconstruct_file), ("operate", access.operate_file))
    }
    settings = settings.model_copy(update={"access": access.model_copy(update=read)})
    if not (read["reconstruct"] or read["operate"]) and not is_loopback(settings.host):
        raise ConfigError(
            f"--host {settings.host} lets other machines in, and without a token anybody there could run jobs; set "
            f"{PREFIX}_ACCESS__OPERATE_FILE to a file with a token (python -c 'import secrets; "
            "print(secrets.token_urlsafe(32))' makes one), or listen on 127.0.0.1"
        )
    return settings


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _tokens(file: Path | None) -> tuple[SecretStr, ...]:
    if file is None:
        return ()
    try:
        lines = [line.strip() for line in as_text(file.read_bytes()).splitlines()]
    except (OSError, ValueError) as error:
        raise ConfigError(f"the token file {file} cannot be read: {error}") from None
    tokens = [line for line in lines if line and not line.startswith("#")]
    short = [number for number, token in enumerate(tokens, start=1) if len(token) < 16]
    if not tokens or short:
        why = f"its token {short[0]} has fewer than 16 characters" if short else "it holds no token"
        raise ConfigError(f"the token file {file} is of no use: {why}; put one token a line there")
    return tuple(SecretStr(token) for token in tokens)
