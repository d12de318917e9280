"""The registry's errors, and the shipped targets against the builtin."""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import inspect
import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import targets.registry
from conformance.cases.plans import examples
from conformance.observer.description import make_ready
from conformance.observer.devices import DeviceUnavailable
from targets import (
    CLAIMS,
    DROP_IN,
    Target,
    TargetError,
    TargetUnavailable,
    UnknownTarget,
    available,
    fingerprint,
    register,
    resolve,
)
from tests.sessions import claimed

SHIPPED = ("builtin", "function", "module", "tutorial-function", "tutorial-module")
CONFORMING = ("builtin", "function", "module")
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
OF_MODULE = DROP_IN - {"weight", "legacy"} | {"module"}  # an ``nn.Module`` as it is


def square(input: torch.Tensor, target: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
    return F.mse_loss(input, target, reduction=reduction)


def mean_only(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return F.mse_loss(x, y)


class Plain(torch.nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(x, y)


class Needy(Plain):
    def __init__(self, weight: float) -> None:
        super().__init__()


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (x - y).square().mean()


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    available()
    registry = targets.registry._REGISTRY
    monkeypatch.setattr(registry, "targets", dict(registry.targets))
    monkeypatch.setattr(registry, "broken", dict(registry.broken))


def write(folder: Path, text: str, name: str = "mine.py") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


# --- Target


def test_a_target_claims_to_be_a_drop_in_by_default() -> None:
    target = Target("mine", square)
    assert target.claims == DROP_IN == CLAIMS - {"module", "subclass"}
    assert target.reductions == ("none", "sum", "mean")
    assert target.dtypes == ("float64", "float32", "float16", "bfloat16")


def test_collections_become_frozen() -> None:
    target = Target("mine", square, {"empty"}, ["mean"], ["float32"])  # type: ignore[arg-type]
    assert target.claims == frozenset({"empty"})
    assert (target.reductions, target.dtypes) == (("mean",), ("float32",))
    assert hash(target)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": ""}, "target name ''"),
        ({"name": "a/b"}, "letters, digits"),
        ({"name": ".."}, "letter, digit or _ first"),
        ({"name": 3}, "target name 3"),
        ({"loss": 3}, "loss is not callable: 3"),
        ({"claims": {"brodcast"}}, "unknown claim 'brodcast', did you mean 'broadcast'"),
        ({"claims": {"zzz"}}, "known: autocast, broadcast, compile, deterministic"),
        ({"claims": "empty"}, "not a collection"),
        ({"claims": None}, "not a collection"),
        ({"reductions": ("avg",)}, "unknown reduction 'avg'"),
        ({"reductions": ()}, "no reductions, nothing can be judged"),
        ({"dtypes": ("float23",)}, "unknown dtype 'float23', did you mean 'float"),
        ({"module": 3}, "module is not callable"),
    ],
)
def test_a_field_that_is_not_valid_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(TargetError, match=message):
        Target(**{"name": "mine", "loss": square, **fields})


# --- names


def test_shipped_targets_are_available() -> None:
    assert set(SHIPPED) <= set(available().targets)
    assert resolve("builtin").claims == CLAIMS


def test_an_unknown_name_names_its_neighbours() -> None:
    with pytest.raises(UnknownTarget) as caught:
        resolve("bultin")
    message = str(caught.value)
    assert "did you mean 'builtin'" in message
    assert "path/file.py:attribute" in message


def test_a_name_belongs_to_one_target() -> None:
    mine = register(Target("mine", square))
    assert register(Target("mine", square)) == mine
    assert resolve("mine") == mine
    with pytest.raises(TargetError, match="two targets are called 'mine'"):
        register(Target("mine", mean_only))


def test_the_package_does_not_import_torch() -> None:
    code = "import sys, targets; sys.exit('torch' in sys.modules)"
    root = Path(targets.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0


def test_an_entry_point_that_breaks_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        importlib.metadata.EntryPoint(name, value, targets.registry.GROUP)
        for name, value in [
            ("good", "torch.nn.functional:mse_loss"),
            ("gone", "no_such_package_here:loss"),
            ("absent", "torch.nn.functional:no_such_loss"),
        ]
    ]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points)
    registry = available()
    assert registry.targets["good"].source == "torch.nn.functional:mse_loss"
    assert "No module named 'no_such_package_here'" in str(registry.broken["gone"])
    assert "no_such_loss" in str(registry.broken["absent"])
    with pytest.raises(TargetError, match="no_such_package_here"):
        resolve("gone")


def test_a_shipped_name_needs_no_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(group: str) -> None:
        raise AssertionError("entry points were read")

    monkeypatch.setattr(importlib.metadata, "entry_points", fail)
    assert resolve("builtin").name == "builtin"


# --- callables and modules


def test_a_shipped_name_imports_no_other_implementation() -> None:
    """Triton takes a tenth of a second, and may be broken where torch is not."""
    code = "from targets import resolve; import sys; resolve('module'); print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    assert "targets.module" in loaded
    assert not {"targets.triton", "targets.inductor", "targets.builtin", "triton"} & loaded


def test_a_target_is_returned_as_it_is() -> None:
    target = Target("mine", square)
    assert resolve(target) is target


def test_a_callable_claims_to_be_a_drop_in() -> None:
    target = resolve(square)
    assert (target.name, target.loss, target.claims) == ("square", square, DROP_IN)


def weighted(x: Any, y: Any, reduction: str = "mean", *, weight: Any = None) -> Any:
    return F.mse_loss(x, y, reduction=reduction, weight=weight)


def scaled(x: Any, y: Any, weight: float = 1.0, reduction: str = "mean") -> Any:
    """What torch calls ``weight`` is another thing: None, or a tensor."""
    return weight * F.mse_loss(x, y, reduction=reduction)


def averaged(x: Any, y: Any, size_average: Any = None, reduction: str = "mean") -> Any:
    return F.mse_loss(x, y, size_average, reduction=reduction)


def anything(x: Any, y: Any, reduction: str = "mean", **others: Any) -> Any:
    return F.mse_loss(x, y, reduction=reduction, **others)


@pytest.mark.parametrize(
    ("spec", "made"),
    [
        (square, set()),
        (weighted, {"weight"}),
        (scaled, set()),
        (averaged, set()),
        (anything, set()),
        (F.mse_loss, {"weight", "legacy"}),
        (Target("mine", anything, parameters=("weight",)), {"weight"}),
        (Target("mine", F.mse_loss, {"empty"}), set()),  # type: ignore[arg-type]
        (Target("mine", F.mse_loss, parameters=()), set()),
        ("builtin", {"weight", "legacy", "subclass"}),
    ],
)
def test_what_the_signature_takes_is_claimed(spec: Any, made: set[str]) -> None:
    found = claimed(resolve(spec))
    assert found.claims & {"weight", "legacy", "subclass"} == made


def test_the_builtins_claim_what_this_torch_takes() -> None:
    for loss, function in (("mse", F.mse_loss), ("l1", F.l1_loss), ("huber", F.huber_loss)):
        taken = inspect.signature(function).parameters
        found = claimed(resolve("builtin", loss)).claims
        assert ("weight" in found, "legacy" in found) == ("weight" in taken, "reduce" in taken)


@pytest.mark.parametrize("function", [mean_only, functools.partial(mean_only), Square.apply])
def test_a_callable_without_reduction_is_a_mean(function: Any) -> None:
    target = resolve(function)
    assert target.reductions == ("mean",)
    assert target.loss(torch.ones(2), torch.zeros(2), reduction="mean") == 1


class Total(torch.nn.Module):
    """A sum, which its caller cannot choose."""

    reduction = "sum"

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (x - y).square().sum()


@pytest.mark.parametrize("module", [Total, Total()])
def test_a_module_of_one_reduction_claims_that(module: Any) -> None:
    target = resolve(module)
    assert target.reductions == ("sum",)
    assert target.loss(torch.ones(2), torch.zeros(2), reduction="sum") == 2


@pytest.mark.parametrize("found", [torch.nn.MSELoss, Square])
def test_a_class_is_no_loss(found: Any) -> None:
    with pytest.raises(TargetError, match="target mine: its loss is the class"):
        resolve(Target("mine", found))


def test_a_target_of_one_reduction_need_not_take_it() -> None:
    target = resolve(Target("mine", mean_only, reductions=("mean",)))
    assert target.loss(torch.ones(2), torch.zeros(2), reduction="mean") == 1
    with pytest.raises(TargetError, match="mine claims none and sum and mean, but its loss has no"):
        resolve(Target("mine", mean_only))


def test_a_callable_with_any_keyword_takes_a_reduction() -> None:
    assert len(resolve(lambda x, y, **options: x).reductions) == 3


def test_a_module_class_is_made_with_the_reduction() -> None:
    target = resolve(torch.nn.MSELoss)
    assert target.claims == OF_MODULE
    assert target.module is torch.nn.MSELoss
    assert target.loss(torch.ones(2), torch.zeros(2), reduction="sum") == 2


@pytest.mark.parametrize("spec", [Plain, Plain()])
def test_a_module_without_reduction_is_a_mean(spec: Any) -> None:
    target = resolve(spec)
    assert (target.name, target.reductions, target.claims) == ("Plain", ("mean",), OF_MODULE)
    assert target.loss(torch.ones(2), torch.zeros(2), reduction="mean") == 1
    assert target.module is not None
    assert isinstance(target.module(reduction="mean"), Plain)


def test_a_module_instance_keeps_its_reduction() -> None:
    assert resolve(torch.nn.MSELoss(reduction="sum")).reductions == ("sum",)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (Needy, "cannot make a Needy: TypeError: .*weight"),
        (Square, "Square is an autograd.Function: name its apply"),
        (3, "int is not callable"),
    ],
)
def test_what_cannot_be_called_is_refused(spec: Any, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        resolve(spec)


# --- modules and files by name


def test_a_dotted_attribute_of_a_package() -> None:
    target = resolve("torch:nn.functional.mse_loss")
    assert target.loss is F.mse_loss
    assert target.source == "torch:nn.functional.mse_loss"


def test_a_file_is_loaded_under_a_name_of_its_own(tmp_path: Path) -> None:
    write(tmp_path, "def helper(x, y):\n    return ((x - y) ** 2).mean()\n", "beside_mine.py")
    path = write(
        tmp_path,
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "from beside_mine import helper\n"
        "@dataclass\n"
        "class Loss:\n"
        "    scale: float = 1.0\n"
        "    def __call__(self, x, y):\n"
        "        return self.scale * helper(x, y)\n"
        "loss = Loss()\n",
    )
    before = list(sys.path)
    target = resolve(f"{path}:loss")
    assert sys.path == before
    assert target.loss(torch.ones(2), torch.zeros(2)) == 1
    assert pickle.loads(pickle.dumps(target.loss)).function.scale == 1.0
    assert resolve(f"{path}:loss").loss.function is target.loss.function  # type: ignore[attr-defined]


def test_a_changed_file_is_loaded_again(tmp_path: Path) -> None:
    first = resolve(write(tmp_path, "def loss(x, y):\n    return 1\n") + ":loss")
    second = resolve(write(tmp_path, "def loss(x, y):\n    return 2\n") + ":loss")
    assert (first.loss(0, 0), second.loss(0, 0)) == (1, 2)
    assert fingerprint(first) == fingerprint(second) != fingerprint(resolve("builtin"))


DEFINES = "from targets import Target, register\ndef f(x, y, reduction='mean'): ...\n"


@pytest.mark.parametrize("text", ["mine = Target('mine', f)\n", "register(Target('mine', f))\n"])
def test_a_file_with_one_target_needs_no_attribute(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, DEFINES + text)
    assert resolve(path).name == "mine"
    assert resolve(path).source == path


def test_a_target_that_a_file_imports_is_not_its_own(tmp_path: Path) -> None:
    """Importing a module of this package registers what it holds."""
    text = "from targets.function import SquaredDifference\n\ndef mine(x, y):\n    return x - y\n"
    (tmp_path / "mine.py").write_text(text)
    script = f"from targets import resolve; print(resolve({str(tmp_path / 'mine.py')!r}).name)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.stdout.strip(), done.returncode) == ("mine", 0), done.stderr


def test_a_file_with_several_targets_asks_which(tmp_path: Path) -> None:
    path = write(tmp_path, DEFINES + "a = Target('a', f)\nb = Target('b', f)\n")
    with pytest.raises(
        TargetError, match=r"say which attribute, as .*mine.py:NAME; it has f, a, b"
    ):
        resolve(path)
    assert resolve(f"{path}:b").name == "b"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\nimport no_such_package_here\n", r"ModuleNotFoundError: .*mine\.py, line 2\)"),
        ("import sys\nsys.exit(3)\n", r"SystemExit: 3 \(.*mine\.py, line 2\)"),
        ("def f(:\n", r"SyntaxError: .*mine\.py, line 1"),
        ("raise RuntimeError('one\\ntwo')\n", r"RuntimeError: one \(.*mine\.py, line 1\)"),
    ],
)
def test_a_file_that_does_not_import_says_where(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    loaded = set(sys.modules)
    with pytest.raises(TargetError, match="cannot import .*" + message) as caught:
        resolve(f"{path}:loss")
    assert "\n" not in str(caught.value)
    assert "Traceback" not in str(caught.value)
    assert set(sys.modules) == loaded


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("no_such_package_here:loss", "cannot import no_such_package_here: ModuleNotFoundError"),
        ("no/such/file.py:loss", "no such file: no/such/file.py"),
        ("torch.nn.functional:mse_los", "no attribute 'mse_los', did you mean 'mse_loss'"),
        ("torch:nn.functionel.mse_loss", "no attribute 'functionel', did you mean 'functional'"),
        ("torch:__version__", "__version__ is not callable"),
        ("torch:", "write package.module:attribute"),
    ],
)
def test_a_place_that_is_not_there_is_explained(spec: str, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        resolve(spec)


def test_the_fingerprint_looks_through_wrappers() -> None:
    whole = fingerprint(resolve(square))
    assert len(whole) == 64
    for spec in (mean_only, functools.partial(square), Plain, Plain(), Square.apply):
        assert fingerprint(resolve(spec)) == whole
    assert fingerprint(resolve(torch.dist)) != whole  # built in: it has no source


class Obliging:
    """Has whatever attribute it is asked for, and no truth value."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__wrapped__":
            raise AttributeError(name)
        return Obliging()

    def __bool__(self) -> bool:
        raise TypeError

    def __call__(self, input: Any, target: Any, reduction: str = "mean") -> Any:
        return F.mse_loss(input, target, reduction=reduction)


@pytest.mark.parametrize("loss", [Obliging(), torch.compile(torch.nn.MSELoss())])
def test_the_fingerprint_stands_odd_objects(loss: Any) -> None:
    assert len(fingerprint(Target("mine", loss))) == 64


# --- the shipped implementations


@pytest.mark.filterwarnings("ignore:.*target size")
@pytest.mark.parametrize("name", CONFORMING)
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_conforming_agree_with_torch(name: str, reduction: str, dtype: torch.dtype) -> None:
    loss = resolve(name).loss
    generator = torch.Generator().manual_seed(7)
    for left, right in [((3, 4), (3, 4)), ((3, 1), (4,)), ((2,), ()), ((), ()), ((0, 3), (3,))]:
        for other in (dtype, torch.float32):
            x = torch.randn(left, generator=generator).to(dtype).requires_grad_()
            y = torch.randn(right, generator=generator).to(other).requires_grad_()
            results = []
            for function in (loss, F.mse_loss):
                value = function(x, y, reduction=reduction)
                g = torch.full_like(value, 0.5)
                results.append((value, *torch.autograd.grad(value, (x, y), g)))
            for own, builtin in zip(*results, strict=True):
                torch.testing.assert_close(own, builtin, equal_nan=True)


@pytest.mark.parametrize("name", CONFORMING)
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_the_conforming_differentiate_twice_and_forward(name: str, reduction: str) -> None:
    loss = functools.partial(resolve(name).loss, reduction=reduction)
    x = torch.randn(3, 1, dtype=torch.float64, requires_grad=True)
    y = torch.randn(2, dtype=torch.float64, requires_grad=True)
    with pytest.warns(UserWarning, match="target size"):
        loss(x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        assert torch.autograd.gradcheck(loss, (x, y), check_forward_ad=True)
        assert torch.autograd.gradgradcheck(loss, (x, y))


@pytest.mark.parametrize("name", CONFORMING)
def test_the_conforming_transform(name: str) -> None:
    loss = resolve(name).loss
    x, y = torch.randn(2, 3, 4)
    for in_dims in [(0, 0), (0, None), (None, 0)]:
        operands = [v if d == 0 else v[0] for v, d in zip((x, y), in_dims, strict=True)]
        own, builtin = (torch.vmap(f, in_dims)(*operands) for f in (loss, F.mse_loss))
        torch.testing.assert_close(own, builtin)
    own, builtin = (torch.func.grad(f, (0, 1))(x, y) for f in (loss, F.mse_loss))
    torch.testing.assert_close(own, builtin)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert loss(x.half(), y.half()).dtype == torch.float32


@pytest.mark.filterwarnings("ignore:.*target size")
@pytest.mark.parametrize("name", CONFORMING)
def test_the_conforming_refuse(name: str) -> None:
    loss = resolve(name).loss
    x = torch.ones(3)
    with pytest.raises(ValueError, match="not a valid value for reduction"):
        loss(x, x, reduction="avg")
    for other in (torch.ones(4), torch.ones(3, dtype=torch.complex64)):
        with pytest.raises(RuntimeError):
            loss(x, other)
    with pytest.raises(RuntimeError):
        loss(x.long(), x.long())


def test_the_tutorials_are_as_taught() -> None:
    x, y = torch.randn(2, 5, requires_grad=True)
    for name in ("tutorial-module", "tutorial-function"):
        loss = resolve(name).loss
        torch.testing.assert_close(loss(x, y), F.mse_loss(x, y))
        big = torch.full((70_000,), 1.0, dtype=torch.float16)
        assert torch.isinf(loss(big, torch.zeros_like(big)))
    assert torch.autograd.grad(loss(x, y), y, allow_unused=True) == (None,)


def test_what_a_target_needs_is_made_ready_once_asked() -> None:
    done: list[str] = []
    targets.prepare(Target("ready", square, prepare=lambda: done.append("built")))
    assert done == ["built"]


def test_a_target_that_cannot_be_prepared_says_so_in_one_line() -> None:
    def broken() -> None:
        raise OSError("no room\nfor objects")

    with pytest.raises(TargetError, match=r"cannot prepare target mine: OSError: no room \("):
        targets.prepare(Target("mine", square, prepare=broken))


def test_what_this_machine_lacks_is_unavailable_and_not_wrong_usage() -> None:
    def absent() -> None:
        raise TargetUnavailable("no compiler")

    with pytest.raises(TargetUnavailable, match="no compiler") as raised:
        targets.prepare(Target("mine", square, prepare=absent))
    assert (raised.value.status, TargetError.status) == (3, 2)


def test_a_target_is_not_judged_on_a_device_it_does_not_run_on() -> None:
    with pytest.raises(DeviceUnavailable, match="mine runs on cuda, not on cpu"):
        make_ready(Target("mine", square, devices=("cuda",)), "cpu")
    with pytest.raises(TargetError, match="unknown device 'gpu'"):
        Target("mine", square, devices=("gpu",))
    with pytest.raises(TargetError, match="no devices"):
        Target("mine", square, devices=())


@dataclasses.dataclass
class Scaled:
    """A loss with fields: equal to others with the same, and so not hashable."""

    scale: float = 1.0

    def __call__(self, x: torch.Tensor, y: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
        return F.mse_loss(x, y, reduction=reduction) * self.scale


def test_a_loss_that_is_not_hashable_is_a_target() -> None:
    target = Target("scaled", Scaled())
    assert target == Target("scaled", Scaled())
    assert target != Target("scaled", Scaled(2.0))
    assert examples(claimed(target)) == examples(claimed(Target("hashable", F.mse_loss)))


ONE_LOSS = {
    "a function": "def mine(x, y, reduction='mean'): return F.mse_loss(x, y, reduction=reduction)",
    "a module": "class mine(nn.MSELoss):\n    pass",
    "with helpers": (
        "def _half(x, y): return x / 2\n"
        "def main(): pass\n"
        "class Apply(torch.autograd.Function):\n    pass\n"
        "def mine(x, y): return ((x - y) ** 2).mean()"
    ),
}


@pytest.mark.parametrize("kind", ONE_LOSS)
def test_the_one_loss_of_a_file_needs_no_name(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    imports = "import torch\nfrom torch import nn\nimport torch.nn.functional as F\n"
    path.write_text(imports + ONE_LOSS[kind] + "\n")
    found, named = resolve(str(path)), resolve(f"{path}:mine")
    assert found.source == named.source == f"{path}:mine"
    assert (found.name, found.claims, found.reductions) == ("mine", named.claims, named.reductions)
    path.write_text(imports + ONE_LOSS[kind] + "\ndef other(x, y): return x\n")
    with pytest.raises(TargetError, match=r"say which attribute, as .*mine.py:NAME; it has .*mine"):
        resolve(str(path))
