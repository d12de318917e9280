"""What takes a GPU: broken CUDA kernels are rejected there, and what is wrong there alone is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from targets.cuda.build import SOURCE
from tests.mutants import CUDA_MUTANTS, Mutant
from tests.mutants.mutant import right
from tests.targets.test_compiled import (
    CUDA_DEFECTS,
    check,
    compile_for_gpu,
    described,
    edited,
    needs_gxx,
    needs_nvcc,
    rejected,
    written,
)

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")

BUILT = """
import functools
from pathlib import Path
import torch
from targets import DROP_IN, Target, compiled
from targets.cuda.build import build, nvcc_command
from targets.cuda.kernels import Kernels
def loss(input, target, reduction="mean"):
    return compiled.loss("broken_cuda", input, target, reduction)
@functools.cache
def kernels():
    command = nvcc_command(torch.cuda.get_device_capability())
    return Kernels.load(build(Path({source!r}), command))
compiled.define("broken_cuda")
compiled.implement("broken_cuda", "cuda", kernels)
target = Target("broken", loss, DROP_IN, devices=("cuda",), prepare=kernels)
"""
LAUNCHES = ("THREADS, 0, stream>>>", "THREADS, 0, stream ? nullptr : stream>>>")
BARRIER = "        fold(shared, t, stride);\n        __syncthreads();\n"
WAITING = "if (t == 0) end(blockIdx.x, shared[0]);"
# a defect that takes a GPU, and a clause that tells it
GPU_DEFECTS = {
    "default stream": ([LAUNCHES], "cuda.stream"),
    "waits for the device": (
        [("return cudaGetLastError();", "return cudaDeviceSynchronize();")],
        "cuda.graph",
    ),
    "no barrier": ([(BARRIER, "        fold(shared, t, stride);\n")], "value."),
    "partial sum of the last block is never written": (
        [(WAITING, f"if (gridDim.x == 1 || blockIdx.x + 1 < gridDim.x) {WAITING}")],
        "value.",
    ),
}


@needs_gpu
@pytest.mark.parametrize("defect", [*CUDA_DEFECTS, *GPU_DEFECTS])
def test_a_broken_kernel_is_rejected_on_the_gpu(defect: str, tmp_path: Path) -> None:
    edits, clause = GPU_DEFECTS.get(defect) or (CUDA_DEFECTS[defect], "")
    source = edited(SOURCE, edits, tmp_path)
    result = check(written(tmp_path, BUILT.format(source=str(source))), "--device", "cuda")
    assert rejected(result), described(result)
    assert clause in result.stdout.strip().splitlines()[-1], described(result)


@needs_nvcc
@needs_gxx
@pytest.mark.full
@pytest.mark.parametrize("defect", GPU_DEFECTS)
def test_a_broken_kernel_compiles(defect: str, tmp_path: Path) -> None:
    compile_for_gpu(edited(SOURCE, GPU_DEFECTS[defect][0], tmp_path))


@needs_gpu
@pytest.mark.parametrize("mutant", CUDA_MUTANTS, ids=lambda m: m.target.name)
def test_what_is_wrong_on_a_gpu_alone_is_wrong_there(mutant: Mutant) -> None:
    assert mutant.witness is not None
    assert mutant.witness(mutant.target)


@needs_gpu
@pytest.mark.parametrize("mutant", CUDA_MUTANTS, ids=lambda m: m.target.name)
def test_its_witness_has_nothing_against_a_right_loss(mutant: Mutant) -> None:
    assert mutant.witness is not None
    assert not mutant.witness(type(mutant.target)("right", right))
