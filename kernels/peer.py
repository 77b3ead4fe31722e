"""What torch.compile's Inductor makes of the gated ELU for a GPU, generated and compiled without one: peer.json's source.

    python kernels/peer.py --out kernels/edgeconnect_kernels/peer.json

Inductor is told of a GPU by patching private functions of torch, those of 2.13: hence a script of its own, optional and not
part of the tests. From there on everything is Inductor's own: its partition of forward and backward, its passes, its
choice of block sizes. Where it would time several (XBLOCK, num_warps), the best of them is the peer: the fewest instructions
per element among those without spills.
"""

import argparse
import copy
import json
import math
import os
import re
import sys
import tempfile
import types
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from importlib import util
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton
from edgeconnect_kernels import report
from functorch.compile import make_boxed_func
from torch import Tensor
from torch.nn.functional import elu
from triton.backends.compiler import GPUTarget

SIZE = (8, 64, 256, 256)  # of y; Inductor's choices depend on it
TARGETS = (80, 90, 100)
PASSES = {"inference": "inference", "fw": "forward", "bw": "backward"}  # aot_function's word for it, and ours


def gated_elu(x: Tensor) -> Tensor:
    gate, feature = x.chunk(2, 1)
    return torch.sigmoid(gate) * elu(feature)


def gated_elu_with_bias(x: Tensor, bias: Tensor) -> Tensor:
    return gated_elu(x + bias.view(1, -1, 1, 1))


class Properties(NamedTuple):
    """Of an imagined GPU, as far as Inductor asks. The H100's; between targets only the capability changes."""

    major: int
    minor: int
    name: str = "imagined"
    total_memory: int = 80 * 2**30
    multi_processor_count: int = 132
    max_threads_per_multi_processor: int = 2048
    max_threads_per_block: int = 1024
    warp_size: int = 32
    regs_per_multiprocessor: int = 65536
    shared_memory_per_block: int = 49152
    shared_memory_per_block_optin: int = 232448
    shared_memory_per_multiprocessor: int = 233472
    L2_cache_size: int = 50 * 2**20
    gcnArchName: str = ""


def imagine_gpu(target: int) -> None:
    """Make torch and Triton believe that there is a GPU of this compute capability. It must not be asked to compute."""
    import torch._subclasses.fake_tensor as fake_tensor
    import torch.utils._triton as torch_triton
    from torch._dynamo import device_interface
    from torch._inductor.fx_passes import joint_graph
    from torch._inductor.runtime import triton_helpers

    found = Properties(*divmod(target, 10))
    interface = device_interface.CudaInterface
    answers = {
        "is_available": True, "current_device": 0, "device_count": 1, "get_device_properties": found, "synchronize": None,
        "get_device_name": found.name, "get_device_capability": (found.major, found.minor), "is_bf16_supported": True,
        "get_rng_state": torch.zeros(16, dtype=torch.uint8), "set_rng_state": None, "_exchange_device": 0,
        "_maybe_exchange_device": 0, "_lazy_init": None, "init": None, "get_compute_capability": target,
        "get_raw_stream": 0, "is_triton_capable": True, "raise_if_triton_unavailable": None,
    }  # fmt: skip
    for name, answer in answers.items():
        for owner in (torch.cuda, interface, interface.Worker):
            if hasattr(owner, name):
                setattr(owner, name, _always(answer) if owner is torch.cuda else staticmethod(_always(answer)))
    torch.version.cuda = "12.9"
    triton_helpers.set_driver_to_gpu = _always(None)  # the one below stands
    fake_tensor.init_gpu_context = _always(None)
    joint_graph.lazy_init = _always(None)  # patterns of attention and the like, traced on the GPU; none is in here
    torch_triton.has_triton = torch_triton.has_triton_package = _always(True)
    for name, module in list(sys.modules.items()):
        if name.startswith("torch.") and "has_triton" in vars(module):
            vars(module)["has_triton"] = _always(True)  # imported by name
    for device in ("cuda", "cuda:0"):
        device_interface.register_interface_for_device(device, interface)
    driver: Any = types.SimpleNamespace(
        get_current_target=_always(GPUTarget("cuda", target, 32)),
        get_current_device=_always(0),
        get_current_stream=_always(0),
        get_active_torch_device=_always(torch.device("cuda", 0)),
        is_active=_always(True),
    )
    triton.runtime.driver.set_active(driver)


def _always(answer: Any) -> Callable:
    return lambda *args, **options: answer


def inductor_code(
    function: Callable, *shapes: tuple[int, ...], dtype: torch.dtype, channels_last: bool
) -> dict[str, str]:
    """The Python that Inductor writes for CUDA tensors, by pass: inference, forward (in training), backward.

    The first tensor alone is channels_last and needs a gradient: a bias's is a sum over dx, no part of our kernels either.
    Autograd traces and splits the graph on the CPU, since a torch without CUDA refuses gradients on one; graphs name no
    device, and Inductor gets them with CUDA tensors.
    """
    from torch._functorch.aot_autograd import aot_function
    from torch._functorch.partitioners import min_cut_rematerialization_partition
    from torch._inductor import compile_fx, utils
    from torch._inductor.decomposition import select_decomp_table
    from torch._inductor.fx_passes import joint_graph
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.passes.fake_tensor_prop import FakeTensorProp

    fake, traced, code = FakeTensorMode(), {}, {}

    def keep(name: str, graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        if name == "inference":
            joint_graph.joint_graph_passes(graph)
        traced[name] = copy.deepcopy(graph), inputs
        return make_boxed_func(graph.forward)

    def partition(graph: torch.fx.GraphModule, inputs: Any, **options: Any) -> Any:
        joint_graph.joint_graph_passes(graph)
        return min_cut_rematerialization_partition(graph, inputs, compiler="inductor", **options)

    compilers: Any = {f"{key}_compiler": partial(keep, name) for key, name in PASSES.items()}
    with fake:
        for training in (False, True):
            tensors = [torch.empty(shape, dtype=dtype) for shape in shapes]
            if channels_last:
                tensors[0] = tensors[0].contiguous(memory_format=torch.channels_last)
            traceable = aot_function(
                function, partition_fn=partition, decompositions=select_decomp_table(), **compilers
            )
            y = traceable(tensors[0].requires_grad_(training), *tensors[1:])
        y.backward(torch.empty_like(y))  # traced only now
    for name, (graph, inputs) in traced.items():
        with fake:
            on_cuda = [torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device="cuda") for t in inputs]
        FakeTensorProp(graph, fake).propagate(*on_cuda)
        options = {"is_backward": name == "backward", "is_inference": name == "inference"}
        code[name] = utils.get_code(partial(compile_fx.compile_fx_inner, graph, on_cuda, **options))[0]
    return code


class Kernel(NamedTuple):
    """One generated kernel: its function's source, and what Inductor made of that (a CachingAutotuner)."""

    source: str
    tuner: Any


def kernels_of(code: str, folder: Path) -> list[Kernel]:
    """Load the kernels of generated code."""
    found = []
    for name, text in re.findall(r"async_compile\.triton\('(\w+)', '''(.*?)'''", code, re.DOTALL):
        file = folder / f"{name}_{len(list(folder.iterdir()))}.py"
        file.write_text(text)
        spec = util.spec_from_file_location(file.stem, file)
        assert spec and spec.loader
        module = util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found.append(Kernel(text[text.index("def ") :].strip(), getattr(module, name)))
    return found


def best_figures(kernel: Kernel, target: int) -> dict[str, Any]:
    """The figures of the cheapest of Inductor's own configurations, and the instructions per element of every one."""
    meta, made = kernel.tuner.triton_meta, []
    points = math.prod(int(n) for n in re.findall(r"[xyz]numel = (\d+)", kernel.source))
    aligned = [kernel.tuner.fn.arg_names[i] for (i,) in meta["configs"][0]]
    signature = {name: kind for name, kind in meta["signature"].items() if kind != "constexpr"}
    for config in kernel.tuner.configs:
        elements = math.prod(SIZE) * math.prod(config.kwargs.values()) // points  # a program's, of y
        constants = meta["constants"] | config.kwargs
        compiled = report.compile_kernel(
            kernel.tuner.fn, signature, constants, elements, target, config.num_warps, aligned
        )
        made.append(asdict(compiled.figures) | config.kwargs | {"num_warps": config.num_warps})
    best = min(made, key=lambda figures: (figures["spills"], figures["instructions_per_element"]))
    names = ("XBLOCK", "YBLOCK", "num_warps", "instructions_per_element")
    return best | {"tried": [{name: figures[name] for name in names if name in figures} for figures in made]}


def measure(target: int) -> dict[str, Any]:
    """Every pass, dtype and layout, without and with bias, for one target."""
    imagine_gpu(target)
    n, c, h, w = SIZE
    kernels, sources = [], {}
    for dtype, layout, bias in product(report.POINTERS, report.LAYOUTS, (False, True)):
        shapes = ((n, 2 * c, h, w), (2 * c,))[: 1 + bias]
        function = gated_elu_with_bias if bias else gated_elu
        code = inductor_code(function, *shapes, dtype=getattr(torch, dtype), channels_last=layout == "channels_last")
        with tempfile.TemporaryDirectory() as folder:
            made = {name: kernels_of(text, Path(folder)) for name, text in code.items()}
        if any(len(found) != 1 for found in made.values()) or _body(made["inference"]) != _body(made["forward"]):
            raise RuntimeError("wanted one kernel a pass, and in training the forward kernel of inference")
        for name in ("forward", "backward"):
            what = {"kernel": name, "dtype": dtype, "target": target, "layout": layout, "bias": bias}
            kernels.append(what | best_figures(made[name][0], target))
            print(*what.values(), kernels[-1]["instructions_per_element"], file=sys.stderr)
            if dtype == "bfloat16" and not bias:
                sources[f"{name}, {layout}"] = made[name][0].source
    return {"kernels": kernels, "sources": sources}


def _body(kernels: list[Kernel]) -> str:
    """Without the function's name, which tells of the graph that it came from."""
    return kernels[0].source.partition("(")[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--targets", type=int, nargs="+", default=TARGETS)
    arguments = parser.parse_args()
    os.environ |= {"TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    clean = ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1)  # Inductor keeps what it knows of a GPU
    results = list(clean.map(measure, arguments.targets))
    head = {
        "command": "python kernels/peer.py --out kernels/edgeconnect_kernels/peer.json",
        "torch": torch.__version__.split("+")[0],
        "triton": triton.__version__,
        "size": SIZE,
        "chosen": "the fewest instructions per element of the configurations that Inductor would time",
        "sources": results[0]["sources"],
    }
    lines = ",\n  ".join(json.dumps(kernel) for result in results for kernel in result["kernels"])
    text = json.dumps(head, indent=1).removesuffix("\n}") + ',\n "kernels": [\n  ' + lines + "\n ]\n}\n"
    arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
