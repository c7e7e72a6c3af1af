"""python -m fbp_ray.simulate: write a data folder in the layout of LoDoPaB-CT.

python -m fbp_ray.simulate --sample --out data
python -m fbp_ray.simulate --images DIR --out data --photons 1024
python -m fbp_ray.simulate --phantoms 100 --out data --seed 1
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from pydantic import ValidationError
from pydantic_settings import BaseSettings, CliApp, PydanticBaseSettingsSource, SettingsConfigDict

from fbp_ray.errors import FbpRayError
from fbp_ray.simulate.config import SimulateConfig
from fbp_ray.simulate.run import simulate


class _Arguments(BaseSettings, SimulateConfig):
    """Simulate low-dose CT data in the files, geometry, units and noise of LoDoPaB-CT.

    Choose one of --sample, --images and --phantoms. The same request and seed write the same data.
    """

    model_config = SettingsConfigDict(
        cli_prog_name="python -m fbp_ray.simulate",
        cli_implicit_flags="toggle",
        cli_hide_none_type=True,
        cli_avoid_json=True,
        cli_enforce_required=True,
        cli_kebab_case=True,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The command line alone: an environment variable that is called SEED is not meant for this."""
        return (init_settings,)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    try:
        config = CliApp.run(_Arguments, None if arguments is None else list(arguments))
        simulate(config)
    except ValidationError as error:
        for problem in error.errors():
            option = "".join(f"--{step}: " for step in problem["loc"][:1])
            print(f"error: {option}{problem['msg'].removeprefix('Value error, ')}", file=sys.stderr)
        return 2
    except FbpRayError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; nothing was kept", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
