"""Checking: what every checker needs. It calls the learner's function on small inputs of its own and says what is wrong."""

import numpy as np
import torch

from edgeconnect_lite import masks, photos


class WrongAnswer(AssertionError):
    """An exercise's function gave something else than was wanted; the message says what."""

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows: the message alone. A traceback through the checker would bury it."""
        return [f"not right yet: {self}"]


def say(attempted: bool) -> None:
    """The two things that a checker prints; a wrong answer is raised instead."""
    print("correct" if attempted else "not attempted yet")


def require(holds: bool, message: str) -> None:
    """Raise WrongAnswer(message) unless it holds."""
    if not holds:
        raise WrongAnswer(message)


def require_array(answer: object, shape: tuple[int, ...], dtype: np.dtype | type) -> None:
    """The answer is a NumPy array of this shape and dtype."""
    came = f"{answer.dtype} {answer.shape}" if isinstance(answer, np.ndarray) else type(answer).__name__
    wanted = f"{np.dtype(dtype)} {shape}"
    require(came == wanted, f"came: {came}; wanted: an array {wanted}")


def require_tensor(answer: object, shape: tuple[int, ...]) -> None:
    """The answer is a float32 torch tensor of this shape."""
    came = f"{answer.dtype} {tuple(answer.shape)}" if isinstance(answer, torch.Tensor) else type(answer).__name__
    wanted = f"{torch.float32} {tuple(shape)}"
    require(came == wanted, f"came: {came}; wanted: a tensor {wanted}")


def close(answer: torch.Tensor, wanted: torch.Tensor | float) -> bool:
    """Equal up to the rounding of another order of operations."""
    return bool(torch.allclose(answer, torch.as_tensor(wanted, dtype=answer.dtype), rtol=1e-4, atol=1e-6))


def face_and_mask(number: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """A test face, uint8 (128, 128, 3), and a hole of 20 to 30 %, bool (128, 128)."""
    return photos.FacePhotos("test")[number], masks.stroke_mask(np.random.default_rng(number), ratio=(0.2, 0.3))
