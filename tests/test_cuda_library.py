"""The library of CUDA kernels: loaded where it fits torch, refused with a reason where not; no GPU is needed."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import svmax_ops
from svmax_ops import backends, use_backend
from svmax_ops.backends import NAMED, cuda_library
from svmax_ops.backends.cuda_library import BuiltFor, Kernels
from tests.package.building import CLEAN, ROOT

SENTENCE = b"\x7fELF ... svmax_ops for CUDA 13.0, architectures 75 80 86, PTX 86\0 ..."


@pytest.fixture
def library(tmp_path):
    """A file that says of itself what a library says, and is none."""
    path = tmp_path / "_C_cuda.so"
    path.write_bytes(SENTENCE)
    return path


def refusal(library) -> str:
    built_for, reason = Kernels._load(library)
    assert built_for is None
    return reason


# ---- what it was built for


def test_the_file_says_what_it_was_built_for(library):
    assert BuiltFor.read(library) == BuiltFor("13.0", (75, 80, 86), 86)
    assert str(BuiltFor.read(library)) == "CUDA 13.0, architectures 75 80 86, PTX 86"


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"svmax_ops for CUDA ", SENTENCE[:-10], SENTENCE[9:30]])
def test_a_file_that_does_not_say_is_refused(tmp_path, monkeypatch, content):
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    (tmp_path / "damaged.so").write_bytes(content)
    assert refusal(tmp_path / "damaged.so").startswith("damaged.so does not say which CUDA it was built for; install ")


@pytest.mark.parametrize(
    ("architecture", "serves"),
    [(75, True), (80, True), (86, True), (89, True), (90, True), (120, True), (70, False), (72, False)],
)
def test_code_runs_on_later_chips_of_a_generation_and_ptx_on_all_that_follow(library, architecture, serves):
    assert BuiltFor.read(library).serves(architecture) == serves


def test_code_does_not_run_on_earlier_chips():
    built_for = BuiltFor("13.0", (86, 90), 90)
    assert [a for a in (80, 86, 87, 89, 90, 103) if built_for.serves(a)] == [86, 87, 89, 90, 103]


# ---- refusals


def test_a_torch_without_cuda_is_told_so(library, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    assert refusal(library) == f"torch {torch.__version__} is a build without CUDA"


def test_a_missing_library_says_how_to_build_it(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert refusal(tmp_path / "_C_cuda.so") == (
        "the CUDA kernels were not built; install the toolkit of CUDA 13 (nvcc) and build again"
        " (pip install --no-build-isolation .)"
    )


def test_another_major_version_of_cuda_is_refused_before_loading(library, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    assert refusal(library) == (
        f"the CUDA kernels were built for CUDA 13.0, and torch {torch.__version__} for CUDA 12.8;"
        " install the toolkit of CUDA 12 (nvcc) and build again (pip install --no-build-isolation .)"
    )


def test_a_library_that_does_not_load_is_a_reason_and_no_error(library, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "13.1")  # the same major version: it is tried
    assert refusal(library).startswith(f"the CUDA kernels do not load in torch {torch.__version__}: ")


# ---- the library that is here

REGISTERED = """
import torch, svmax_ops
from svmax_ops.backends import NAMED, cuda_library
kernels = NAMED["cuda"].kernels
assert kernels.missing is None, kernels.missing
assert kernels.built_for == cuda_library.BuiltFor.read(cuda_library.PATH)
ops = [name for name in torch._C._dispatch_get_all_op_names() if name.startswith("svmax::")]
for op in ops:  # the gradient of singular values is the same for every device
    key = "CompositeExplicitAutograd" if op == "svmax::singular_values_backward" else "CUDA"
    assert torch._C._dispatch_has_kernel_for_dispatch_key(op, key), op
assert not torch.cuda.is_initialized()
print(len(ops))
"""


@pytest.mark.processes
def test_the_library_loads_where_it_was_built_and_gives_every_op_a_kernel_for_gpus():
    if not cuda_library.PATH.exists():
        pytest.skip("the CUDA kernels are not built here: no nvcc, or CMAKE_ARGS=-DSVMAX_CUDA=OFF")
    if torch.version.cuda is None:
        pytest.skip(NAMED["cuda"].kernels.missing)
    done = subprocess.run(
        [sys.executable, "-c", REGISTERED], env=CLEAN, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == 6


# ---- the choice


@pytest.fixture
def on_gpu():
    """A tensor that says it is on a GPU; fake, so that there need be none."""
    with FakeTensorMode():
        yield torch.empty(8, 4, device="cuda")


def loaded(monkeypatch, *gpus: int) -> None:
    """As if the library were loaded, on a machine with GPUs of these architectures."""
    monkeypatch.setattr(NAMED["cuda"], "kernels", Kernels(BuiltFor("13.0", (80,), 80), None))
    monkeypatch.setattr(NAMED["cuda"], "_gpus", {})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(gpus))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(gpus))
    properties = [SimpleNamespace(name=f"GPU{a}", major=a // 10, minor=a % 10) for a in gpus]
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties[index])


def without_kernels() -> object:
    """What serves a CUDA tensor where the CUDA kernels do not."""
    return NAMED["reference" if NAMED["triton"].missing_library else "triton"]


def test_auto_takes_the_kernels_for_a_cuda_tensor(monkeypatch, on_gpu):
    loaded(monkeypatch, 80)
    assert svmax_ops.available_backends()["cuda"] == "ok"
    assert backends.choose("f", on_gpu) is NAMED["cuda"]
    with use_backend("cuda"):
        assert backends.choose("f", on_gpu) is NAMED["cuda"]


def test_a_gpu_that_the_kernels_were_not_built_for(monkeypatch, on_gpu):
    loaded(monkeypatch, 75)
    sentence = (
        "the CUDA kernels were built for CUDA 13.0, architectures 80, PTX 80, not for GPU75 (architecture 75);"
        " see SVMAX_CUDA_ARCHITECTURES in the README"
    )
    assert svmax_ops.available_backends()["cuda"] == sentence
    assert backends.choose("f", on_gpu) is without_kernels()
    with use_backend("cuda"), pytest.raises(RuntimeError) as error:
        backends.choose("f", on_gpu)
    assert str(error.value) == f"f: backend 'cuda' is not available: {sentence}."


def test_each_gpu_is_asked_for_by_itself(monkeypatch, on_gpu):
    loaded(monkeypatch, 75, 90)
    assert svmax_ops.available_backends()["cuda"] == "ok"
    assert backends.choose("f", on_gpu) is without_kernels()
    assert backends.choose("f", torch.empty(8, 4, device="cuda:1")) is NAMED["cuda"]


def test_the_driver_is_asked_once(monkeypatch, on_gpu):
    loaded(monkeypatch, 80)
    backends.choose("f", on_gpu)
    monkeypatch.setattr(torch.cuda, "get_device_properties", None)
    assert backends.choose("f", on_gpu) is NAMED["cuda"]


def test_without_a_gpu_the_library_may_load_and_the_backend_is_not_available(monkeypatch):
    loaded(monkeypatch)
    assert svmax_ops.available_backends()["cuda"] == "there is no GPU that torch can use"
    with use_backend("cuda"), pytest.raises(RuntimeError, match="f: backend 'cuda' is not available: there is no GPU"):
        backends.choose("f", torch.empty(8, 4))


def test_without_the_library_a_cuda_tensor_goes_to_triton_and_without_both_to_the_reference(monkeypatch, on_gpu):
    monkeypatch.setattr(NAMED["cuda"], "kernels", Kernels(None, "the reason"))
    assert backends.choose("f", on_gpu) is without_kernels()
    monkeypatch.setattr(NAMED["triton"], "missing_library", "another reason")
    assert backends.choose("f", on_gpu) is NAMED["reference"]
    with use_backend("cuda"), pytest.raises(RuntimeError, match="f: backend 'cuda' is not available: the reason"):
        backends.choose("f", on_gpu)


def test_a_backend_refuses_the_tensors_of_the_other(monkeypatch, on_gpu):
    loaded(monkeypatch, 80)
    with (
        use_backend("cpu"),
        pytest.raises(ValueError, match=r"f: backend 'cpu' serves CPU tensors, got one on cuda:0; use 'auto'\."),
    ):
        backends.choose("f", on_gpu)
    with (
        use_backend("cuda"),
        pytest.raises(ValueError, match=r"f: backend 'cuda' serves CUDA tensors, got one on cpu; use 'auto'\."),
    ):
        backends.choose("f", torch.empty(8, 4, device="cpu"))


def test_info_tells_of_both_libraries(capsys):
    from svmax_ops.cli import main

    assert main(["info"]) == 0
    rows = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    cuda = rows["CUDA kernels"].strip()
    kernels = NAMED["cuda"].kernels
    if kernels.built_for is None:
        assert cuda == f"not loaded: {kernels.missing}"
    else:
        assert cuda == f"_C_cuda.so, for {kernels.built_for}"
    assert rows["native library"].strip() == "_C.so"
