"""How fast a kernel can be on a known GPU at the best: the roofline. Modelled from published figures, not measured.

Williams et al., "Roofline", CACM 2009. report.py counts what it needs: bytes, instructions and special functions.
"""

from dataclasses import dataclass

ELEMENTS = 8 * 64 * 256 * 256  # of y, where a size is needed: modelled times, Inductor's choices (peer.json)


@dataclass(frozen=True)
class GPU:
    """Published figures. bandwidth: bytes/s. sms: multiprocessors. clock: Hz, boost."""

    target: int
    bandwidth: float
    sms: int
    clock: float
    source: str


ISSUED = 4 * 32  # threads that a multiprocessor issues an instruction for in a cycle: 4 schedulers, a warp each
MUFU = 16  # results in a cycle; CUDA C++ Programming Guide, "Throughput of Native Arithmetic Instructions"
FROM_FLOPS = "datasheet; clock from its float32 rate, sms * 128 * 2 * clock"
GPUS = {
    "T4": GPU(75, 320e9, 40, 1.590e9, "Turing whitepaper"),
    "A100 SXM 80 GB": GPU(80, 2039e9, 108, 1.410e9, "A100 datasheet and whitepaper"),
    "RTX 3090": GPU(86, 936e9, 82, 1.695e9, "GA102 whitepaper"),
    "RTX 4090": GPU(89, 1008e9, 128, 2.520e9, "Ada whitepaper"),
    "H100 SXM": GPU(90, 3350e9, 132, 1.98e9, f"H100 {FROM_FLOPS}: 67e12/s"),
    "H200 SXM": GPU(90, 4800e9, 132, 1.98e9, f"H200 {FROM_FLOPS}: 67e12/s"),
    "B200 SXM": GPU(100, 8000e9, 148, 1.98e9, f"HGX B200 {FROM_FLOPS}: 75e12/s"),
    "RTX 5090": GPU(120, 1792e9, 170, 2.407e9, "RTX Blackwell whitepaper"),
}
FORMULA = (
    "modelled, not measured: seconds = max(elements * bytes / bandwidth, elements * instructions / (sms * clock * "
    f"{ISSUED}), elements * MUFU / (sms * clock * {MUFU}))"
)


def roofline(
    moved: float, instructions: float, mufu: float, gpu: GPU, elements: int = ELEMENTS
) -> dict[str, float | str]:
    """The modelled time: {"seconds", "bound", "memory", "issue", "mufu"}, seconds being the largest of the last three.

    moved (bytes), instructions, mufu: per element. It is a floor, not a forecast: every unit at its published rate all the
    time, and none narrower than these (float32 arithmetic is on some: 64 lanes of 128 threads' on the T4 and the A100).
    """
    cycles = gpu.sms * gpu.clock
    times = {
        "memory": elements * moved / gpu.bandwidth,
        "issue": elements * instructions / (cycles * ISSUED),
        "mufu": elements * mufu / (cycles * MUFU),
    }
    bound = max(times, key=lambda unit: times[unit])
    return {"seconds": times[bound], "bound": bound, **times}
