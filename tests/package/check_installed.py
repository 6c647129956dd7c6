"""Run by an installed svmax_ops, in a torch it was not compiled against: the native library loads and computes."""

import sys
from pathlib import Path

import torch

import svmax_ops
from svmax_ops.backends import NAMED, cuda_library


def main(version: str) -> None:
    assert torch.__version__.split("+")[0] == version, torch.__version__
    assert Path(svmax_ops.__file__).is_relative_to(sys.prefix), svmax_ops.__file__
    assert svmax_ops.available_backends()["cpu"] == "ok", svmax_ops.available_backends()

    torch.manual_seed(0)
    for shape in [(144, 128), (64, 128), (300, 256), (5, 40, 24), (32, 16)]:
        for dtype, tolerance in {torch.float32: 2e-7, torch.bfloat16: 2e-7, torch.float64: 1e-12}.items():
            x = torch.randn(shape).to(dtype).requires_grad_()
            e = torch.nn.functional.normalize(x.detach().double(), dim=-1).requires_grad_()
            truth = torch.linalg.svdvals(e)
            polar = torch.autograd.grad(truth.sum(), e)[0]
            with svmax_ops.use_backend("cpu"):
                mean = svmax_ops.mean_singular_value(x)
                values = svmax_ops.svdvals(x, normalize=True)
                gradient = torch.autograd.grad(svmax_ops.nuclear_norm(x, normalize=True).sum(), x)[0].double()
                loss = svmax_ops.svmax_loss(x)
            torch.testing.assert_close(
                mean.double(), truth.mean(-1) * truth.shape[-1] / shape[-1], rtol=tolerance, atol=0
            )
            torch.testing.assert_close(values.double(), truth, rtol=2e-7, atol=2e-7)
            # Through the normalisation: what is along e is projected out, the rest divided by the row's norm.
            along = (polar * e).sum(-1, keepdim=True)
            expected = ((polar - along * e) / x.detach().double().norm(dim=-1, keepdim=True)).detach()
            error = (gradient - expected).norm() / expected.norm()
            assert error < (4e-3 if dtype == torch.bfloat16 else 1e-5), (shape, dtype, error)
            assert loss.isfinite().all()
            assert (loss >= 1).all()

    for backend in ("cpu", "reference"):
        with svmax_ops.use_backend(backend):
            for function in (svmax_ops.svmax_loss, svmax_ops.nuclear_norm, svmax_ops.svdvals, svmax_ops.spectrum):
                for dynamic in (False, True):
                    torch._dynamo.reset()
                    compiled = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=dynamic)
                    x = torch.randn(48, 16)
                    torch.testing.assert_close(compiled(x), function(x))
    check_special_numbers()
    print(f"CUDA kernels: {check_cuda()}")
    print(f"torch {torch.__version__}, Python {sys.version.split()[0]}: ok")


def check_special_numbers() -> None:
    """A NaN stays one, also where the compiler was told that there are none; and the process has subnormal numbers."""
    for poison in (float("nan"), float("inf")):
        x = torch.randn(40, 24)
        x[7, 3] = poison
        x.requires_grad_()
        loss = svmax_ops.svmax_loss(x)
        assert loss.isnan(), loss
        assert torch.autograd.grad(loss, x)[0].isnan().all()
    smallest = torch.tensor(2.0**-1074, dtype=torch.float64)
    assert smallest * 1 > 0


def check_cuda() -> str:
    """The kernels for GPUs load where they fit this torch, and are refused with a sentence where they do not."""
    kernels, library = NAMED["cuda"].kernels, cuda_library.PATH
    reason = kernels.missing
    registered = torch._C._dispatch_has_kernel_for_dispatch_key("svmax::objective", "CUDA")
    assert registered == (reason is None)
    if torch.version.cuda is None:
        assert reason == f"torch {torch.__version__} is a build without CUDA"
        if library.exists():  # it would not have loaded, and that would have been no crash
            torch.version.cuda = cuda_library.BuiltFor.read(library).version
            forced = cuda_library.Kernels._load(library).missing
            assert "do not load" in forced, forced
            assert "libtorch_cuda.so" in forced, forced
    elif not library.exists():
        assert reason is not None
        assert reason.startswith("the CUDA kernels were not built")
    else:
        built_for = cuda_library.BuiltFor.read(library)
        if built_for.version.partition(".")[0] == torch.version.cuda.partition(".")[0]:
            assert reason is None, reason
        else:
            assert reason is not None
            assert reason.startswith(f"the CUDA kernels were built for CUDA {built_for.version}, and torch "), reason
    assert not torch.cuda.is_initialized()
    return reason or f"loaded, {kernels.built_for}"


if __name__ == "__main__":
    main(sys.argv[1])
