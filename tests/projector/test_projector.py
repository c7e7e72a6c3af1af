"""The two operators: equal to their definition, each other's transpose, and the same from every thread."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import llvmlite.binding
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fbp_ray import threads
from fbp_ray.errors import GeometryError
from fbp_ray.geometry import ParallelBeam, RegularAngles
from fbp_ray.projector import backproject, cpu, project, reference
from fbp_ray.projector.layout import mirror_views, plain_views

ROOT = Path(__file__).parents[2]
BATCHES = st.sampled_from([1, 2, 3, 5, 7, 8, 12, 33])
ROUNDING = 3e-6  # of the sum of the absolute terms, in float32


def symmetric(count: int = 40, side: int = 33, half_turns: int = 1) -> ParallelBeam:
    """Angles between which 0 and pi lie in the middle, as in LoDoPaB-CT; the detector just misses the corners."""
    step = half_turns * math.pi / count
    angles = RegularAngles(count=count, first=step / 2, step=step)
    return ParallelBeam(angles=angles, cells=41, cell_size=0.01, image_shape=(side, side), pixel_size=0.0113)


@st.composite
def geometries(draw: st.DrawFn) -> ParallelBeam:
    """Any scan: angles in any order, some the same, from 20 pixels a cell to 20 cells a pixel, parts out of sight."""
    cells = draw(st.integers(1, 40))
    height = draw(st.integers(1, 40))
    return ParallelBeam(
        angles=tuple(draw(st.lists(st.floats(-7, 7), min_size=1, max_size=9))),
        cells=cells,
        cell_size=0.01,
        image_shape=(height, draw(st.integers(1, 40) | st.just(height))),
        pixel_size=0.01 * 10 ** draw(st.floats(-1.3, 1.3)),
        axis_offset=draw(st.just(0.0) | st.floats(-0.9, 0.9)) * cells * 0.005,
    )


@st.composite
def symmetric_geometries(draw: st.DrawFn) -> ParallelBeam:
    """Square images, angles over the half or the full circle that begin at 0 or half a step from it."""
    count = 4 * draw(st.integers(1, 5))
    step = draw(st.sampled_from([1, 2])) * math.pi / count
    side = draw(st.integers(1, 40))
    return ParallelBeam(
        angles=RegularAngles(count=count, first=draw(st.sampled_from([0.0, step / 2, -math.pi / 2])), step=step),
        cells=draw(st.integers(1, 60)),
        cell_size=0.01,
        image_shape=(side, side),
        pixel_size=0.01 * 10 ** draw(st.floats(-0.5, 0.5)),
    )


def random_sinogram(batch: int, geometry: ParallelBeam, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(batch)
    return torch.randn(batch, *geometry.sinogram_shape, generator=generator, dtype=dtype)


def random_image(batch: int, geometry: ParallelBeam, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(batch + 1)
    return torch.randn(batch, *geometry.image_shape, generator=generator, dtype=dtype)


def assert_close(result: Tensor, expected: Tensor, terms: Tensor) -> None:
    """`terms` is what the operator makes of absolute values: the scale of what rounding does."""
    assert result.dtype == torch.float32
    assert result.shape == expected.shape
    assert (result.double() - expected).abs().max() <= ROUNDING * terms.max()


def assert_is_the_reference(geometry: ParallelBeam, batch: int, interpolate: bool = False) -> None:
    sinogram, image = random_sinogram(batch, geometry), random_image(batch, geometry)
    for operator, definition, array in (
        (cpu.backproject, reference.backproject, sinogram),
        (cpu.project, reference.project, image),
    ):
        expected, terms = (definition(a, geometry, interpolate) for a in (array.double(), array.double().abs()))
        assert_close(operator(array, geometry, interpolate), expected, terms)


@settings(deadline=None, max_examples=60)
@given(geometries(), BATCHES, st.booleans())
def test_any_scan_gives_what_the_reference_gives(geometry: ParallelBeam, batch: int, interpolate: bool) -> None:
    assert_is_the_reference(geometry, batch, interpolate)


@settings(deadline=None, max_examples=40)
@given(symmetric_geometries(), BATCHES, st.booleans())
def test_a_symmetric_scan_gives_what_the_reference_gives(geometry: ParallelBeam, batch: int, interpolate: bool) -> None:
    assert_is_the_reference(geometry, batch, interpolate)


@pytest.mark.parametrize("geometry", [ParallelBeam.lodopab().every(100), ParallelBeam.lodopab().every(25, 12)])
def test_a_full_size_scan_gives_what_the_reference_gives(geometry: ParallelBeam) -> None:
    assert_is_the_reference(geometry, 2)


@pytest.mark.parametrize("ratio", [1e-4, 1e4, 1e12, 1e-12])
def test_pixels_and_cells_of_very_different_size_are_no_exception(ratio: float) -> None:
    geometry = ParallelBeam(angles=(0.3, 2.0), cells=5, cell_size=1.0, image_shape=(9, 8), pixel_size=ratio)
    sinogram, image = random_sinogram(3, geometry), random_image(3, geometry)
    exact = reference.backproject(sinogram.double(), geometry)
    torch.testing.assert_close(backproject(sinogram, geometry).double(), exact, rtol=1e-3, atol=1e-4 * ratio**2)
    exact = reference.project(image.double(), geometry)
    torch.testing.assert_close(project(image, geometry).double(), exact, rtol=1e-3, atol=1e-4 * ratio**2)


def test_the_scan_of_lodopab_is_seen_as_symmetric() -> None:
    views = mirror_views(ParallelBeam.lodopab())
    assert views is not None
    assert views.angle_of.shape == (250, 8)
    assert sorted(views.angle_of[:, :4].ravel().tolist()) == list(range(1000))


@pytest.mark.parametrize("geometry", [symmetric(), symmetric(side=34), symmetric(half_turns=2)])
@pytest.mark.parametrize("batch", [1, 3, 4])
def test_mirror_images_in_the_lanes_change_no_result(
    geometry: ParallelBeam, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sinogram, image = random_sinogram(batch, geometry), random_image(batch, geometry)
    mirrored = backproject(sinogram, geometry), project(image, geometry)
    monkeypatch.setattr(cpu, "_views", lambda geometry: (plain_views(geometry),))
    plain = backproject(sinogram, geometry), project(image, geometry)
    for one, other in zip(mirrored, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6 * float(other.abs().max()))


@settings(deadline=None, max_examples=40)
@given(geometries() | symmetric_geometries(), BATCHES)
def test_projection_is_the_transpose_of_backprojection(geometry: ParallelBeam, batch: int) -> None:
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        sinogram, image = random_sinogram(batch, geometry, dtype), random_image(batch, geometry, dtype)
        back, forward = backproject(sinogram, geometry).double(), project(image, geometry).double()
        in_image, in_sinogram = (back * image).sum(), (forward * sinogram).sum()
        scale = back.norm() * image.norm() + forward.norm() * sinogram.norm()
        assert abs(in_image - in_sinogram) <= tolerance * scale


@pytest.mark.parametrize("operator", [backproject, project])
def test_the_gradient_is_right(operator: object) -> None:
    geometry = ParallelBeam(angles=(0.1, 1.2, 2.9), cells=5, cell_size=1.0, image_shape=(4, 3), pixel_size=1.1)
    array = (random_sinogram if operator is backproject else random_image)(2, geometry, torch.float64)
    assert torch.autograd.gradcheck(lambda x: operator(x, geometry), array.requires_grad_())  # type: ignore[operator]


def test_the_gradient_of_one_operator_is_the_other_and_saves_no_tensor() -> None:
    geometry = symmetric()
    sinogram, image = random_sinogram(2, geometry).requires_grad_(), random_image(2, geometry).requires_grad_()
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor), lambda nothing: nothing):
        back, forward = backproject(sinogram, geometry), project(image, geometry)
    assert not saved
    back.backward(image.detach())
    forward.backward(sinogram.detach())
    assert sinogram.grad is not None
    assert image.grad is not None
    assert torch.equal(sinogram.grad, project(image.detach(), geometry))
    assert torch.equal(image.grad, backproject(sinogram.detach(), geometry))


@settings(deadline=None, max_examples=20)
@given(geometries() | symmetric_geometries(), st.floats(-3, 3))
def test_both_operators_are_linear(geometry: ParallelBeam, factor: float) -> None:
    for operator, draw in ((backproject, random_sinogram), (project, random_image)):
        one, other = draw(2, geometry), draw(3, geometry)[:2]
        together = operator(one + factor * other, geometry)
        apart = operator(one, geometry) + factor * operator(other, geometry)
        scale = float(operator(one.abs() + abs(factor) * other.abs(), geometry).max())
        torch.testing.assert_close(together, apart, rtol=0, atol=ROUNDING * scale)


@pytest.mark.parametrize("side", [33, 34])
def test_an_image_turned_by_a_right_angle_has_its_projections_turned(side: int) -> None:
    geometry = symmetric(side=side)
    image = random_image(1, geometry)
    straight, turned = project(image, geometry), project(torch.rot90(image, 1, (-2, -1)), geometry)
    half = geometry.num_angles // 2
    expected = torch.cat([straight[:, half:].flip(-1), straight[:, :half]], dim=1)
    torch.testing.assert_close(turned, expected, rtol=0, atol=1e-6 * float(expected.abs().max()))


def test_a_constant_disc_projects_to_its_chords() -> None:
    geometry = ParallelBeam.lodopab().every(125, 62)
    x, y = torch.from_numpy(geometry.x)[:, None], torch.from_numpy(geometry.y)[None, :]
    radius = 0.1
    disc = (x**2 + y**2 <= radius**2).float()
    chords = 2 * torch.from_numpy(geometry.detector).square().neg().add(radius**2).clamp(min=0).sqrt()
    difference = (project(disc, geometry) - chords).abs()
    assert difference.mean() < 5e-4  # metres: under a pixel
    assert difference.max() < 0.01  # at the rim, where the chord's length changes fastest


@pytest.mark.parametrize("geometry", [symmetric(), symmetric(3), ParallelBeam.lodopab().every(250)])
def test_an_empty_batch_gives_an_empty_result(geometry: ParallelBeam) -> None:
    assert backproject(random_sinogram(0, geometry), geometry).shape == (0, *geometry.image_shape)
    assert project(random_image(0, geometry), geometry).shape == (0, *geometry.sinogram_shape)


def test_any_leading_dimensions_are_kept() -> None:
    geometry = symmetric(12)
    sinogram, image = random_sinogram(6, geometry), random_image(6, geometry)
    shaped = backproject(sinogram.reshape(2, 3, 1, *geometry.sinogram_shape), geometry)
    assert torch.equal(shaped, backproject(sinogram, geometry).reshape(2, 3, 1, *geometry.image_shape))
    assert project(image[0], geometry).shape == geometry.sinogram_shape


@pytest.mark.parametrize("batch", [1, 4, 20])
def test_the_layout_in_memory_does_not_matter(batch: int) -> None:
    geometry = symmetric()
    for operator, dense in ((backproject, random_sinogram(batch, geometry)), (project, random_image(batch, geometry))):
        turned = dense.transpose(-1, -2).contiguous().transpose(-1, -2)
        apart = torch.stack([dense, dense], dim=-1)[..., 0]
        assert not turned.is_contiguous()
        assert not apart.is_contiguous()
        for layout in (turned, apart):
            assert torch.equal(operator(layout, geometry), operator(dense, geometry))
        expanded = dense[:1].expand(batch, -1, -1)
        assert torch.equal(operator(expanded, geometry), operator(expanded.clone(), geometry))
        constant = torch.ones(1, 1, 1).expand(dense.shape)
        assert torch.equal(operator(constant, geometry), operator(torch.ones_like(dense), geometry))


def test_what_is_given_is_not_written_to() -> None:
    geometry = symmetric()
    sinogram, image = random_sinogram(4, geometry), random_image(4, geometry)
    kept = sinogram.clone(), image.clone()
    backproject(sinogram, geometry)
    project(image, geometry)
    assert torch.equal(sinogram, kept[0])
    assert torch.equal(image, kept[1])


def test_a_wrong_shape_or_dtype_is_refused_in_words() -> None:
    geometry = symmetric()
    with pytest.raises(GeometryError, match=r"\(\.\.\., 40, 41\).*\(1, 41, 40\); swap its last two axes"):
        backproject(torch.zeros(1, 41, 40), geometry)
    with pytest.raises(GeometryError, match=r"an? image .*\(\.\.\., 33, 33\)"):
        project(torch.zeros(1, 32, 33), geometry)
    with pytest.raises(GeometryError, match=r"torch\.int64; convert it: \.float\(\)"):
        backproject(torch.zeros(1, 40, 41, dtype=torch.int64), geometry)
    with pytest.raises(GeometryError, match=r"torch\.uint8; convert it: \.float\(\)"):
        project(torch.zeros(33, 33, dtype=torch.uint8), geometry)


@pytest.fixture
def _threads_restored() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def both(geometry: ParallelBeam, batch: int) -> tuple[Tensor, Tensor]:
    return backproject(random_sinogram(batch, geometry), geometry), project(random_image(batch, geometry), geometry)


@pytest.mark.usefixtures("_threads_restored")
@pytest.mark.parametrize("batch", [1, 5, 20])
@pytest.mark.parametrize("count", [40, 100])
def test_the_number_of_threads_changes_no_bit(count: int, batch: int) -> None:
    geometry = symmetric(count, side=150)
    results = []
    for number in (1, 2, 5):
        torch.set_num_threads(number)
        results.append(both(geometry, batch))
    for result in results[1:]:
        assert torch.equal(result[0], results[0][0])
        assert torch.equal(result[1], results[0][1])


@pytest.mark.usefixtures("_threads_restored")
def test_one_thread_needs_no_helper(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(threads, "_pool", None)
    both(symmetric(100), 2)


@pytest.mark.usefixtures("_threads_restored")
def test_calls_from_eight_threads_at_once_give_the_same_bits() -> None:
    geometry = symmetric(100, side=150)
    batches = [1, 2, 4, 9] * 6
    torch.set_num_threads(2)
    alone = {batch: both(geometry, batch) for batch in set(batches)}
    with ThreadPoolExecutor(8) as pool:
        for batch, result in zip(batches, pool.map(lambda batch: both(geometry, batch), batches), strict=True):
            assert torch.equal(result[0], alone[batch][0])
            assert torch.equal(result[1], alone[batch][1])


def has_avx2() -> bool:
    return bool(llvmlite.binding.get_host_cpu_features().get("avx2"))


def run_python(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(
    not has_avx2(), reason="Numba compiles for x86 processors with less than this one has, not for others"
)
@pytest.mark.parametrize(
    ("floats", "environment"),
    [
        (4, {"NUMBA_ENABLE_AVX": "0"}),
        (8, {"NUMBA_CPU_NAME": "x86-64-v3", "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma,-avx512f"}),
    ],
)
def test_a_processor_with_narrower_vectors_gives_what_the_reference_gives(
    floats: int, environment: dict[str, str], tmp_path: Path
) -> None:
    """A later process, which compiles nothing, gives it too."""
    code = (
        "from fbp_ray.projector import kernels, layout\n"
        "from fbp_ray.projector.compiler import processor\n"
        "from tests.projector.test_projector import assert_is_the_reference, symmetric\n"
        f"assert processor().floats == {floats}, processor()\n"
        "for batch in (1, 4):\n"  # 8 and 32 lanes: 4 outputs and 1 in registers at once, of wider vectors 8 and 2
        f"    assert_is_the_reference(symmetric(), batch, interpolate=(batch == 1) == ({floats} == 4))\n"
        f"used = [kernels.backprojector(8, {2 if floats == 4 else 3}), kernels.projector(8), *layout.layout()]\n"
        "print(sum(kernel.cache_hits or 0 for kernel in used), sum(kernel.cache_path is not None for kernel in used))\n"
    )
    kept = {**environment, "NUMBA_CACHE_DIR": str(tmp_path)}
    assert run_python(code, **kept).split() == ["0", "6"]
    if floats == 4:
        assert run_python(code, **kept).split() == ["6", "6"]


@pytest.mark.parametrize(
    "broken",
    [
        "import llvmlite.binding\n"
        "def fail(*_, **__): raise RuntimeError('no such processor')\n"
        "llvmlite.binding.parse_assembly = fail\n",
        "import llvmlite.ir\ndel llvmlite.ir.Undefined\n",
        "import sys\nsys.modules['numba'] = None\n",
    ],
    ids=["a processor that LLVM does not know", "an llvmlite without a name", "no numba"],
)
def test_where_nothing_can_be_compiled_the_reference_answers_with_one_warning(broken: str, tmp_path: Path) -> None:
    code = (
        f"{broken}"
        "import torch, warnings\n"
        "from fbp_ray.geometry import ParallelBeam\n"
        "from fbp_ray.projector import backproject, project, reference\n"
        "scan = ParallelBeam.lodopab().every(250)\n"
        "y, x = torch.rand(1, *scan.sinogram_shape), torch.rand(1, *scan.image_shape)\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    for _ in range(2):\n"
        "        assert torch.equal(backproject(y, scan), reference.backproject(y, scan))\n"
        "        assert torch.equal(project(x, scan), reference.project(x, scan))\n"
        "(warning,) = [str(one.message) for one in caught]\n"
        "assert 'cannot be compiled' in warning, warning\n"
    )
    run_python(code, NUMBA_CACHE_DIR=str(tmp_path))


def test_importing_the_projector_imports_no_compiler() -> None:
    run_python("import sys, fbp_ray.projector; assert 'numba' not in sys.modules")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system starts processes another way")
def test_a_forked_process_has_helpers_of_its_own() -> None:
    code = (
        "import os, torch\n"
        "from fbp_ray.geometry import ParallelBeam\n"
        "from fbp_ray.projector import backproject\n"
        "torch.set_num_threads(2)\n"
        "scan = ParallelBeam.lodopab().every(25, 12)\n"
        "sinogram = torch.ones(1, *scan.sinogram_shape)\n"
        "before = backproject(sinogram, scan)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os._exit(0 if bool((backproject(sinogram, scan).numpy() == before.numpy()).all()) else 1)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    environment = {} if sys.version_info < (3, 12) else {"PYTHONWARNINGS": "ignore::DeprecationWarning"}
    assert run_python(code, **environment).strip() == "0"
