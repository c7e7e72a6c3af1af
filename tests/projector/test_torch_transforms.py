"""What torch users expect of an operator: torch.compile, torch.export, torch.func, opcheck and second derivatives."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from fbp_ray.errors import GeometryError
from fbp_ray.filters import WindowConfig, fft_length, filter_projections
from fbp_ray.filters.filtering import correlate_op, filter_op
from fbp_ray.geometry import ParallelBeam, RegularAngles
from fbp_ray.model import LearnableFBP, ModelConfig, fbp
from fbp_ray.projector import backproject, project
from fbp_ray.projector.compiled import backproject_op, project_op

SCAN = ParallelBeam(
    angles=RegularAngles(count=7, first=0.1, step=math.pi / 7),
    cells=13,
    cell_size=0.01,
    image_shape=(8, 9),
    pixel_size=0.009,
)
FREQUENCIES = fft_length(13) // 2 + 1


def sinogram(*lead: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(*lead, *SCAN.sinogram_shape, generator=torch.Generator().manual_seed(1), dtype=dtype)


def image(*lead: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(*lead, *SCAN.image_shape, generator=torch.Generator().manual_seed(2), dtype=dtype)


def response(*lead: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(*lead, FREQUENCIES, generator=torch.Generator().manual_seed(3), dtype=dtype)


SINOGRAMS = {dtype: sinogram(2, dtype=dtype) for dtype in (torch.float32, torch.float64)}
RESPONSES = {dtype: response(dtype=dtype) for dtype in (torch.float32, torch.float64)}
OPERATORS: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "project": (lambda x: project(x, SCAN), image),
    "backproject": (lambda y: backproject(y, SCAN), sinogram),
    "fbp": (lambda y: fbp(y, SCAN), sinogram),
    "filter": (lambda y: filter_projections(y, RESPONSES[y.dtype]), sinogram),
    "filter, response": (lambda r: filter_projections(SINOGRAMS[r.dtype], r), response),
    "filter, response by angle": (lambda r: filter_projections(SINOGRAMS[r.dtype], r.expand(7, -1)), response),
}


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    with warnings.catch_warnings():
        # of torch, about itself
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a leaf")
        yield


def model(kind: str) -> LearnableFBP:
    return LearnableFBP(ModelConfig(geometry=SCAN, window=WindowConfig(kind=kind, init="hann")))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["fixed", "frequency", "angle_frequency"])
def test_a_model_compiles_as_one_graph_and_trains_alike(kind: str) -> None:
    plain, y, x = model(kind), sinogram(2), image(2)
    compiled = torch.compile(plain, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(y), plain(y))
    if kind == "fixed":
        return
    gradients = []
    for run in (compiled, plain):
        plain.zero_grad()
        (run(y) - x).square().mean().backward()
        gradients.append(plain.filter.weight.grad.clone())
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("name", ["project", "backproject", "fbp", "filter"])
def test_an_operator_compiles_as_one_graph(name: str) -> None:
    operator, draw = OPERATORS[name]
    compiled = torch.compile(operator, fullgraph=True, backend="aot_eager")
    array = draw(2).requires_grad_()
    result, expected = compiled(array), operator(array)
    assert torch.equal(result, expected)
    (one,) = torch.autograd.grad(result.square().sum(), array)
    (other,) = torch.autograd.grad(expected.square().sum(), array)
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("lead", [(0,), (2, 0)])
def test_an_empty_batch_gives_an_empty_batch(lead: tuple[int, ...]) -> None:
    y, x = sinogram(*lead), image(*lead)
    assert project(x, SCAN).shape == y.shape
    assert backproject(y, SCAN).shape == fbp(y, SCAN).shape == model("frequency")(y).shape == x.shape
    weights = response().requires_grad_()
    filtered = filter_projections(sinogram(0), weights)
    assert filtered.shape == (0, *SCAN.sinogram_shape)
    (gradient,) = torch.autograd.grad(filtered.sum(), weights)
    assert torch.equal(gradient, torch.zeros_like(weights))


@pytest.mark.parametrize("operator", [OPERATORS[name] for name in ("project", "backproject", "fbp", "filter")])
def test_a_sparse_tensor_is_told_to_be_dense(operator: tuple[Callable[..., Tensor], Callable[..., Tensor]]) -> None:
    apply, draw = operator
    with pytest.raises(GeometryError, match=r"dense tensor, but this one is torch.sparse_coo; .*\.to_dense\(\)"):
        apply(draw(2).to_sparse())


@pytest.mark.parametrize("strict", [True, False])
def test_a_model_is_exported(strict: bool) -> None:
    plain = model("frequency")
    exported = torch.export.export(plain, (sinogram(2),), strict=strict)
    assert torch.equal(exported.module()(sinogram(2)), plain(sinogram(2)))


@pytest.mark.parametrize("name", OPERATORS)
def test_vmap_is_the_loop(name: str) -> None:
    operator, draw = OPERATORS[name]
    many = draw(3) if "response" in name else draw(3, 2)
    expected = torch.stack([operator(one) for one in many])
    torch.testing.assert_close(torch.func.vmap(operator)(many), expected)
    torch.testing.assert_close(torch.func.vmap(operator, in_dims=1)(many.movedim(0, 1)), expected)
    if "response" not in name:
        singly = torch.func.vmap(torch.func.vmap(operator))(many[:, :, None])
        torch.testing.assert_close(singly[:, :, 0], expected)


@pytest.mark.parametrize("name", OPERATORS)
def test_derivatives_of_torch_func_are_right(name: str) -> None:
    operator, draw = OPERATORS[name]
    array, along = (draw(dtype=torch.float64) for _ in range(2))
    if "response" not in name:
        array, along = array[None], along[None]
    along = along.flip(-1)
    result, tangent = torch.func.jvp(operator, (array,), (along,))
    torch.testing.assert_close(result, operator(array))
    torch.testing.assert_close(tangent, operator(along))  # all are linear
    _, pull = torch.func.vjp(operator, array)
    (pulled,) = pull(result)
    torch.testing.assert_close((pulled * along).sum(), (result * tangent).sum())
    gradient = torch.func.grad(lambda a: operator(a).square().sum())(array)
    torch.testing.assert_close(gradient, 2 * pulled)
    curvature = torch.func.jvp(torch.func.grad(lambda a: operator(a).square().sum()), (array,), (along,))[1]
    torch.testing.assert_close((curvature * along).sum(), 2 * tangent.square().sum())
    backwards = torch.func.vmap(pull)(torch.stack([result, tangent]))[0]
    torch.testing.assert_close(backwards[0], pulled)


@pytest.mark.parametrize("by_angle", [False, True])
def test_second_derivatives_with_respect_to_the_window_alone(by_angle: bool) -> None:
    y = sinogram(2, dtype=torch.float64)
    weights = response(*([7] if by_angle else []), dtype=torch.float64)

    def loss(r: Tensor) -> Tensor:
        return filter_projections(y, r).pow(4).sum()

    direction = torch.rand_like(weights)
    _, product = torch.autograd.functional.hvp(loss, weights, direction)
    step = 1e-5
    ends = [torch.autograd.functional.jacobian(loss, weights + sign * step * direction) for sign in (1, -1)]
    torch.testing.assert_close(product, (ends[0] - ends[1]) / (2 * step), rtol=1e-5, atol=1e-8)
    assert torch.autograd.gradgradcheck(lambda r: filter_projections(y, r), (weights.requires_grad_(),))
    assert torch.autograd.gradgradcheck(filter_projections, (y.requires_grad_(), weights))


@pytest.mark.parametrize("by_angle", [False, True])
def test_forward_mode_is_right_also_over_reverse_mode(by_angle: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = (2, 3, 4), ((3, 5) if by_angle else (5,))
    inputs = [torch.rand(shape, generator=generator, dtype=torch.float64, requires_grad=True) for shape in shapes]
    assert torch.autograd.gradcheck(filter_projections, inputs, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(filter_projections, inputs, check_fwd_over_rev=True)


@pytest.mark.parametrize("kind", ["fixed", "angle_frequency", "adaptive"])
def test_a_model_takes_dual_numbers(kind: str) -> None:
    y, along, learned = sinogram(2), sinogram(2).flip(-1), model(kind)
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(learned(forward_ad.make_dual(y, along))).tangent
    _, expected = torch.func.jvp(learned, (y,), (along,))
    torch.testing.assert_close(tangent, expected)


def test_a_penalty_on_the_gradient_trains_the_window() -> None:
    learned = model("frequency")
    (first,) = torch.autograd.grad(learned(sinogram(2)).pow(2).sum(), learned.filter.weight, create_graph=True)
    first.square().sum().backward()
    assert learned.filter.weight.grad.abs().max() > 0


def test_opcheck_passes() -> None:
    text = SCAN.model_dump_json()
    cases: list[tuple[Any, tuple[Any, ...]]] = [
        (project_op, (image(2), text, False)),
        (backproject_op, (sinogram(2), text, True)),
        (filter_op, (sinogram(2), response())),
        (filter_op, (sinogram(2), response(7))),
        (correlate_op, (sinogram(2), sinogram(2), False)),
        (correlate_op, (sinogram(2), sinogram(2), True)),
    ]
    for op, (first, *rest) in cases:
        wanted = [argument.requires_grad_() if isinstance(argument, Tensor) else argument for argument in rest]
        torch.library.opcheck(op, (first.requires_grad_(), *wanted))
