"""Compiled targets: broken variants of each kind are rejected; builds are safe and explained."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from torch.utils.cpp_extension import is_ninja_available

from targets.cpp import HUBER_SOURCE as HUBER
from targets.cpp import SOURCE as CPP
from targets.cuda.build import NVCC_FLAGS
from targets.cuda.build import SOURCE as CUDA
from tests.sampling import only

ROOT = Path(__file__).parents[2]
TRITON = ROOT / "targets" / "triton.py"
NVCC = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")

EMULATED = """
from pathlib import Path
from tests.emulation import emulated
target = emulated(Path({source!r}))
"""
OPERATOR = """
from pathlib import Path
from targets import DROP_IN, Target, compiled
from targets.cpp import load
def loss(input, target, reduction="mean"):
    return compiled.loss("broken", input, target, reduction)
compiled.define("broken")
target = Target("broken", loss, DROP_IN, prepare=lambda: load(Path({source!r}), "broken"))
"""

HUBER_OPERATOR = """
from pathlib import Path
from targets import DROP_IN, Target, compiled
from targets.cpp import load
def loss(input, target, reduction="mean", *, delta=1.0):
    if not delta > 0:
        raise ValueError("delta must be above 0")
    return compiled.loss("broken", input, target, reduction, delta, of=compiled.HUBER)
compiled.define("broken", compiled.HUBER)
target = Target(
    "broken", loss, DROP_IN, prepare=lambda: load(Path({source!r}), "broken"), loss_of="huber"
)
"""
COMPILED_TRITON = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from targets import huber_triton as huber
from targets import triton as kernels
of, to, wide = "*{dtype}", "*{dtype}", "*{wide}"
constants = {{"wide": getattr(kernels.tl, {wide!r}.replace("fp", "float")), "block": 1024}}
lanes = {{"wide": constants["wide"], "lanes": 1024}}
for kernel, arguments, given in (
    (kernels.square, (of, of, to, "i32"), constants),
    (kernels.sum_squares, (of, of, wide, "i64"), constants),
    (kernels.finish, (wide, to, "i32", wide), lanes),
    *(
        (
            kernels.gradient,
            (of, of, of, to, to, wide, "i32"),
            constants | dict(scalar=scalar, need_x=True, need_y=not scalar),
        )
        for scalar in (True, False)
    ),
    (huber.terms, (of, of, to, wide, "i32"), constants),
    (huber.sum_terms, (of, of, wide, wide, "i64"), constants),
    (
        huber.gradient,
        (of, of, of, to, to, wide, wide, "i32"),
        constants | dict(scalar=False, need_x=True, need_y=True),
    ),
):
    kinds = (*arguments, *["constexpr"] * len(given))
    signature = dict(zip(kernel.arg_names, kinds, strict=True))
    source = ASTSource(kernel, signature, constexprs=given)
    assert triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["cubin"]
"""

# a defect: the text that is replaced, and by what
PACKED_TAIL = "Index i = packs * Pack<T>::N + lane; i < at.elements; i += lanes"
LOST_TAIL = PACKED_TAIL.replace(
    "i < at.elements", "i < (packed ? packs * Pack<T>::N : at.elements)"
)
ASSUMED_DENSE = (
    "return dims == 0 || (dims == 1 && stride[operand][0] == 1);",
    "return operand >= 0;",
)
ALIGNED_LOAD = (
    "return reinterpret_cast<const Pack<T>*>(from)[pack];",
    "return reinterpret_cast<const Pack<T>*>(reinterpret_cast<uintptr_t>(from) & ~15ull)[pack];",
)
ASSUMED_ALIGNED = ("reinterpret_cast<uintptr_t>(pointer) % 16 == 0", "pointer != nullptr")
GRADIENT_OFFSETS = "element(x[offset[0]], y[offset[1]], g[offset[2]])"
G_BY_INDEX = GRADIENT_OFFSETS.replace("g[offset[2]]", "g[scalar ? 0 : i]")
CUDA_DEFECTS = {
    "lost tail": [(PACKED_TAIL, LOST_TAIL)],
    "assumed contiguity": [ASSUMED_DENSE],
    "assumed alignment": [ALIGNED_LOAD, ASSUMED_ALIGNED],
    "strides of grad_output ignored": [(GRADIENT_OFFSETS, G_BY_INDEX)],
    "scalar grad_output read as if full": [
        ("c.item[k] = g[0];", "c.item[k] = g[i * Pack<T>::N + k];"),
        (GRADIENT_OFFSETS, GRADIENT_OFFSETS.replace("g[offset[2]]", "g[i]")),
    ],
    "16-bit index": [
        ("const Index digit = i % size[k];", "const Index digit = (i & 0xffff) % size[k];")
    ],
}
ATOMIC = """std::atomic<Acc> total{0};
            at::parallel_for(0, n, 64, [&](int64_t begin, int64_t end) {
                for (int64_t i = begin; i < end; ++i) {
                    const Acc d = difference(a[i], b[i]);
                    Acc seen = total.load();
                    while (!total.compare_exchange_weak(seen, seen + d * d)) {}
                }
            });
            at::Tensor sum = at::empty({}, x.options().dtype(at::kDouble)).fill_(total.load());"""
CPP_DEFECTS = {
    "lost tail": [("(n + BLOCK - 1) / BLOCK", "n < BLOCK ? 1 : n / BLOCK")],
    "scalar grad_output read as if full": [("g.dim() == x.dim() ? 1 : 0", "1")],
    "atomic sum": [
        ("#include <ATen/AccumulateType.h>", "#include <ATen/AccumulateType.h>\n#include <atomic>"),
        ("at::Tensor sum = block_sums<scalar_t, Acc>(a, b, x).sum();", ATOMIC),
    ],
}
HUBER_DEFECTS = {
    "signed threshold": [("return size <= delta ? d * d", "return d <= delta ? d * d")],
    "delta burnt in": [("limit = static_cast<Op>(delta)", "limit = static_cast<Op>(1)")],
}
TRITON_DEFECTS = {
    "lost tail": [("blocks, acc = triton.cdiv(n, BLOCK)", "blocks, acc = max(n // BLOCK, 1)")],
    "no mask": [
        ("tl.load(y_ptr + i, inside, other=0)", "tl.load(y_ptr + i)"),
        ("tl.load(x_ptr + i, inside, other=0)", "tl.load(x_ptr + i)"),
    ],
    "scalar grad_output read as if full": [("tl.load(g_ptr).to(wide) if scalar else ", "")],
}
# What a kernel computes: the rest takes most of the time.
KINKS = "*.kink,*.parameter,errors.*"
KERNEL = "value.*,gradient.*,grad_output.*,layout.*,determinism.repeat"
TRITON_CLAUSES = {
    "lost tail": "value.size",
    "no mask": "value.mean",
    "scalar grad_output read as if full": "gradient.input",
}


def edited(source: Path, edits: list[tuple[str, str]], folder: Path) -> Path:
    """A copy of ``source`` with a defect; fails where the text that it changes is not there."""
    text = source.read_text()
    for old, new in edits:
        assert old in text, f"{source.name} no longer has: {old}"
        text = text.replace(old, new)
    copy = folder / f"broken{source.suffix}"
    copy.write_text(text)
    return copy


def check(target: str, *more: str, **environment: str) -> subprocess.CompletedProcess[str]:
    common = ["--profile", "quick", "--jobs", "1"]
    command = [sys.executable, "-m", "conformance", "check", *common, target]
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [*command, *more],
        capture_output=True,
        text=True,
        check=False,
        timeout=550,
        env={**os.environ, "PYTHONPATH": paths, **environment},
    )


def compile_for_gpu(source: Path) -> None:
    """As a shared library beside it. Raises CalledProcessError where nvcc refuses it."""
    made = source.with_suffix(".so")
    command = [str(NVCC), *NVCC_FLAGS, "-shared", str(source), "-o", str(made)]
    subprocess.run(command, check=True, timeout=300)


def rejected(result: subprocess.CompletedProcess[str]) -> bool:
    return result.returncode == 1 and "DOES NOT CONFORM" in result.stdout


def described(result: subprocess.CompletedProcess[str]) -> str:
    return result.stdout[-4000:] + result.stderr[-2000:]


def written(folder: Path, text: str) -> str:
    path = folder / "mine.py"
    path.write_text(text)
    return f"{path}:target"


needs_gxx = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")
needs_ninja = pytest.mark.skipif(
    not is_ninja_available() or shutil.which("c++") is None,
    reason="no ninja or no C++ compiler",
)
needs_nvcc = pytest.mark.skipif(NVCC is None, reason="no nvcc")
needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="no triton")


@needs_gxx
@pytest.mark.full
def test_the_cuda_source_conforms_on_the_host(tmp_path: Path) -> None:
    result = check(written(tmp_path, EMULATED.format(source=str(CUDA))))
    assert result.returncode == 0, described(result)


@needs_gxx
@pytest.mark.full
@pytest.mark.parametrize("defect", CUDA_DEFECTS)
def test_a_broken_cuda_kernel_is_rejected(defect: str, tmp_path: Path) -> None:
    source = edited(CUDA, CUDA_DEFECTS[defect], tmp_path)
    result = check(written(tmp_path, EMULATED.format(source=str(source))), "--clause", KERNEL)
    assert rejected(result), described(result)


@needs_ninja
@pytest.mark.full
def test_the_cpp_target_conforms() -> None:
    result = check("cpp")
    assert result.returncode == 0, described(result)


@needs_ninja
@pytest.mark.full
def test_hubers_cpp_target_conforms() -> None:
    result = check("cpp", "--loss", "huber")
    assert result.returncode == 0, described(result)


@needs_gxx
@pytest.mark.full
def test_hubers_inductor_target_conforms_at_its_kinks_and_parameters() -> None:
    """All of quick takes minutes, of which most compile."""
    result = check("inductor", "--loss", "huber", "--clause", KINKS)
    assert result.returncode == 0, described(result)


@needs_triton
@pytest.mark.full
def test_hubers_triton_target_conforms_at_its_kinks_and_parameters() -> None:
    """All of quick takes minutes in the interpreter."""
    options = ("--loss", "huber", "--clause", KINKS)
    result = check("triton", *options, TRITON_INTERPRET="1")
    assert result.returncode == 0, described(result)


@needs_ninja
@pytest.mark.full
@pytest.mark.parametrize("defect", HUBER_DEFECTS)
def test_a_broken_cpp_kernel_of_huber_is_rejected(defect: str, tmp_path: Path) -> None:
    source = edited(HUBER, HUBER_DEFECTS[defect], tmp_path)
    path = written(tmp_path, HUBER_OPERATOR.format(source=str(source)))
    result = check(path, "--clause", "value.*,gradient.*")
    assert rejected(result), described(result)


@needs_ninja
@pytest.mark.full
@pytest.mark.parametrize("defect", CPP_DEFECTS)
def test_a_broken_cpp_kernel_is_rejected(defect: str, tmp_path: Path) -> None:
    source = edited(CPP, CPP_DEFECTS[defect], tmp_path)
    result = check(written(tmp_path, OPERATOR.format(source=str(source))), "--clause", KERNEL)
    assert rejected(result), described(result)
    if defect == "atomic sum":  # accurate, but in another order each time
        assert "determinism.repeat" in result.stdout, described(result)


@needs_triton
@only(["no mask"], "defect", TRITON_DEFECTS)
def test_a_broken_triton_kernel_is_rejected(defect: str, tmp_path: Path) -> None:
    named = [
        ('"loss_conformance_triton"', '"broken_triton"'),
        ("TRITON = register(", "target = ("),
    ]
    source = edited(TRITON, TRITON_DEFECTS[defect] + named, tmp_path)
    clause = TRITON_CLAUSES[defect]  # only this one: the interpreter is slow
    result = check(f"{source}:target", "--clause", clause, TRITON_INTERPRET="1")
    assert rejected(result), described(result)


@needs_nvcc
@needs_gxx
@pytest.mark.full
@pytest.mark.parametrize("defect", CUDA_DEFECTS)
def test_broken_variants_are_cuda_too(defect: str, tmp_path: Path) -> None:
    """What is rejected on the host is a kernel that nvcc would have let through."""
    compile_for_gpu(edited(CUDA, CUDA_DEFECTS[defect], tmp_path))


@needs_triton
@pytest.mark.full
@pytest.mark.parametrize("dtype", ["fp64", "fp32", "fp16", "bf16"])
def test_the_triton_kernels_compile_for_a_gpu(dtype: str) -> None:
    """The interpreter runs what the compiler refuses: here each kernel is compiled."""
    code = COMPILED_TRITON.format(dtype=dtype, wide="fp64" if dtype == "fp64" else "fp32")
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True,
        check=False, timeout=300,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]


TWO_BUILDS = {
    "cpp": "from targets.cpp import prepare; prepare()",
    "cuda": "from targets.cuda.build import *; build(SOURCE, nvcc_command())",
}


@pytest.mark.full
@pytest.mark.parametrize(
    "kind", [pytest.param("cpp", marks=needs_ninja), pytest.param("cuda", marks=needs_nvcc)]
)
def test_two_processes_that_build_at_once_make_one_good_library(kind: str, tmp_path: Path) -> None:
    environment = {**os.environ, "LOSS_CONFORMANCE_CACHE": str(tmp_path)}
    command = [sys.executable, "-c", TWO_BUILDS[kind]]

    def build(_: int) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(command, env=environment, cwd=ROOT, check=False, timeout=500)

    with ThreadPoolExecutor(2) as pool:
        assert [run.returncode for run in pool.map(build, range(2))] == [0, 0]
    (library,) = tmp_path.rglob("*.so")
    made = library.stat().st_mtime_ns
    if kind == "cpp":
        (library.parent / "lock").touch()  # left behind by a build that was killed
    assert build(0).returncode == 0
    assert library.stat().st_mtime_ns == made  # found, not built again


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (TWO_BUILDS["cpp"], "no C++ compiler c++ on PATH"),
        (TWO_BUILDS["cuda"], "no nvcc on PATH or in $CUDA_HOME/bin"),
        pytest.param(
            "from targets.inductor import compiled; compiled()",
            "no C++ compiler on PATH",
            marks=pytest.mark.full,
        ),
    ],
)
def test_without_a_compiler_the_message_says_what_is_missing(
    code: str, message: str, tmp_path: Path
) -> None:
    nothing = {"PATH": str(tmp_path), "CUDA_HOME": str(tmp_path), "CXX": ""}
    nothing = {**os.environ, **nothing, "LOSS_CONFORMANCE_CACHE": str(tmp_path / "cache")}
    del nothing["CXX"]
    command = [sys.executable, "-c", code]
    run = subprocess.run(
        command, env=nothing, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    last = run.stderr.strip().splitlines()[-1]
    assert "TargetUnavailable" in last
    assert message in last


@needs_gxx
def test_a_source_that_does_not_compile_is_explained(tmp_path: Path) -> None:
    source = tmp_path / "mse.cu"
    source.write_text("int f( { }\n")
    result = check(written(tmp_path, EMULATED.format(source=str(source))))
    assert result.returncode == 3
    assert "cannot build mse.cu" in result.stderr
    assert "error: " in result.stderr
    assert "Traceback" not in result.stderr


def test_without_a_gpu_the_cuda_target_is_incomplete_in_one_line() -> None:
    result = check("cuda", "builtin", "--device", "cuda", CUDA_VISIBLE_DEVICES="")
    assert result.returncode == 3
    assert len(result.stderr.strip().splitlines()) == 1
    assert "cuda" in result.stderr.lower()
