"""Edge-guided inpainting of faces in two stages: complete the edges of the hole, then paint the photo from them.

Read the modules in the order of the data: trees, zips, listing, photos, data_sets, masks, parallel, prepare, edges, samples,
layers, canny, generators, dilated, discriminators, weights, features, attributes, losses, optimizers, run_parts,
checkpoints, runs, steps, training, large, inpainting, free_sizes, export, metrics, figures, explore, editor, evaluation,
evaluation_report, exercises, marks, cli. Nothing happens at import: the first name that needs torch loads it.
"""

from importlib import import_module

__version__ = "0.1.0"

_HOMES = {
    "photos": ("FacePhotos", "PhotoFolder", "BadPhoto", "read_photo", "as_photo"),
    "data_sets": ("CelebA", "CelebAHQ", "FFHQ", "Places365"),
    "masks": ("RandomMasks", "MaskFolder", "BadMask", "read_mask", "as_mask", "stroke_mask", "brush_mask", "box_mask"),
    "edges": ("to_gray", "true_edges", "known_edges", "merge_edges"),
    "samples": ("Sample", "Samples", "batches", "edge_stage_input", "image_stage_input", "noised_edges"),
    "layers": ("GatedConv2d", "ResidualBlock"),
    "generators": ("UNet", "EdgeGenerator", "ImageGenerator"),
    "discriminators": ("PatchDiscriminator",),
    "features": ("VGG19Features", "FaceFeatures"),
    "weights": ("BadWeights",),
    "inpainting": ("Inpainter", "composite"),
    "editor": ("EdgeEditor", "CropTool"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}
__all__ = ["__version__", *_HOME_OF]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str):
    if name in _HOME_OF:
        return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME_OF])
