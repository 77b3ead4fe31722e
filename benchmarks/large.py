"""How good larger photos become: Telea, the networks at full size, at their own size with the result enlarged, coarse to fine.

    python benchmarks/large.py --photos DIR [--size 256] [--limit 8] [--megapixels 12] [--machine TEXT] [--json FILE]

DIR holds photos larger than the networks know (the stored figures: test scenes at 256 px). Each kind of hole covers 10 to 30 %
of the picture. PSNR is on the hole; by depth: of hole pixels up to 4, 8, 16 px from the border and beyond. features: the mean
difference of the shipped face features, over the whole picture. Before that one photo of so many megapixels, with a hole of
2/5 of its width and full height: CPU seconds, and the peak of the process's memory, GB.
"""

import argparse
import resource
import time
from collections.abc import Callable
from pathlib import Path

import command
import cv2
import numpy as np
import torch

from edgeconnect_lite.features import load_face_features
from edgeconnect_lite.inpainting import Inpainter, composite
from edgeconnect_lite.large import depth, octaves, shrink
from edgeconnect_lite.masks import KINDS
from edgeconnect_lite.metrics import hole_psnr, telea
from edgeconnect_lite.photos import PhotoFolder
from edgeconnect_lite.samples import to_tensor

DEPTHS = (0, 4, 8, 16, np.inf)


def enlarged(inpainter: Inpainter, photo: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """What the networks paint at their own size, enlarged into the hole."""
    small = inpainter(*shrink(photo, mask, octaves(mask.shape, inpainter.size)[0]))
    return composite(photo, cv2.resize(small, photo.shape[1::-1], interpolation=cv2.INTER_LINEAR), mask)


def compare(inpainter: Inpainter, photos: list[np.ndarray], kind: str) -> dict[str, dict]:
    """[method]: the mean figures over the photos, each with a hole of its own."""
    size = len(photos[0])
    full = Inpainter(inpainter.edge_generator, inpainter.image_generator, inpainter.device, size)
    methods: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
        "telea": telea,
        "full size": full,
        "enlarged": lambda photo, mask: enlarged(inpainter, photo, mask),
        "coarse to fine": inpainter,
    }
    features, rows = load_face_features().eval(), {}
    for name, method in methods.items():
        figures = {"psnr": [], "features": []}
        squares, counts = np.zeros(len(DEPTHS) - 1), np.zeros(len(DEPTHS) - 1)
        for i, photo in enumerate(photos):
            mask = KINDS[kind](np.random.default_rng([i, size]), size, (0.1, 0.3))
            result = method(photo, mask)
            figures["psnr"].append(hole_psnr(result, photo, mask))
            with torch.inference_mode():
                seen, wanted = (features(to_tensor(x)[None]) for x in (result, photo))
            figures["features"].append(sum((a - b).abs().mean().item() for a, b in zip(seen, wanted)))
            far, error = depth(mask)[mask], ((result[mask].astype(float) - photo[mask]) ** 2).mean(1)
            squares += np.histogram(far, DEPTHS, weights=error)[0]
            counts += np.histogram(far, DEPTHS)[0]
        by_depth = 10 * np.log10(np.maximum(255**2 * counts, 1e-9) / np.maximum(squares, 1e-9))
        rows[name] = {key: round(float(np.mean(value)), 4) for key, value in figures.items()}
        rows[name]["psnr_by_depth"] = [round(float(x), 2) if count else None for x, count in zip(by_depth, counts)]
    return rows


def cost(inpainter: Inpainter, photo: np.ndarray, megapixels: float) -> dict[str, float]:
    """CPU seconds and the process's peak memory for one large photo with a hole of full height."""
    height = round(1000 * (3 / 4 * megapixels) ** 0.5)
    photo = cv2.resize(photo, (round(4 / 3 * height), height), interpolation=cv2.INTER_CUBIC)
    mask = np.zeros(photo.shape[:2], bool)
    mask[:, photo.shape[1] // 4 : photo.shape[1] * 13 // 20] = True
    start = time.process_time()
    result = inpainter(photo, mask)
    if not np.array_equal(result[~mask], photo[~mask]):
        raise RuntimeError("a known pixel was changed")
    seconds, peak = time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"megapixels": megapixels, "hole": 0.4, "cpu_seconds": round(seconds, 1), "peak_gb": round(peak, 2)}


def measure(options: argparse.Namespace) -> dict:
    """All figures."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    inpainter = Inpainter.from_pretrained(device="cpu")
    folder = PhotoFolder(options.photos, options.size)
    photos = [folder[i] for i in np.linspace(0, len(folder) - 1, options.limit).astype(int)]
    figures = {"machine": options.machine, "photos": len(photos), "size": options.size, "depths": [4, 8, 16, None]}
    figures["cost"] = cost(inpainter, photos[0], options.megapixels)  # first: the peak is its own
    figures["holes"] = {kind: compare(inpainter, photos, kind) for kind in KINDS}
    return figures


def report(figures: dict) -> str:
    """A line for each kind of hole and method."""
    lines = [f"{key} {value}" for key, value in figures["cost"].items()]
    for kind, rows in figures["holes"].items():
        for name, row in rows.items():
            far = "  ".join("    -" if x is None else f"{x:5.2f}" for x in row["psnr_by_depth"])
            lines.append(f"{kind:8} {name:15} {row['psnr']:5.2f} dB  features {row['features']:.4f}  by depth {far}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--size", type=int, default=256, help="px of the photos")
    parser.add_argument("--limit", type=int, default=8, help="how many of them")
    parser.add_argument("--megapixels", type=float, default=12)
    command.add_output(parser)
    command.run("large.py", arguments, parser.parse_args(arguments), measure, report)


if __name__ == "__main__":
    main()
