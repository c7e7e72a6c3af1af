"""How large the project is, and how much of it leans on private names of others: `python -m benchmarks.house`."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

from tests.support.private_names import OURS, ROOT, private_names

PACKAGES = ("fbp_ray", "service")
OTHERS = {
    "epochs under Ray beside torchrun": "python -m benchmarks.training",
    "reading beside h5py": "python -m benchmarks.loader",
    "the projector beside other projects": "python -m benchmarks.projector",
    "requests to the service": "python -m benchmarks.service",
    "what a fixed seed trains": "python -m benchmarks.golden",
    "hands an epoch passes, loop to screen": "docs/architecture.md",
}
"""The figures that take longer, and the commands that measure them."""


def house() -> dict[str, str]:
    """The figures that take no time, by what they are."""
    texts = [file.read_text(encoding="utf-8") for package in PACKAGES for file in (ROOT / package).rglob("*.py")]
    return {
        f"modules of {' and '.join(PACKAGES)}": f"{len(texts)}",
        f"lines of {' and '.join(PACKAGES)}": f"{sum(text.count(chr(10)) for text in texts)}",
        f"private names of other packages in {', '.join(OURS)}": f"{len(private_names())}",
        "words of README.md": f"{len((ROOT / 'README.md').read_text(encoding='utf-8').split())}",
    }


def main() -> None:
    """Prints the figures, and the commands for the others."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("figure")
    table.add_column("value, or the command that measures it")
    for name, value in (house() | OTHERS).items():
        table.add_row(name, value)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
