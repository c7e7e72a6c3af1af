"""The Triton kernels in Triton's interpreter, compiled for several GPUs, and on a GPU where there is one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fbp_ray import projector
from fbp_ray.filters import WindowConfig, filter_projections, frequencies
from fbp_ray.graphs import Recorded
from fbp_ray.model import LearnableFBP, ModelConfig, fbp
from fbp_ray.projector import backproject, kernel_for, project, reference
from tests.support import gpu_cases
from tests.support.scans import COARSE

pytest.importorskip("triton", reason="Triton is for Linux")

ROOT = Path(__file__).parents[2]
LODOPAB = gpu_cases.ParallelBeam.lodopab()
BOUNDS = {
    "backproject": 1e-5,
    "project": 1e-5,
    "transpose": 1e-6,
    "stored in half precision": 4e-4,
    "half precision": 8e-4,
}


def run(*argv: str, **variables: str) -> Any:
    command = [sys.executable, "-W", "error", "-m", *argv]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRITON_INTERPRET")}
    done = subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.PIPE, env=environment | variables)
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def interpreted() -> dict[str, dict[str, float]]:
    return run("tests.support.gpu_cases", TRITON_INTERPRET="1")


@pytest.mark.parametrize("case", gpu_cases.CASES)
def test_interpreted_kernels_are_the_reference(interpreted: dict[str, dict[str, float]], case: str) -> None:
    assert {name: value for name, value in interpreted[case].items() if not value <= BOUNDS[name]} == {}


def test_two_projections_are_filtered_at_a_time(interpreted: dict[str, dict[str, float]]) -> None:
    assert interpreted["filter"]["pairs"] < 1e-6


def test_what_the_tensor_cores_add_up_in_parts_is_the_whole(interpreted: dict[str, dict[str, float]]) -> None:
    assert interpreted["parts"]["backproject"] < BOUNDS["backproject"]


def test_a_blank_sample_and_one_that_is_no_number_are_nobody_elses_business(
    interpreted: dict[str, dict[str, float]],
) -> None:
    assert interpreted["apart"] == {"whole": True, "half": True}


def test_the_kernels_compile_for_gpus_of_several_generations() -> None:
    for sizes in run("tests.support.gpu_cases", "75", "80", "90").values():
        assert min(sizes.values()) > 1000


def test_what_is_recorded_on_a_cpu_is_the_function() -> None:
    assert torch.equal(Recorded(torch.square)(torch.arange(3.0)), torch.tensor([0.0, 1.0, 4.0]))


def test_a_batch_of_none() -> None:
    from fbp_ray.projector import gpu

    assert gpu.backproject(torch.empty(0, *COARSE.sinogram_shape), COARSE).shape == (0, *COARSE.image_shape)
    assert gpu.project(torch.empty(0, *COARSE.image_shape), COARSE).shape == (0, *COARSE.sinogram_shape)


def test_triton_is_imported_only_when_it_is_needed() -> None:
    code = "import sys, fbp_ray.model; print('fbp_ray.projector.gpu' in sys.modules or 'triton' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert done.stdout.strip() == "False"


class TestDispatch:
    @pytest.fixture(autouse=True)
    def _as_if_just_imported(self) -> Iterator[None]:
        projector._warn_of_reference.cache_clear()
        yield
        projector._warn_of_reference.cache_clear()

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
    def test_cuda_has_kernels(self, dtype: torch.dtype) -> None:
        from fbp_ray.projector import gpu

        assert kernel_for(torch.device("cuda"), dtype).project is gpu.project

    def test_a_device_without_kernels_warns_once_and_says_why(self) -> None:
        with pytest.warns(UserWarning, match="none for mps"):
            assert kernel_for(torch.device("mps"), torch.float32) == projector.Kernel(
                reference.backproject, reference.project
            )
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            kernel_for(torch.device("mps"), torch.float32)
        with pytest.warns(UserWarning, match="none for xpu"):
            kernel_for(torch.device("xpu"), torch.float32)

    def test_cuda_without_triton_warns(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(projector, "has_triton", lambda: False)
        with pytest.warns(UserWarning, match="pip install triton"):
            assert kernel_for(torch.device("cuda"), torch.float32).project is reference.project

    def test_cuda_in_another_precision_warns(self) -> None:
        with pytest.warns(UserWarning, match="convert the array"):
            assert kernel_for(torch.device("cuda"), torch.bfloat16).project is reference.project

    @pytest.mark.parametrize("device", ["cpu", "cuda"])
    def test_double_precision_is_the_reference_without_a_word(self, device: str) -> None:
        assert kernel_for(torch.device(device), torch.float64).project is reference.project

    def test_the_storage_makes_no_difference_on_a_cpu(self) -> None:
        sinogram = torch.rand(2, *COARSE.sinogram_shape)
        model = LearnableFBP(ModelConfig(geometry=COARSE, window=WindowConfig(init="hann")))
        assert torch.equal(backproject(sinogram, COARSE, torch.float16), backproject(sinogram, COARSE))
        assert torch.equal(fbp(sinogram, COARSE, storage_dtype=torch.float16), fbp(sinogram, COARSE))
        assert torch.equal(model(sinogram, storage_dtype=torch.float16), model(sinogram))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the same on a GPU, where there is one")
class TestOnAGpu:
    @pytest.mark.parametrize("case", gpu_cases.CASES)
    def test_kernels_are_the_reference(self, case: str) -> None:
        figures = gpu_cases.differences(*gpu_cases.CASES[case], "cuda")
        assert {name: value for name, value in figures.items() if not value <= BOUNDS[name]} == {}

    def test_gradients_are_those_on_the_cpu(self) -> None:
        gradients = []
        for device in ("cpu", "cuda"):
            generator = torch.Generator().manual_seed(1)
            sinogram = torch.rand(3, *COARSE.sinogram_shape, generator=generator).to(device).requires_grad_()
            image = backproject(sinogram, COARSE)
            (project(image, COARSE) ** 2).sum().backward()
            assert sinogram.grad is not None
            gradients.append(sinogram.grad.cpu())
        torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-4 * gradients[0].abs().max().item())

    @pytest.mark.parametrize("batch", [1, 5, 32])
    @pytest.mark.parametrize("storage", [None, torch.float16])
    def test_fbp_of_lodopab_size_is_that_in_double_precision(self, storage: torch.dtype | None, batch: int) -> None:
        sinogram = torch.randn(batch, *LODOPAB.sinogram_shape, generator=torch.Generator().manual_seed(2)).cuda()
        ours = fbp(sinogram, LODOPAB, storage_dtype=storage)
        exact = fbp(sinogram[-2:].double(), LODOPAB)
        assert gpu_cases.relative(ours[-2:], exact) < (1e-3 if storage else 1e-4)
        assert torch.equal(fbp(sinogram, LODOPAB, storage_dtype=storage), ours)

    def test_samples_do_not_know_of_each_other(self) -> None:
        sinogram = torch.rand(33, *LODOPAB.sinogram_shape).cuda()
        sinogram[1], sinogram[2] = torch.nan, 0
        images = fbp(sinogram, LODOPAB)
        assert images[1].isnan().all()
        assert not images[2].any()
        torch.testing.assert_close(images[3], fbp(sinogram[3], LODOPAB), rtol=1e-4, atol=1e-4 * images[3].max().item())

    def test_sinograms_that_are_not_contiguous(self) -> None:
        sinogram = torch.rand(3, *COARSE.sinogram_shape[::-1]).cuda().mT
        assert torch.equal(fbp(sinogram, COARSE), fbp(sinogram.contiguous(), COARSE))

    @pytest.mark.parametrize("by_angle", [False, True])
    def test_filtering(self, by_angle: bool) -> None:
        sinogram, count = torch.randn(6, 7, 513).cuda(), len(frequencies(513))
        response = torch.rand((7, count) if by_angle else (count,)).cuda()
        exact = filter_projections(sinogram.double(), response.double())
        assert gpu_cases.relative(filter_projections(sinogram, response), exact) < 1e-6

    def test_more_values_than_32_bits_count(self) -> None:
        small = LODOPAB.model_copy(update={"image_shape": (64, 64), "pixel_size": LODOPAB.cell_size})
        count = 2**31 // (1000 * 513) + 2
        sinogram = torch.rand(count, *small.sinogram_shape, device="cuda")
        for storage in (None, torch.float16):
            last = fbp(sinogram, small, storage_dtype=storage)[-1]
            alone = fbp(sinogram[-1], small, storage_dtype=storage)
            torch.testing.assert_close(last, alone, rtol=1e-3, atol=1e-3 * alone.abs().max().item())

    @pytest.mark.parametrize("window", ["angle_frequency", "ray_noise", "adaptive"])
    def test_models_and_their_gradients_are_those_on_the_cpu(self, window: str) -> None:
        figures = gpu_cases.model_differences(LODOPAB, window, "cuda")
        assert figures["image"] < 1e-3
        assert figures["gradient"] < 1e-2

    def test_the_same_bits_every_time(self) -> None:
        model = LearnableFBP(ModelConfig(geometry=LODOPAB, window=WindowConfig(kind="angle_frequency"))).cuda()
        sinograms = torch.rand(9, *LODOPAB.sinogram_shape, device="cuda", requires_grad=True)
        found = []
        for _ in range(3):
            model.zero_grad(set_to_none=True)
            sinograms.grad = None
            image = model(sinograms)
            image.square().sum().backward()
            found.append((image, sinograms.grad, *(parameter.grad for parameter in model.parameters())))
        assert all(torch.equal(first, again) for more in found[1:] for first, again in zip(found[0], more, strict=True))

    def test_what_waits_for_the_gpu_is_not_recorded(self) -> None:
        def with_a_look(tensor: torch.Tensor) -> torch.Tensor:
            return tensor * float(tensor.sum())

        recorded, tensor = Recorded(with_a_look), torch.arange(4.0).cuda()
        with pytest.warns(UserWarning, match="kernel by kernel"):
            assert torch.equal(recorded(tensor), with_a_look(tensor))
        assert torch.equal(recorded(tensor + 1), with_a_look(tensor + 1))

    def test_recorded_is_the_function_with_the_weights_of_the_day(self) -> None:
        model = LearnableFBP(ModelConfig(geometry=COARSE, window=WindowConfig(kind="frequency"))).cuda().eval()
        recorded = Recorded(model)
        for scale in (1.0, 0.5):
            with torch.no_grad():
                model.filter.weight.mul_(scale)
                for batch in (1, 2):
                    sinogram = torch.rand(batch, *COARSE.sinogram_shape).cuda()
                    assert torch.equal(recorded(sinogram), model(sinogram))
