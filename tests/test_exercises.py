"""The exercises: solutions pass, stubs pass unattempted, and the usual wrong answers each get their own message."""

import linecache
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from edgeconnect_kernels.gated_elu import HAS_TRITON

from edgeconnect_lite import exercises, known_edges, losses, metrics, to_gray, true_edges
from edgeconnect_lite.edges import fill_from_known

SOLUTIONS = Path(__file__).parents[1] / "notebooks" / "solutions"
LESSONS = {
    "00_start_here": {"mask_photo": "mask_photo", "edge_effect": "edge_effect", "redraw": "redraw"},
    "01_photos_masks_edges": {
        "read_quick_draw": "read_quick_draw", "edge_input": "edge_input", "noised": "noised_edges",
    },
    "02_gated_convolution": {
        "gated_activation": "gated_activation", "gated_backward": "gated_backward", "residual_block": "residual_block",
    },
    "03_fused_gated_elu": {
        "bytes_moved": "bytes_moved", "backward_from_yg": "backward_from_yg", "biased_kernel": "fused_bias",
    },
    "04_unet_generators": {
        "padded_size": "padding", "receptive_field": "receptive_field", "step_up": "step_up",
    },
    "05_gan_losses": {
        "hole_error": "hole_error", "my_gram_matrix": "gram_matrix", "discriminator_step": "discriminator_step",
    },
    "06_train_edge_generator": {
        "pooled_recall": "pooled_recall", "best_weight": "best_weight", "thin_lines": "thin_lines",
    },
    "07_train_image_generator": {
        "near_and_far": "near_and_far", "half_drawn": "half_drawn", "judged_step": "judged_step",
    },
    "08_edit_edges": {
        "mirrored": "mirrored", "strokes_held": "strokes_held", "stroke_effects": "stroke_effects",
    },
    "09_measure": {
        "share_above_chance": "share_above_chance", "pooled_f1": "pooled_f1", "paired_interval": "paired_interval",
    },
    "10_your_own_data": {
        "black_is_hole": "black_is_hole", "split_by_person": "split_by_person", "whole_step": "whole_step",
    },
}  # fmt: skip
PAIRS = [(lesson, name, check) for lesson, names in LESSONS.items() for name, check in names.items()]


def checker(name):
    return getattr(exercises, f"check_{name}")


def needs_triton(check):
    if check == "fused_bias" and not HAS_TRITON:
        pytest.skip("Triton is missing")


def test_every_checker_and_every_solution_is_listed():
    assert {check for _, _, check in PAIRS} == {n[6:] for n in vars(exercises) if n.startswith("check_")}
    assert sorted(LESSONS) == sorted(path.stem for path in SOLUTIONS.glob("[0-9]*.py"))


@pytest.mark.parametrize("lesson, name, check", PAIRS)
def test_the_solution_is_correct(lesson, name, check, capsys):
    needs_triton(check)
    checker(check)(runpy.run_path(str(SOLUTIONS / f"{lesson}.py"))[name])
    assert capsys.readouterr().out == "correct\n"


@pytest.mark.parametrize("check", [check for _, _, check in PAIRS])
def test_the_stub_is_not_attempted_yet(check, capsys):
    checker(check)(lambda *arguments: None)
    assert capsys.readouterr().out == "not attempted yet\n"


def _best_f1(q, sort=True):
    """The best expected F1 of drawing the first of these pixels."""
    hits = (q.sort(descending=True).values if sort else q).cumsum(0)
    return (2 * hits / (torch.arange(1, len(q) + 1) + q.sum())).max()


def _thin(p, along=False, highest=torch.maximum, stands=torch.gt, beside=0.8, mode="constant", four=False):
    """p thinned along one direction, or one of the usual mistakes."""
    padded = F.pad(p, (1, 1, 1, 1), mode=mode)
    before, after = ((padded[..., 1:-1, k], padded[..., k, 1:-1]) for k in (slice(None, -2), slice(2, None)))
    (left, above), (right, below) = before, after
    sideways = (2 * p - left - right >= 2 * p - above - below) ^ along
    neighbour = torch.where(sideways, highest(left, right), highest(above, below))
    if four:
        neighbour = highest(highest(left, right), highest(above, below))
    return torch.where(stands(p, neighbour), p, beside * p)


def _gray_of(photo):
    return to_gray(photo) / 255


def _folded(edges, rng):
    """A truncated normal, folded, what lies beyond 0.2 drawn again."""
    noise = np.abs(rng.normal(0, 0.1, edges.shape))
    while (far := noise > 0.2).any():
        noise[far] = np.abs(rng.normal(0, 0.1, far.sum()))
    return np.abs(edges - noise)


def _changes_its_argument(photo, mask):
    photo[mask] = 0
    return photo


def _with_channels(gray, known, mask):
    return np.stack([gray, known, mask]).astype(np.float32)


def _gated(x):
    gate, feature = x.chunk(2, dim=1)
    return torch.sigmoid(gate) * F.elu(feature)


def _halves_swapped(x):
    feature, gate = x.chunk(2, dim=1)
    return torch.sigmoid(gate) * F.elu(feature)


def _gated_in_place(x):
    gate, feature = x.chunk(2, dim=1)
    return gate.sigmoid_() * F.elu(feature)


def _backward(x, dy, d_gate=True, elu_slope=True, swap=False, where=True):
    """The gradient of the packed tensor, or one of the usual mistakes."""
    gate, feature = x.chunk(2, dim=1)
    s = torch.sigmoid(gate)
    dg = dy * s * (1 - s) * (F.elu(feature) if d_gate else 1)
    above = (feature > 0).float()
    slope = torch.where(feature > 0, 1.0, feature.exp()) if where else above + (1 - above) * feature.exp()
    df = dy * s * (slope if elu_slope else 1)
    return torch.cat([df, dg] if swap else [dg, df], dim=1)


def _bytes(shape, itemsize, save, forward=3, gate=1, backward=5, unit=0.5):
    """Bytes of the fused op, with one tensor forgotten or the unit too large."""
    unit = int(unit * itemsize * np.prod(shape))
    return (forward + gate * (save == "yg")) * unit, backward * unit


def _from_yg(dy, y, gate, alpha, wide=True, swap=False, cancel=False, below=True, overflow=False):
    """The gradient of the packed tensor from y and the gate, or one of the usual mistakes."""
    dtype = y.dtype
    if wide:
        dy, y, gate = dy.float(), y.float(), gate.float()
    s = torch.sigmoid(gate)
    closed = 1 - s if cancel else torch.exp(-gate) * s if overflow else torch.sigmoid(-gate)
    dg = dy * y * closed
    df = dy * (torch.where(y > 0, s, y + alpha * s) if below else y + alpha * s)
    return torch.cat([df, dg] if swap else [dg, df], dim=1).to(dtype)


def _mutant(old, new):
    """Lesson 03's biased kernel with a change. Triton reads a kernel's source, so that must be found under its name."""
    source = (SOLUTIONS / "03_fused_gated_elu.py").read_text(encoding="utf-8")
    assert old in source
    source, name = source.replace(old, new), f"<{old} -> {new}>"
    linecache.cache[name] = len(source), None, source.splitlines(keepends=True), name
    scope = {"__name__": "mutant"}
    exec(compile(source, name, "exec"), scope)
    return scope["biased_kernel"]


def _residual(x, first, second, dilation=1, second_dilation=1, gated=_gated):
    y = gated(F.conv2d(x, *first, padding=dilation, dilation=dilation))
    return x + gated(F.conv2d(y, *second, padding=second_dilation, dilation=second_dilation))


def _field(layers, dilated=True, minus=1, first=1, stride_after=True, strided=True):
    """A receptive field with one thing wrong: no dilation, k for k - 1, no first pixel, strides too early or never."""
    field, step = first, 1
    for kernel, stride, dilation in layers:
        step *= 1 if stride_after else stride
        field += (dilation if dilated else 1) * (kernel - minus) * (step if strided else 1)
        step *= stride if stride_after else 1
    return field


def _step_up(x, skip, conv, mode="nearest", skip_first=False, last=False):
    x = F.interpolate(x, scale_factor=2, mode=mode)
    if skip is None:
        return conv(x)
    height, width = skip.shape[-2:]
    x = x[..., -height:, -width:] if last else x[..., :height, :width]
    return conv(torch.cat([skip, x] if skip_first else [x, skip], dim=1))


def _step_up_uncropped(x, skip, conv):
    x = F.interpolate(x, scale_factor=2)
    return conv(x if skip is None else torch.cat([x, skip], dim=1))


def _step_up_needs_a_skip(x, skip, conv):
    return _step_up(x, skip.clone(), conv)


def _mean_gap(painted, photo, mask):
    return (painted - photo)[mask.expand_as(photo) > 0].abs().mean()


def _judge_step(d, optimizer, real, fake, detach=True, clear=True, step=True, scale=1.0):
    loss = losses.discriminator_loss(d(real), d(fake.detach() if detach else fake))
    if clear:
        optimizer.zero_grad()
    (scale * loss).backward()
    if step:
        optimizer.step()
    return loss.detach()


def _near_and_far(after, before, near, mask, swap=False):
    change = np.abs(after.astype(float) - before).mean(axis=2)
    pair = change[near & mask].mean(), change[~near & mask].mean()
    return pair[::-1] if swap else pair


def _half_drawn(true, predicted, known, near, generator, shape=(6, 1, 1, 1), right=False, inside=1.0):
    column = torch.randint(65, shape, generator=generator)
    left = torch.arange(64) < column
    drawn = torch.where(left ^ right, true, predicted)
    return torch.where(near > 0, inside * drawn, known)


def _judged_step(
    painter, judge, optimizer, given, photo, mask, detach=False, clear=True, step=True, term=None, scale=1.0
):
    painted = painter(given)
    seen = painted.detach() if detach else painted
    fooled = losses.adversarial_loss(judge(seen)) if term is None else term(judge, seen, photo)
    loss = losses.reconstruction_loss(painted, photo, mask) + 0.1 * fooled
    if clear:
        optimizer.zero_grad()
    (scale * loss).backward()
    if step:
        optimizer.step()
    return loss.detach()


def _also_moves_the_judge(painter, judge, *given):
    loss = _judged_step(painter, judge, *given)
    with torch.no_grad():
        judge.weight.sub_(judge.weight.grad)
    return loss


def _above_chance(stroke, near, mask, near_true, counted=lambda m, t: m & ~t, area=lambda m, t: m & ~t):
    hit, chance = near[stroke & counted(mask, near_true)].mean(), near[area(mask, near_true)].mean()
    return (hit - chance) / (1 - chance)


def _f1s(predicted, true, masks, tolerance=0):
    rows = np.array([metrics.edge_counts(*each, tolerance) for each in zip(predicted, true, masks)])
    return metrics.precision_recall_f1(rows), metrics.precision_recall_f1(rows.sum(0))


def _f1_gap(ours, theirs):
    return metrics.precision_recall_f1(ours)[..., 2] - metrics.precision_recall_f1(theirs)[..., 2]


def _resampled(ours, theirs, rng, ends=(2.5, 97.5), of=lambda counts: counts.sum(1), twice=False):
    """The interval, or one of the usual mistakes."""
    drawn, others = rng.integers(len(ours), size=(2, 2000, len(ours)))
    return np.percentile(_f1_gap(of(ours[drawn]), of(theirs[others if twice else drawn])), ends)


def _by_the_normal(ours, theirs, rng):
    low, high = _resampled(ours, theirs, np.random.default_rng(5))
    return (low + high) / 2 + np.array([-0.5, 0.5]) * (high - low)


def _mirrored(strokes, number, up=False):
    def turned(x, y):
        return [x, number - y] if up else [number - x, y]

    return [s | ({"points": [turned(*p) for p in s["points"]]} if "points" in s else {}) for s in strokes]


def _mirrors_in_place(strokes, width):
    for stroke in strokes:
        for point in stroke.get("points", []):
            point[0] = width - 1 - point[0]
    return strokes


def _acts(acts, redo=True, empty=True, ends=True):
    held, undone = [], []
    for act in acts:
        if act == "undo" and (held or not empty):
            undone.append(held.pop())
        elif act == "redo" and redo and undone:
            held.append(undone.pop())
        elif isinstance(act, dict):
            held.append(act)
            undone = [] if ends else undone
    return held


def _left_out(paint, strokes, mask):
    return [metrics.edge_effect(paint(strokes), paint(strokes[:i] + strokes[i + 1 :]), mask) for i in range(5)]


def _dark(pictures, of=np.median, level=128):
    return of([(picture < level).mean() for picture in pictures]) < 0.5


def _kept_back(people, names):
    return [i for i, x in enumerate(people) if x not in names], [i for i, x in enumerate(people) if x in names]


def _drawn(people, count, rng):
    return _kept_back(people, rng.choice(sorted(set(people)), count, replace=False))


def _one_photo_each(people, count, rng):
    train, held = _drawn(people, count, rng)
    return train, sorted({people[i]: i for i in held}.values())


def _drawn_from_photos(people, count, rng):
    return _kept_back(people, [people[i] for i in rng.integers(len(people), size=count)])


def _photos_apart(people, count, rng):
    order = rng.permutation(len(people))
    return sorted(order[10:]), sorted(order[:10])


def _sorts_the_given(people, count, rng):
    people.sort()
    return _drawn(people, count, rng)


def _whole(network, optimizer, parts, own=None, clear=1, step=1, every=False, sizes=False, give=None, scale=1.0):
    """The step, or one of the usual mistakes. own: what a part's sum is divided by, of its weight and that of all."""
    total, count, losses = sum(w.sum() for _, _, w in parts), sum(len(x) for x, _, _ in parts), []
    if clear:
        optimizer.zero_grad()
    for x, y, w in parts:
        if clear == 2:
            optimizer.zero_grad()
        loss = (w * (network(x) - y).abs()).sum() / (own(w.sum(), total) if own else total)
        loss = loss * len(x) / count if sizes else loss
        (scale * loss).backward()
        losses.append(loss.detach())
        if every:
            optimizer.step()
    if step and not every:
        optimizer.step()
    return sum(losses) if give is None else give(losses)


def _joined(network, optimizer, parts):
    return _whole(network, optimizer, [tuple(torch.cat(x) for x in zip(*parts))])


def _whole_mean(network, optimizer, parts):
    """The right step, and the mean of the parts' own losses."""
    each = [(w * (network(x) - y).abs()).sum().detach() / w.sum() for x, y, w in parts]
    _whole(network, optimizer, parts)
    return sum(each) / len(each)


WRONG = {
    "mask_photo": [
        (lambda p, m: np.where(m[..., None], p, np.uint8(0)), "wrong way round"),
        (_changes_its_argument, "changed the photo"),
        (lambda p, m: p * (1 - m[..., None]), "wanted: an array uint8"),
        (lambda p, m: p, "the hole holds values up to"),
        (lambda p, m: np.where(m[..., None], 0, p // 2).astype(np.uint8), "known pixels differ"),
    ],
    "edge_effect": [
        (lambda a, b, m: np.abs(a.astype(float) - b).mean(), "over the hole alone"),
        (lambda a, b, m: (a - b)[m].mean(), "uint8 wraps around"),
        (lambda a, b, m: np.abs(a[m].astype(float) - b[m]), "wanted: one number"),
        (lambda a, b, m: "9.9", "wanted: one number"),
        (lambda a, b, m: 2 * np.abs(a[m].astype(float) - b[m]).mean(), "wanted"),
    ],
    "redraw": [
        (lambda e, s, m: e | s, "outside the hole changed"),
        (lambda e, s, m: e | (s & m), "old edge pixels are left"),
        (lambda e, s, m: e & ~m, "not whole inside the hole"),
        (lambda e, s, m: np.where(m, s, e).astype(float), "wanted: an array bool"),
    ],
    "read_quick_draw": [
        (lambda p: p >= 128, "wrong way round"),
        (lambda p: p == 0, "1 pixels differ"),
        (lambda p: (p < 128).astype(np.uint8), "wanted: an array bool"),
    ],
    "noised_edges": [
        (lambda e, rng: e + rng.normal(0, 0.1, e.shape), "wanted [0, 0.2]"),
        (lambda e, rng: np.abs(e - np.abs(rng.normal(0, 0.1, e.shape)).clip(0, 0.2)), "clipped"),
        (lambda e, rng: np.abs(e - rng.uniform(0, 0.2, e.shape)), "uniform?"),
        (lambda e, rng: e, "spread"),
        (lambda e, rng: _folded(e, np.random.default_rng(0)), "another rng gave the same result"),
        (lambda e, rng: np.abs(e - np.abs(np.random.default_rng().normal(0, 0.04, e.shape)).clip(0, 0.19)), None),
    ],
    "edge_input": [
        (lambda p, m: _with_channels(_gray_of(p), known_edges(p, m), m), r"channel 0 \(masked gray\) changes"),
        (lambda p, m: _with_channels(_gray_of(p) * ~m, true_edges(p) & ~m, m), r"channel 1 \(known edges\) changes"),
        (lambda p, m: _with_channels(_gray_of(p) * ~m, true_edges(p * ~m[..., None]), m), "Canny saw the black hole"),
        (lambda p, m: _with_channels(_gray_of(p) * ~m, true_edges(p * ~m[..., None]) & ~m, m), "Canny saw the black hole"),
        (lambda p, m: _with_channels(_gray_of(p) * ~m, true_edges(fill_from_known(to_gray(p), m)) & ~m, m), "are guesses too"),
        (lambda p, m: _with_channels(_gray_of(p) * ~m, known_edges(p, m), ~m), "channel 2: .* differ from the mask"),
        (lambda p, m: _with_channels(to_gray(p) * ~m, known_edges(p, m), m), "differ from the masked gray"),
        (lambda p, m: np.stack([_gray_of(p) * ~m, known_edges(p, m), m]), "wanted: an array float32"),
    ],
    "gated_activation": [
        (_halves_swapped, "halves are swapped"),
        (lambda x: torch.tanh(x[:, :3]) * F.elu(x[:, 3:]), "tanh"),
        (lambda x: torch.sigmoid(x[:, :3]) * F.relu(x[:, 3:]), "ReLU"),
        (lambda x: torch.sigmoid(x[:, :3]) * x[:, 3:], "the feature went through nothing"),
        (lambda x: x[:, :3] * F.elu(x[:, 3:]), "the gate went through nothing"),
        (lambda x: torch.sigmoid(x[:, ::2]) * F.elu(x[:, 1::2]), "every second channel"),
        (lambda x: torch.sigmoid(x) * F.elu(x), "wanted: a tensor torch.float32"),
        (lambda x: torch.sigmoid(x[:, :3]) * F.elu(x[:, 3:], 0.5), "the answer differs by"),
        (_gated_in_place, "changed the tensor"),
    ],
    "gated_backward": [
        (lambda x, dy: _backward(x, torch.ones_like(dy)), "dy is missing"),
        (lambda x, dy: _backward(x, dy, swap=True), "halves are swapped"),
        (lambda x, dy: _backward(x, dy, where=False), "overflows and times 0 is NaN"),
        (lambda x, dy: _backward(x, dy, d_gate=False), "the gate's half differs"),
        (lambda x, dy: _backward(x, dy, elu_slope=False), "the feature's half differs"),
        (lambda x, dy: _backward(x, dy)[:, :3], "wanted: a tensor torch.float32"),
        (lambda x, dy: _backward(x, dy.mul_(2)), "changed a tensor"),
    ],
    "bytes_moved": [
        (lambda *given: _bytes(*given, unit=1), "which has C channels and not 2C"),
        (lambda shape, itemsize, save: _bytes(shape, 1, save), "these are elements"),
        (lambda *given: _bytes(*given, gate=0), "the forward pass writes the gate, too"),
        (lambda *given: _bytes(*given, backward=4), "the gradient of x has both halves"),
        (lambda *given: _bytes(*given, backward=3), "the backward pass reads dy"),
        (lambda *given: _bytes(*given, backward=6), "does not read y"),
        (lambda *given: _bytes(*given, forward=7, backward=16), "wanted"),
        (lambda *given: sum(_bytes(*given)), "two numbers"),
    ],
    "backward_from_yg": [
        (lambda *given: _from_yg(*given, swap=True), "halves are swapped"),
        (lambda *given: _from_yg(*given, cancel=True), "at g = 20 the gate's gradient is 100% off"),
        (lambda *given: _from_yg(*given, overflow=True), r"at g = -100 exp\(-g\) overflows.*NaN"),
        (lambda *given: _from_yg(*given, below=False), "where y > 0, df is dy s"),
        (lambda *given: _from_yg(*given, wide=False), "compute in float32, and round once"),
        (lambda dy, *given: _from_yg(torch.ones_like(dy), *given), "dy is missing"),
        (lambda dy, y, gate, alpha: _from_yg(dy, y, gate, 1.0), "alpha is missing"),
        (lambda *given: _from_yg(*given).float(), "wanted y's dtype"),
        (lambda *given: _from_yg(*given)[:, :3], "wanted: a tensor torch.float32"),
        (lambda *given: 2 * _from_yg(*given), "differs by up to"),
    ],
    "fused_bias": [
        (_mutant(" + tl.load(bias_ptr + c)", ""), "y differs by up to"),
        (_mutant("tl.load(bias_ptr +", "0 * tl.load(bias_ptr +"), "the bias is missing"),
        (_mutant("bias_ptr + C + c", "bias_ptr + c"), "the feature got the gate's bias"),
        (_mutant("bias_ptr + c)", "bias_ptr + C + c)"), "the gate got the feature's bias"),
        (_mutant("g = tl.load(gates + i", "g = tl.load(gates + C * run + i"), "y differs by up to"),
        (_mutant("y, mask=inside)", "y)"), "were stored outside of y"),
        (_mutant("2 * picture * C", "picture * C"), "the first picture is right"),
        (_mutant("tl.store(y_ptr + plane", "tl.store(y_ptr + c"), "were never stored"),
        (_mutant("tl.store(", "tl.load("), "the interpreter stopped"),
        (_mutant("1 / (1 + tl.exp(-g))", "tl.sigmoid(g)"), "did you call tl.sigmoid"),
    ],
    "residual_block": [
        (lambda x, a, b, d: _residual(x, a, b, d) - x, "the input is missing"),
        (lambda x, a, b, d: F.elu(_residual(x, a, b, d)), "after the sum"),
        (lambda x, a, b, d: _residual(x, a, b), "with dilation 2: is the first convolution dilated"),
        (lambda x, a, b, d: _residual(x, a, b, d, d), "only the first"),
        (lambda x, a, b, d: _residual(x, a, b, d, gated=_halves_swapped), "from the package's block"),
        (lambda x, a, b, d: _residual(x, a, b, d)[..., 1:], "wanted: a tensor torch.float32"),
        (lambda x, a, b, d: x.add_(1), "changed the tensor"),
        (lambda x, a, b, d: x + F.conv2d(F.conv2d(x, *a, padding=1), *b, padding=1), "gated down to C"),
    ],
    "padding": [
        (lambda h, w, s=8: (h + s - h % s, w + s - w % s), "a multiple of the stride stays"),
        (lambda h, w, s=8: (h // s * s, w // s * s), "do not crop"),
        (lambda h, w, s=8: (w + -w % s, h + -h % s), "height first"),
        (lambda h, w, s=8: (h + -h % 8, w + -w % 8), "the stride was 32"),
        (lambda h, w, s=8: (-h % s, -w % s), "that is the padding"),
        (lambda h, w, s=8: (np.ceil(h / s) * s, np.ceil(w / s) * s), "whole numbers"),
        (lambda h, w, s=8: h + -h % s, "two numbers"),
        (lambda h, w, s=8: (max(h, w) + -max(h, w) % s,) * 2, "wanted"),
    ],
    "receptive_field": [
        (lambda layers: _field(layers, strided=False), "every stride before a layer"),
        (lambda layers: _field(layers, stride_after=False), "own stride counts from the next layer on"),
        (lambda layers: _field(layers, dilated=False), "dilation moves the taps"),
        (lambda layers: _field(layers, minus=0), "one 3x3 layer sees"),
        (lambda layers: _field(layers, first=0), "a pixel sees itself"),
        (lambda layers: 1 + sum(2 * dilation for _, _, dilation in layers), "a kernel of k adds k - 1"),
    ],
    "step_up": [
        (lambda *given: _step_up(*given, skip_first=True), "the skip came first"),
        (lambda *given: _step_up(*given, mode="bilinear"), "nearest neighbour"),
        (lambda *given: _step_up(*given, last=True), "the crop took the last rows"),
        (_step_up_uncropped, "with a skip of 7 x 5 your function raised RuntimeError"),
        (_step_up_needs_a_skip, "with skip=None your function raised AttributeError"),
        (lambda x, skip, conv: F.interpolate(x, scale_factor=2), "wanted: a tensor torch.float32"),
        (lambda *given: 2 * _step_up(*given), "values differ by up to"),
    ],
    "hole_error": [
        (lambda a, b, m: ((a - b).abs() * m).mean(), "divided by all pixels"),
        (lambda a, b, m: ((a - b).abs() * m).sum() / m.sum(), "three times too large"),
        (lambda a, b, m: (((a - b) ** 2) * m).sum() / (3 * m.sum()), "the squared error"),
        (lambda a, b, m: torch.stack([_mean_gap(*one) for one in zip(a, b, m)]).mean(), "the mean of each picture's"),
        (lambda a, b, m: ((a - b).abs() * m).sum(dim=1), "wanted: a tensor torch.float32"),
        (lambda a, b, m: ((a - b) * m).sum() / (3 * m.sum()), "wanted"),
    ],
    "gram_matrix": [
        (lambda f: f.flatten(2) @ f.flatten(2).transpose(1, 2), "not divided"),
        (lambda f: losses.gram_matrix(f) * f.shape[1], "divided by H W"),
        (lambda f: losses.gram_matrix(f) * f[0, 0].numel(), "divided by C"),
        (lambda f: f.flatten(2).transpose(1, 2) @ f.flatten(2), "wanted: a tensor torch.float32"),
        (lambda f: losses.gram_matrix(f - f.mean((2, 3), keepdim=True)), "differs by up to"),
    ],
    "discriminator_step": [
        (lambda *given: _judge_step(*given, detach=False), "wanted the fake detached"),
        (lambda *given: _judge_step(*given, clear=False), "old gradients were added"),
        (lambda d, o, real, fake: _judge_step(d, o, fake, real), "real and fake are swapped"),
        (lambda *given: _judge_step(*given, step=False), "did not move"),
        (lambda *given: 2 * _judge_step(*given), "a loss of"),
        (lambda *given: _judge_step(*given)[None], "wanted: a tensor torch.float32"),
        (lambda d, *given: _judge_step(lambda x: d(x)[0], *given), "gives logits, not a pair"),
        (lambda d, o, x, fake: _judge_step(lambda p: d(p) if p is x else d(p).detach(), o, x, fake), "detach the picture"),
        (lambda *given: _judge_step(*given, scale=2.0), "not the optimizer's along this loss"),
    ],
    "pooled_recall": [
        (lambda p, t, m: np.mean([(a & b & c).sum() / (b & c).sum() for a, b, c in zip(p, t, m)]), "the mean of the"),
        (lambda p, t, m: (p & t).sum() / t.sum(), "of the whole pictures"),
        (lambda p, t, m: (p & t & m).sum() / (p & m).sum(), "the precision"),
        (lambda p, t, m: (p & t & m).sum() / max(m.sum(), 1), "wanted"),
        (lambda p, t, m: (p & t & m).sum((1, 2)) / (t & m).sum((1, 2)), "one number"),
        (lambda p, t, m: float((p & t & m).sum()) / int((t & m).sum()), "no true edge lies in the hole"),
    ],
    "best_weight": [
        (lambda q: _best_f1(q) / 2, "that is the threshold"),
        (lambda q: 1 / _best_f1(q) - 1, "half of the best F1"),
        (lambda q: 2 / _best_f1(q), "not 1 / w"),
        (lambda q: 2 / _best_f1(q, sort=False) - 1, "q was not sorted"),
        (lambda q: 2 / q.mean() - 1, "wanted"),
        (lambda q: 2 / q - 1, "one number"),
    ],
    "thin_lines": [
        (lambda p: _thin(p, along=True), "the other direction"),
        (lambda p: _thin(p, highest=torch.minimum), "not above one of them"),
        (lambda p: _thin(p, mode="replicate"), "beyond the border lies 0"),
        (lambda p: _thin(p, stands=torch.ge), "is not above it"),
        (lambda p: _thin(p, beside=0.0), "yours fell to 0"),
        (lambda p: _thin(p, four=True), "all four neighbours"),
        (lambda p: _thin(p)[:, 0], "wanted: a tensor torch.float32"),
        (lambda p: 0.8 * p, "pixels are not p, or 0.8 p"),
    ],
    "near_and_far": [
        (lambda *given: _near_and_far(*given, swap=True), "near the stroke first"),
        (lambda a, b, near, m: _near_and_far(a, b, near, near | m), "the hole count, near the stroke too"),
        (lambda a, b, near, m: _near_and_far(a, b, near, ~near | m), "the hole count, in the rest of it too"),
        (lambda a, b, near, m: _near_and_far(a, b, near, near | ~near), "only pixels of the hole count"),
        (lambda a, b, near, m: ((a - b)[near & m].mean(), (a - b)[~near & m].mean()), "uint8 wraps around"),
        (lambda a, b, near, m: _near_and_far(a, b, near, m)[0], "wanted two numbers"),
        (lambda a, b, near, m: tuple((a - b.astype(float))[x & m].mean() for x in (near, ~near)), "whichever way it goes"),
        (lambda *given: tuple(2 * x for x in _near_and_far(*given)), "wanted"),
    ],
    "half_drawn": [
        (lambda *given: _half_drawn(*given, shape=(1,)), "every sample is cut at column"),
        (lambda *given: _half_drawn(*given, shape=(6, 1, 12, 64)), "true and predicted edges alternate"),
        (lambda *given: _half_drawn(*given, shape=(6, 1, 12, 1)), "true and predicted edges alternate"),
        (lambda *given: _half_drawn(*given, right=True), "right of the column"),
        (lambda a, b, known, near, g: _half_drawn(a, b, known, near, torch.Generator().manual_seed(0)), "another seed"),
        (lambda a, b, known, near, g: _half_drawn(a, b, known, near, None), "the same seed gave other edges"),
        (lambda a, b, known, near, g: _half_drawn(a, b, a, near, g), "edges away from the hole"),
        (lambda *given: _half_drawn(*given)[:, 0], "wanted: a tensor torch.float32"),
        (lambda *given: _half_drawn(*given, inside=0.5), "pixels differ from the edges"),
        (lambda a, b, known, near, g: _half_drawn(a, b * (a >= b), known, near, g), "pixels differ from the edges"),
    ],
    "judged_step": [
        (lambda *given: _judged_step(*given, detach=True), "was detached"),
        (lambda *given: _judged_step(*given, clear=False), "old gradients were added"),
        (lambda *given: _judged_step(*given, step=False), "did not move"),
        (lambda *given: _judged_step(*given, term=lambda d, x, y: losses.adversarial_loss(d(y))), "looked at the photo"),
        (
            lambda *given: _judged_step(*given, term=lambda d, x, y: losses.discriminator_loss(d(y), d(x))),
            "the judge's own loss",
        ),
        (lambda *given: _judged_step(*given, term=lambda d, x, y: -F.softplus(d(x)).mean()), "flat where the painter"),
        (lambda *given: _judged_step(*given, term=lambda d, x, y: 10 * losses.adversarial_loss(d(x))), "counts a tenth"),
        (lambda *given: _judged_step(*given, term=lambda d, x, y: 0 * d(x).mean()), "the judge's term is missing"),
        (lambda *given: 2 * _judged_step(*given), "a loss of"),
        (lambda *given: _judged_step(*given).item(), "wanted: a tensor torch.float32"),
        (lambda *given: _judged_step(*given, scale=2.0), "not the optimizer's along this loss"),
        (_also_moves_the_judge, "the judge moved"),
    ],
    "mirrored": [
        (lambda strokes, width: _mirrored(strokes, width), "not to width"),
        (lambda strokes, width: _mirrored(strokes, width - 1, up=True), "up and down"),
        (lambda strokes, width: list(strokes), "nothing is mirrored"),
        (lambda strokes, width: [s for s in _mirrored(strokes, width - 1) if "points" in s], "is lost"),
        (lambda strokes, width: _mirrored(strokes, width - 1)[::-1], "the order of the strokes"),
        (_mirrors_in_place, "the given left alone"),
        (lambda strokes, width: _mirrored(strokes, width - 1)[:3], "came: 3 strokes"),
        (lambda strokes, width: _mirrored(strokes, width + 1), "stroke 0: came"),
        (lambda strokes, width: 3, "wanted: a list of strokes"),
    ],
    "strokes_held": [
        (lambda acts: [act for act in acts if isinstance(act, dict)], "undo takes the last stroke back"),
        (lambda acts: _acts(acts, redo=False), "redo does what was undone"),
        (lambda acts: _acts(acts, empty=False), "undo with nothing left changes nothing: it raised IndexError"),
        (lambda acts: _acts(acts, ends=False), "a new stroke ends what could be redone"),
        (lambda acts: acts.clear() or [], "left alone"),
        (lambda acts: _acts(acts)[::-1], "without undo and redo"),
        (lambda acts: [act for i, act in enumerate(_acts(acts)) if act not in _acts(acts)[:i]], "drawn twice"),
    ],
    "stroke_effects": [
        (lambda paint, s, m: [metrics.edge_effect(paint([one]), paint([]), m) for one in s], "does alone"),
        (lambda paint, s, m: [metrics.edge_effect(paint(s[: i + 1]), paint(s[:i]), m) for i in range(5)], "adds to those"),
        (lambda paint, s, m: _left_out(paint, s, m | True), "the whole picture"),
        (lambda paint, s, m: _left_out(paint, s, ~m), "the known pixels"),
        (lambda paint, s, m: [(paint(s) - paint(s[:i] + s[i + 1 :]))[m].mean() for i in range(5)], "uint8 wraps"),
        (lambda paint, s, m: sorted(_left_out(paint, s, m))[::-1], "in that of the strokes"),
        (lambda paint, s, m: np.divide(_left_out(paint, s, m), 255), "shares of 255"),
        (lambda paint, s, m: sum(_left_out(paint, s, m)), "one number a stroke"),
        (lambda paint, s, m: [2 * x for x in _left_out(paint, s, m)], "wanted: ["),
        (lambda paint, s, m: s.pop() and [0.0] * 5, "left alone"),
    ],
    "share_above_chance": [
        (lambda s, n, m, t: n[s & m & ~t].mean(), "a blind stroke has too"),
        (lambda s, n, m, t: n[s & m & ~t].mean() - n[m & ~t].mean(), "a result that follows everything gets 1"),
        (lambda s, n, m, t: n[s & m & ~t].mean() / n[m & ~t].mean() - 1, "not by chance"),
        (lambda s, n, m, t: _above_chance(s, n, m, t & False), "for the hit and for the chance"),
        (lambda *given: _above_chance(*given, area=lambda m, t: m), "the chance too leaves out"),
        (lambda *given: _above_chance(*given, counted=lambda m, t: m), "the hit too leaves out"),
        (lambda *given: _above_chance(*given, area=lambda m, t: ~t), "a share of the hole, not of the picture"),
        (lambda *given: _above_chance(*given, counted=lambda m, t: ~t), "stroke pixels outside the hole"),
        (lambda s, n, m, t: _above_chance(s, n, m | True, t), "only the hole counts"),
        (lambda s, n, m, t: _above_chance(s, n, m | True, t & False), "and there what is not near a true edge"),
        (lambda *given: max(0.0, _above_chance(*given)), "a share below 0"),
        (lambda s, n, m, t: (n[m] - n[m].mean()) / n[m].mean(), "wanted: one number"),
        (lambda *given: float("nan"), "a share of nothing is no number"),
        (lambda *given: 2 * _above_chance(*given), "wanted"),
    ],
    "pooled_f1": [
        (lambda *given: _f1s(*given)[0][:, 2].mean(), "the mean of each picture's F1"),
        (lambda *given: _f1s(*given)[0][:3, 2].mean(), "the pictures that have a prediction"),
        (lambda *given: 2 / (1 / _f1s(*given)[0][:, :2].mean(0)).sum(), "formed of mean precision and mean recall"),
        (lambda p, t, m: 2 * np.sum(np.array(p) & t) / np.sum([p, t]), "only pixels of the hole count"),
        (lambda *given: _f1s(*given)[1][:2].mean(), "the harmonic mean"),
        (lambda *given: _f1s(*given)[1][0], "that is the precision"),
        (lambda *given: _f1s(*given)[1][1], "that is the recall"),
        (lambda *given: np.mean([(p == t)[m].mean() for p, t, m in zip(*given)]), "most are no edge"),
        (lambda *given: _f1s(*given, 1)[1][2], "within 1 px"),
        (lambda *given: float("nan"), "a share of nothing is no number"),
        (lambda *given: _f1s(*given)[0][:, 2], "wanted: one number"),
        (lambda *given: 2 * _f1s(*given)[1][2], "wanted"),
    ],
    "paired_interval": [
        (lambda a, b, rng: _resampled(a, b, rng, twice=True), "as if the pictures were not paired"),
        (lambda a, b, rng: np.percentile(_f1_gap(a, b), (2.5, 97.5)), "where single pictures lie"),
        (lambda a, b, rng: np.percentile(_f1_gap(a, b)[rng.integers(40, size=(2000, 40))].mean(1), (2.5, 97.5)), "one F1"),
        (lambda a, b, rng: _resampled(a, b, rng, (5, 95)), "a 90 % interval"),
        (lambda a, b, rng: _resampled(a, b, rng, (0.5, 99.5)), "a 99 % interval"),
        (lambda a, b, rng: _resampled(b, a, rng), "that is theirs - ours"),
        (lambda a, b, rng: _resampled(a, b, np.random.default_rng()), "take every draw from it"),
        (lambda a, b, rng: _resampled(a, b, np.random.default_rng(0)), "draw the pictures from rng"),
        (_by_the_normal, "draw the pictures from rng"),
        (lambda a, b, rng: [_f1_gap(a[rng.permutation(40)].sum(0), b.sum(0))] * 2, "with replacement"),
        (lambda a, b, rng: _resampled(a, b, rng)[::-1], "the lower end first"),
        (lambda a, b, rng: _f1_gap(a.sum(0), b.sum(0)), "wanted two numbers"),
        (lambda a, b, rng: _resampled(a, 0 * b, rng), "wanted about"),
    ],
    "black_is_hole": [
        (lambda pictures: not _dark(pictures), "the wrong way round"),
        (lambda pictures: _dark(pictures, np.mean), "which a few full ones move"),
        (lambda pictures: _dark(pictures[:1]), "the first file alone"),
        (lambda pictures: _dark(pictures, min), "one file of the kind is enough"),
        (lambda pictures: _dark(pictures, level=1), "split at 128"),
        (lambda pictures: np.median([p.mean() for p in pictures]) > 127, "the mean gray is not the share"),
        (lambda pictures: float(np.mean(pictures[0] < 128)), "wanted: True or False"),
        (lambda pictures: [_dark([p]) for p in pictures], "wanted: True or False"),
        (lambda pictures: True, "white strokes on black: came: True"),
    ],
    "split_by_person": [
        (_photos_apart, "with photos in both parts"),
        (lambda *given: _drawn(*given)[::-1], "first training, then kept back"),
        (_drawn_from_photos, "each drawn once"),
        (_one_photo_each, "photos are in neither part"),
        (lambda p, n, rng: _kept_back(p, sorted(set(p))[-n:]), "draw them from rng"),
        (lambda p, n, rng: _drawn(p, n, np.random.default_rng(0)), "draw them from rng"),
        (lambda p, n, rng: _drawn(p, n, np.random.default_rng()), "take every draw from it"),
        (lambda *given: tuple([given[0][i] for i in part] for part in _drawn(*given)), "wanted: numbers of photos"),
        (lambda *given: tuple(part[::-1] for part in _drawn(*given)), "the numbers rising"),
        (lambda *given: _drawn(*given)[1], "wanted: two lists"),
        (lambda *given: tuple(2 * part for part in _drawn(*given)), "a photo comes twice"),
        (_sorts_the_given, "left alone"),
    ],
    "whole_step": [
        (lambda *given: _whole(*given, own=lambda own, total: 3 * own), "as several processes take it"),
        (lambda *given: _whole(*given, own=lambda own, total: own), "divide by the weights of all"),
        (lambda *given: _whole(*given, own=lambda own, total: own, sizes=True), "it must count by its weights"),
        (lambda *given: _whole(*given, own=lambda own, total: own, clear=2), "that of the last part alone"),
        (lambda *given: _whole(*given, clear=0), "old gradients were added"),
        (lambda *given: _whole(*given, clear=2, every=True), "stepped after every part"),
        (lambda *given: _whole(*given, own=lambda own, total: own, clear=2, every=True), "stepped after every part"),
        (lambda *given: _whole(*given, step=0), "did not move"),
        (_joined, "one part at a time"),
        (lambda *given: _whole(*given, scale=2.0), "not the optimizer's along the whole loss"),
        (_whole_mean, "that is the mean of the parts' losses"),
        (lambda *given: _whole(*given, give=lambda losses: losses[-1]), "came: a loss of"),
        (lambda *given: _whole(*given).item(), "wanted: a tensor torch.float32"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("check, number", [(check, i) for check, answers in WRONG.items() for i in range(len(answers))])
def test_a_wrong_answer_gets_its_own_message(check, number):
    needs_triton(check)
    answer, message = WRONG[check][number]
    with pytest.raises(exercises.WrongAnswer) as error:
        checker(check)(answer)
    if message:
        import re

        assert re.search(
            re.escape(message) if "(" not in message and ".*" not in message else message, str(error.value)
        )


def test_a_notebook_shows_the_message_alone():
    assert exercises.WrongAnswer("wanted 2")._render_traceback_() == ["not right yet: wanted 2"]
