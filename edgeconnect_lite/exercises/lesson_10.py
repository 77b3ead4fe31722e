"""Checkers of lesson 10: which part of a mask is the hole, a split by person, one exact step of several processes."""

import copy
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from edgeconnect_lite.exercises.checking import WrongAnswer, close, require, require_tensor, say


def _files(shares: tuple[float, ...], dark: int = 0, bright: int = 255) -> list[np.ndarray]:
    """Mask files of 20 x 30 px, one for each share of dark pixels."""
    return [np.where(np.arange(600).reshape(20, 30) < 600 * share, dark, bright).astype(np.uint8) for share in shares]


def check_black_is_hole(black_is_hole: Callable) -> None:
    """Lesson 10, easy. black_is_hole(pictures, a list of uint8 (H, W)) -> True or False; split at 128, the median decides."""
    holes, full = (0.1, 0.2, 0.3, 0.4, 0.15), (0.97, 0.98, 0.99)
    turned = lambda shares: tuple(1 - share for share in shares)  # noqa: E731
    cases = [
        (_files(holes), True, "black strokes on white"),
        (_files(turned(holes)), False, "white strokes on black"),
        (_files(holes + full), True, "black strokes, and three files that are nearly all black"),
        (_files(turned(holes + full)), False, "white strokes, and three files that are nearly all white"),
        (_files(full[:1] + holes), True, "black strokes, behind a file that is nearly all black"),
        (_files(holes, 60, 230), True, "black strokes from lossy files, 60 on 230"),
        (_files(turned(holes), 60, 230), False, "white strokes from lossy files, 230 on 60"),
        (_files((0.6, 0.7, 0.65), 115, 255), False, "white strokes on a dark gray, 255 on 115"),
    ]
    answers = [black_is_hole(copy.deepcopy(pictures)) for pictures, _, _ in cases]
    if answers[0] is None:
        return say(False)
    for answer in answers:
        require(
            isinstance(answer, bool | np.bool_), f"came: {type(answer).__name__} {answer!s:.40}; wanted: True or False"
        )
    came, wanted = [bool(answer) for answer in answers], [right for _, right, _ in cases]
    require(came != [not x for x in wanted], "the wrong way round: True if the smaller part is black")
    usual = {
        "the mean over the files, which a few full ones move: take the median": _by(cases, lambda x: np.mean(x) < 0.5),
        "the first file alone was asked: take the median of all": _by(cases, lambda x: x[0] < 0.5),
        "one file of the kind is enough for it: take the median": _by(cases, lambda x: min(x) < 0.5),
        "only 0 counts as black; lossy files hold grays: split at 128": [
            np.median([(p == 0).mean() for p in pictures]) < 0.5 for pictures, _, _ in cases
        ],
        "the mean gray is not the share of black: count the pixels below 128": [
            np.median([p.mean() for p in pictures]) > 127.5 for pictures, _, _ in cases
        ],
    }
    for message, other in usual.items():
        if came == [bool(x) for x in other]:
            raise WrongAnswer(message)
    for (_, right, name), answer in zip(cases, came):
        require(answer == right, f"{name}: came: {answer}; wanted: {right}")
    say(True)


def _by(cases: list, decide: Callable) -> list[bool]:
    return [decide([(picture < 128).mean() for picture in pictures]) for pictures, _, _ in cases]


def check_split_by_person(split_by_person: Callable) -> None:
    """Lesson 10, medium. split_by_person(people, count, rng) -> (train, kept back): photo numbers, nobody in both."""
    sizes = {"Ada": 12, "Ben": 1, "Cem": 6, "Dora": 1, "Eva": 4, "Fu": 2, "Gita": 9, "Hal": 1}
    people = [name for name, size in sizes.items() for _ in range(size)]
    people = [people[i] for i in np.random.default_rng(10).permutation(len(people))]
    given = list(people)
    draws = [split_by_person(given, 3, np.random.default_rng(seed)) for seed in (0, 0, *range(1, 12))]
    if draws[0] is None:
        return say(False)
    require(given == people, "the list that was given is another now; wanted: left alone")
    for draw in draws:
        require(isinstance(draw, tuple | list) and len(draw) == 2, f"came: {str(draw)[:60]}; wanted: two lists")
        parts = [list(part) for part in draw]
        require(
            all(isinstance(i, int | np.integer) for part in parts for i in part),
            f"came: {str(parts[1][:3])[:60]} among the kept back; wanted: numbers of photos",
        )
        train, held = ({people[i] for i in part} for part in parts)
        both, every = train & held, sorted(parts[0] + parts[1])
        require(not both, f"{', '.join(sorted(both))}: with photos in both parts; wanted: all of a person's in one")
        if len(train) == 3 and len(held) == 5:
            raise WrongAnswer("the three people drawn are the training photos; wanted: first training, then kept back")
        require(len(held) == 3, f"{len(held)} people are kept back; wanted: 3, each drawn once")
        lost = len(people) - len(set(every))
        require(lost == 0, f"{lost} photos are in neither part; wanted: every photo of a person, in one of the two")
        require(every == list(range(len(people))), "a photo comes twice; wanted: each once")
        require(parts == [sorted(part) for part in parts], "wanted the numbers rising, in the order of the photos")
    kept = [tuple(sorted({people[i] for i in held})) for _, held in draws]
    require(kept[0] == kept[1], "the same rng kept back other people: take every draw from it")
    require(len(set(kept)) > 1, f"every rng kept back {', '.join(kept[0])}: draw them from rng")
    say(True)


class _Watched(nn.Conv2d):
    """A network that writes down how many samples it was given at once."""

    def __init__(self) -> None:
        super().__init__(2, 1, 3)
        self.seen: list[int] = []

    def forward(self, given: Tensor) -> Tensor:
        self.seen.append(len(given))
        return super().forward(given)


def _stepped_after_every_part(start: nn.Module, parts: list) -> Iterator[Tensor]:
    """The weights where the optimizer steps once a part: by its own weights or those of all, gradients cleared or not."""
    total = sum(float(weight.sum()) for _, _, weight in parts)
    for own, clear in ((True, True), (True, False), (False, True), (False, False)):
        network = copy.deepcopy(start)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
        for given, wanted, weight in parts:
            if clear:
                optimizer.zero_grad()
            ((weight * (network(given) - wanted).abs()).sum() / (weight.sum() if own else total)).backward()
            optimizer.step()
        yield network.weight  # type: ignore


def check_whole_step(whole_step: Callable) -> None:
    """Lesson 10, hard. whole_step(network, optimizer, parts) -> the whole loss, after one exact step of the optimizer.

    parts: a list of (given, wanted, weight), one a process, each weighted by its own sum of weights, of all parts together.
    """
    draw = torch.Generator().manual_seed(10)
    network, parts = _Watched(), []
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw))
    for count, hole in ((2, 0.1), (3, 0.5), (1, 0.9)):
        given, wanted = torch.rand(count, 2, 8, 8, generator=draw), torch.rand(count, 1, 6, 6, generator=draw)
        weight = 1 + 9 * (torch.rand(count, 1, 6, 6, generator=draw) < hole).float()
        parts.append((given, wanted, weight))
    sums = torch.stack([(w * (network(x) - y).abs()).sum() for x, y, w in parts])
    weights, counts = torch.stack([w.sum() for _, _, w in parts]), torch.tensor([2.0, 3.0, 1.0])
    each = sums / weights
    whole, mean, total, by_count = sums.sum() / weights.sum(), each.mean(), each.sum(), (counts * each).sum() / 6
    start = copy.deepcopy(network)
    slopes = {
        name: torch.autograd.grad(loss, network.weight, retain_graph=True)[0]
        for name, loss in {"whole": whole, "mean": mean, "total": total, "count": by_count, "last": each[-1]}.items()
    }
    network.weight.grad = torch.full_like(network.weight, 5.0)  # left by an earlier step
    network.seen.clear()
    answer = whole_step(network, torch.optim.SGD(network.parameters(), lr=0.5), copy.deepcopy(parts))
    if answer is None:
        return say(False)
    require_tensor(answer, ())
    require(
        max(network.seen, default=0) <= 3,
        f"the network saw {max(network.seen, default=0)} samples at once; wanted: one part at a time",
    )
    moved = (start.weight - network.weight).detach()
    require(bool(moved.any()), "the network did not move; wanted one step of its optimizer")
    usual = {
        "the mean of the parts' gradients, as several processes take it: a part with larger holes must count more": "mean",
        "each part divided by its own weights, and added: divide by the weights of all": "total",
        "each part counts by its samples: it must count by its weights": "count",
        "the step is that of the last part alone: add up the gradients of all": "last",
    }
    for message, name in usual.items():
        if close(moved, 0.5 * slopes[name]):
            raise WrongAnswer(message)
    if close(moved, 0.5 * (slopes["whole"] + 5.0)):
        raise WrongAnswer("old gradients were added to the new ones; wanted them cleared before the first part")
    if any(close(network.weight, end) for end in _stepped_after_every_part(start, parts)):
        raise WrongAnswer("the optimizer stepped after every part; wanted one step at the end")
    require(close(moved, 0.5 * slopes["whole"]), "the step is not the optimizer's along the whole loss")
    came = f"came: a loss of {answer.item():.4f}; wanted {whole.item():.4f}"
    require(not close(answer, mean.detach()), f"{came}: that is the mean of the parts' losses")
    require(close(answer, whole.detach()), came)
    say(True)
