"""Export: both generators as ONNX files, for onnxruntime and other programs without torch, and as torch.export programs.

Batch, height and width stay free (free_sizes.py). The gated activation becomes sigmoid, ELU and a product: within torch.export
edgeconnect_kernels.gated_elu gives plain operations. Needs the extra `export`: onnx, onnxscript, onnxruntime.

    edgeconnect-lite export --out DIR
"""

import contextlib
import hashlib
import importlib.util
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from edgeconnect_lite import free_sizes
from edgeconnect_lite.canny import thin
from edgeconnect_lite.generators import EdgeGenerator, ImageGenerator
from edgeconnect_lite.photos import write_bytes
from edgeconnect_lite.weights import WEIGHT_FILES, load_network, weights_folder

OPSET = 18
TOLERANCE = 1e-4  # of probabilities and painted photos in [0, 1], against torch
STRAY = 0.005  # share of values that may lie beyond it: stage 1 rounds to whole gray levels as Canny does, and a sum half way
# between two may be rounded otherwise
NEEDS = ("onnx", "onnxscript", "onnxruntime")


class CannotExport(RuntimeError):
    """What the export needs is not installed, or the exported network is not the network; the message says what to do."""


class EdgeStage(nn.Module):
    """Stage 1: gray, known_edges, mask, each (N, 1, H, W) -> the thinned probability of an edge, and the logits under it."""

    def __init__(self, generator: EdgeGenerator):
        super().__init__()
        self.generator = generator

    def forward(self, gray: Tensor, known_edges: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.generator(torch.cat([gray * (1 - mask), known_edges, mask], dim=1)).logits
        return thin(torch.sigmoid(logits)), logits


class ImageStage(nn.Module):
    """Stage 2: photo (N, 3, H, W), edges and mask (N, 1, H, W) -> the painted photo (N, 3, H, W)."""

    def __init__(self, generator: ImageGenerator):
        super().__init__()
        self.generator = generator

    def forward(self, photo: Tensor, edges: Tensor, mask: Tensor) -> Tensor:
        return self.generator(torch.cat([photo * (1 - mask), edges, mask], dim=1))


class Stage(NamedTuple):
    """What an exported file is called, holds, takes and gives."""

    name: str  # of the folder of weights, and of the file
    kind: type[nn.Module]
    wrapper: type[nn.Module]
    inputs: dict[str, str]
    outputs: dict[str, str]


MASK = "(N, 1, H, W) float32, 1 = hole, 0 = known; what the other inputs hold in the hole does not matter"
STAGES = (
    Stage(
        "edge_generator", EdgeGenerator, EdgeStage,
        {"gray": "(N, 1, H, W) float32 in [0, 1]",
         "known_edges": "(N, 1, H, W) float32, 1 = Canny edge of the known part, none within 2 px of the hole", "mask": MASK},
        {"probability": "(N, 1, H, W) in [0, 1], thinned to lines; an edge is above 0.5, and counts within 2 px of the hole",
         "logits": "(N, 1, H, W), before the sigmoid and the thinning"},
    ),
    Stage(
        "image_generator", ImageGenerator, ImageStage,
        {"photo": "(N, 3, H, W) float32 RGB in [0, 1]", "edges": "(N, 1, H, W) float32, 1 = edge, the whole map", "mask": MASK},
        {"painted": "(N, 3, H, W) RGB in [0, 1], known pixels painted too: put it into the hole alone"},
    ),
)  # fmt: skip


def export_onnx(out: str | Path, weights: str | Path | None = None) -> list[str]:
    """Write out/edge_generator.onnx and out/image_generator.onnx, both checked against torch first; returns what to say.

    weights: as for Inpainter.from_pretrained. Each file is written whole or not at all, and none if one fails its check.
    Raises CannotExport, BadWeights, OSError.
    """
    check_installed()
    folder, made = weights_folder(weights), []
    for stage in STAGES:
        network = load_network(folder / stage.name, stage.kind).eval()
        data = with_metadata(to_onnx(stage, to_program(stage, network)), stage, folder / stage.name)
        made.append((Path(out) / f"{stage.name}.onnx", data, check_parity(stage, network, data)))
    Path(out).mkdir(parents=True, exist_ok=True)
    for path, data, _ in made:
        write_bytes(path, data)
    return [
        f"wrote {path}: {len(data) / 1e6:.1f} MB, opset {OPSET}; {1 - stray:.1%} of values within {TOLERANCE:g} of torch"
        for path, data, stray in made
    ]


def check_installed() -> None:
    """Raises CannotExport with the command that installs what is missing."""
    missing = [name for name in NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise CannotExport(
            f"export needs {', '.join(missing)}; install the extra: pip install 'edgeconnect-lite[export]'"
        )


def to_program(stage: Stage, network: nn.Module) -> ExportedProgram:
    """The stage as a torch.export program of plain ATen operations, for any batch and sides of 16 to 1,024 px."""
    wrapped = stage.wrapper(network).requires_grad_(False).eval()
    free: dict[int, Any] = {0: Dim("batch", min=1)}
    free |= {
        dim: Dim(name, min=free_sizes.SMALLEST, max=free_sizes.LARGEST) for dim, name in ((2, "height"), (3, "width"))
    }
    example = random_inputs(stage, 2, 72, 104)  # neither square nor small: no size is taken for another, or for 1
    with torch.no_grad(), free_sizes.sizes_as_tensors(), quiet():
        return torch.export.export(
            wrapped, tuple(example.values()), dynamic_shapes=tuple(free for _ in example),
            prefer_deferred_runtime_asserts_over_guards=True,  # true for every size, but not proven so
        )  # fmt: skip


def to_onnx(stage: Stage, program: ExportedProgram) -> Any:
    """An onnx.ModelProto."""
    with quiet():
        made = torch.onnx.export(
            program, dynamo=True, opset_version=OPSET, verbose=False,
            input_names=list(stage.inputs), output_names=list(stage.outputs),
        )  # fmt: skip
    assert made is not None
    return made.model_proto


def with_metadata(model: Any, stage: Stage, weights: Path) -> bytes:
    """The file's bytes: what it takes and gives and which weights it holds added, the exporter's notes (paths) taken out."""
    from onnx.helper import set_model_props

    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    digest = hashlib.sha256((weights / WEIGHT_FILES[1]).read_bytes()).hexdigest()
    about = {
        "inputs": stage.inputs,
        "outputs": stage.outputs,
        "sides_px": [free_sizes.SMALLEST, free_sizes.LARGEST],
        "tolerance": [TOLERANCE, STRAY],
    }
    config = json.loads((weights / WEIGHT_FILES[0]).read_text("utf-8"))
    set_model_props(
        model,
        {name: json.dumps(value) for name, value in about.items()}
        | {"network": stage.kind.__name__, "config": json.dumps(config), "weights_sha256": digest},
    )
    return model.SerializeToString()


def check_parity(stage: Stage, network: nn.Module, model: bytes) -> float:
    """The share of the first output's values (of all channels) that in onnxruntime lie beyond TOLERANCE of torch's.

    Raises CannotExport where that is more than STRAY.
    """
    import onnxruntime

    session, worst = onnxruntime.InferenceSession(model), 0.0
    for shape in ((1, 128, 128), (2, 61, 99)):
        given = random_inputs(stage, *shape)
        with torch.inference_mode():
            wanted = stage.wrapper(network)(*given.values())
        wanted = wanted[0] if isinstance(wanted, tuple) else wanted
        (got,) = session.run([next(iter(stage.outputs))], {name: value.numpy() for name, value in given.items()})
        worst = max(worst, float((~(np.abs(got - wanted.numpy()) <= TOLERANCE)).mean()))
    if worst > STRAY:
        raise CannotExport(
            f"{stage.name} in onnxruntime: {worst:.2%} of the values lie more than {TOLERANCE:g} beside torch's; "
            f"wanted at most {STRAY:.1%}"
        )
    return worst


def random_inputs(stage: Stage, n: int, height: int, width: int, seed: int = 0) -> dict[str, Tensor]:
    """Inputs of the right names and ranges: a smooth random picture, a box as the hole, a few edges outside it."""
    rng = torch.Generator().manual_seed(seed)
    picture = F.interpolate(torch.rand(n, 3, 6, 6, generator=rng), (height, width), mode="bicubic").clamp(0, 1)
    mask = torch.zeros(n, 1, height, width)
    mask[:, :, height // 4 : height // 2, width // 3 : width // 2 + 3] = 1
    edges = (torch.rand(n, 1, height, width, generator=rng) > 0.95).float() * (1 - mask)
    given = {
        "gray": picture.mean(1, keepdim=True),
        "photo": picture,
        "known_edges": edges,
        "edges": edges,
        "mask": mask,
    }
    return {name: given[name] for name in stage.inputs}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the exporter's remarks on torchvision, which is not wanted, and on its own deprecated calls."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        logger.setLevel(level)
