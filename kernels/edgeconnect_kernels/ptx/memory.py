"""The GPU's memory as the PTX executor sees it: windows over the caller's arrays, and nothing between them.

Used by __init__.py. Checks bounds, alignment (PTX ISA, "Alignment": an access to a multiple of its size), write permission,
and keeps for each byte whether it has a value.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch

from edgeconnect_kernels.ptx.numbers import Array


class PTXError(RuntimeError):
    """The program did something wrong: where (instruction, program, thread) and what."""


class Fault(Exception):
    """What went wrong, and in which of the lanes at hand; the executor makes a PTXError of it."""


class _Window(NamedTuple):
    start: int
    bytes: Array
    written: Array | None  # which bytes have a value; None: all
    writable: bool
    name: str


def _bytes_of(array: np.ndarray | torch.Tensor) -> Array:
    """The array's own memory as uint8 (bytes,), for any order of dimensions without gaps."""
    strides = array.stride() if isinstance(array, torch.Tensor) else array.strides
    order = sorted(range(array.ndim), key=lambda i: -strides[i])
    if isinstance(array, torch.Tensor):
        flat = array.detach().permute(order)
        if flat.device.type == "cpu" and flat.is_contiguous():
            return flat.reshape(-1).view(torch.uint8).numpy()
    else:
        flat = array.transpose(order)
        if flat.flags.c_contiguous:
            return flat.reshape(-1).view(np.uint8)
    raise ValueError(f"an array with strides {tuple(strides)}; wanted one in this computer's memory, without gaps")


class Memory:
    """The GPU's memory: windows, each backed by an array. What lies between them does not exist."""

    def __init__(self) -> None:
        self.windows: list[_Window] = []

    def map(
        self,
        address: int | None,
        array: np.ndarray | torch.Tensor,
        writable: bool = True,
        initialised: bool = True,
        name: str = "",
    ) -> int:
        """Let the bytes from `address` on be the array's, which stores change in place. Returns the address.

        array: NumPy or torch on the CPU, any dtype, without gaps. address: anywhere in 64 bits, or None: far from all
        others. initialised: False if a load before the first store is an error. ValueError if windows overlap.
        """
        data = _bytes_of(array)
        if address is None:
            address = (max((w.start + w.bytes.size for w in self.windows), default=0) // 2**40 + 1) * 2**40
        if not 0 <= address <= 2**64 - data.size:
            raise ValueError(f"a window of {data.size} bytes at address {address:#x}; wanted one within 64 bits")
        for other in self.windows:
            if address < other.start + other.bytes.size and other.start < address + data.size:
                raise ValueError(f"a window of {data.size} bytes at {address:#x} overlaps the one at {other.start:#x}")
        name = name or f"the window at {address:#x}"
        name = f"{name} ({str(array.dtype).removeprefix('torch.')} {tuple(array.shape)})"
        written = None if initialised else np.zeros(data.size, bool)
        self.windows.append(_Window(address, data, written, writable and data.flags.writeable, name))
        return address

    def load(self, addresses: Array, size: int) -> tuple[Array, Array]:
        """addresses: uint64 (lanes,). Returns the bytes, uint8 (lanes, size), and which of them have a value, bool."""
        data, written = np.empty((len(addresses), size), np.uint8), np.ones((len(addresses), size), bool)
        for window, lanes, places in self._find(addresses, size, "load"):
            data[lanes] = window.bytes[places]
            if window.written is not None:
                written[lanes] = window.written[places]
        return data, written

    def store(self, addresses: Array, data: Array) -> None:
        """addresses: uint64 (lanes,). data: uint8 (lanes, size)."""
        for window, lanes, places in list(self._find(addresses, data.shape[1], "store")):
            if not window.writable:
                raise Fault(f"store to read-only {window.name}", np.flatnonzero(lanes)[0])
            window.bytes[places] = data[lanes]
            if window.written is not None:
                window.written[places] = True

    def _find(self, addresses: Array, size: int, what: str) -> Iterable[tuple[_Window, Array, Array]]:
        """For each window that is met: (it, which lanes meet it, (those lanes, size) places in its bytes)."""
        if (misaligned := addresses % np.uint64(size) != 0).any():
            lane = np.flatnonzero(misaligned)[0]
            raise Fault(f"misaligned {what} of {size} bytes at {addresses[lane]:#x}, not a multiple of {size}", lane)
        lost, met = np.ones(len(addresses), bool), []
        for window in self.windows:
            offsets = addresses - np.uint64(window.start)  # an address before the window wraps round to a huge offset
            if window.bytes.size >= size and (inside := offsets <= np.uint64(window.bytes.size - size)).any():
                met.append((window, inside, offsets[inside].astype(np.int64)[:, None] + np.arange(size)))
                lost &= ~inside
        if lost.any():
            lane = np.flatnonzero(lost)[0]
            raise Fault(f"{what} of {size} bytes out of bounds at {self._describe(int(addresses[lane]), size)}", lane)
        return met

    def _describe(self, address: int, size: int) -> str:
        distances = [(max(w.start - address, address + size - w.start - w.bytes.size), w) for w in self.windows]
        if not distances:
            return f"{address:#x}: nothing is mapped"
        distance, window = min(distances, key=lambda pair: pair[0])
        return (
            f"{address:#x}: {distance} bytes {'before' if address < window.start else 'past the end of'} {window.name}"
        )
