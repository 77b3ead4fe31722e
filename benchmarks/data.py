"""How many samples a second one core makes: decode, mask, edges, assembly, at 128 px. Goal: 1,000.

Prints each part's share of the time, all measured in one run:

    python benchmarks/data.py [--samples 2000]
"""

import argparse
import time

import cv2
import numpy as np
import torch

from edgeconnect_lite import FacePhotos, RandomMasks, Samples
from edgeconnect_lite.samples import jitter_colours, make_sample


def seconds(work, count: int) -> float:
    """The time of `count` calls work(i), after a tenth as many to warm up."""
    for i in range(count // 10):
        work(i)
    start = time.perf_counter()
    for i in range(count):
        work(i)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=2000)
    count = parser.parse_args().samples
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    faces, masks = FacePhotos("train"), RandomMasks("strokes")
    photo, mask, rng = faces[0], masks.draw(np.random.default_rng(0)), np.random.default_rng(0)
    stream = Samples(faces, masks)
    whole = seconds(stream.__getitem__, count)
    print(f"{count / whole:.0f} samples a second on one core ({1e3 * whole / count:.2f} ms each)")
    parts = {
        "decode a photo": lambda i: faces[i % len(faces)],
        "draw a mask": lambda i: masks.draw(np.random.default_rng(i)),
        "jitter colours": lambda i: jitter_colours(photo, rng, 0.15),
        "edges and assembly": lambda i: make_sample(photo, mask),
    }
    for name, work in parts.items():
        print(f"  {name:<20} {seconds(work, count) / whole:4.0%} of it")


if __name__ == "__main__":
    main()
