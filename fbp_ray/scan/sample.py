"""A measured scan as a sample: the tilt series of a needle, which lies in a package on the Python package index.

Dark-field electrons (HAADF) at 77 tilts from -76 to 76 degrees, 256 x 256 pixels of 3.36 nm, aligned by those who made
it. Good for trying things out: it is small, and seen from 154 of 180 degrees.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from zipfile import ZipFile

from fbp_ray.package_index import Package, fetched

PACKAGE = Package(
    "etspy",
    "etspy-1.3.0-py3-none-any.whl",
    "23b07379a1e973a4f69445b0a634687d4af4bb6a806d24bdce49be57afbd36f8",
)
INSIDE = "etspy/tests/test_data/HAADF_Aligned.hspy"
ORIGIN = {
    "patient": "tilt series of a needle-shaped specimen",
    "collection": "ETSpy 1.3.0, National Institute of Standards and Technology",
    "licence": "public domain in the United States (17 U.S.C. 105), elsewhere NIST Public License",
    "reference": "Herzing and Taillon, ETSpy, https://pages.nist.gov/etspy/",
}


def sample_file(stack: ExitStack) -> Path:
    """The tilt series alone, taken out of its package until `stack` is closed.

    Raises:
        FetchError: the package is not in the cache and could not be fetched.
        DataError: what was fetched is not the file that is known.
    """
    package = fetched(PACKAGE, "the tilt series", "a SCAN of your own")
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    with ZipFile(package) as archive:
        return Path(archive.extract(INSIDE, folder))
