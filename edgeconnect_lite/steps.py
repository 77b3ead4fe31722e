"""Steps: what one training step is made of beside the two networks, and the look at what was learnt. For training.py's loops.

Several processes take equal parts of each batch and end where one would, up to rounding: every random draw is made for the
whole batch, and a mean that weighs pixels counts each part by its share.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from edgeconnect_lite import losses
from edgeconnect_lite.checkpoints import TrainingStopped
from edgeconnect_lite.edges import MARGIN, merge_edges
from edgeconnect_lite.figures import tile
from edgeconnect_lite.inpainting import THRESHOLD, composite, predict_probability, to_rgb
from edgeconnect_lite.metrics import EdgeCounts, hole_psnr
from edgeconnect_lite.runs import check_finite
from edgeconnect_lite.samples import Sample, image_stage_input

if TYPE_CHECKING:
    from edgeconnect_lite.generators import EdgeGenerator
    from edgeconnect_lite.training import ImageTraining, Training


def noise_of(config: Training, step: int, device: torch.device) -> torch.Generator:
    """The generator of every random draw of one step besides the data's: it depends on (seed, step) alone."""
    return torch.Generator(device).manual_seed(config.seed * 1_000_003 + step)


def part_of_batch(accelerator: Accelerator) -> tuple[int, int]:
    """Which part of each batch this process has: (number, of how many)."""
    return accelerator.process_index, accelerator.num_processes


def hole_share(accelerator: Accelerator, mask: Tensor, hole_weight: float) -> Tensor | float:
    """What a hole-weighted mean over this process's part counts in the mean over the processes: 1 for one process.

    sum(v w) / sum(w) over the whole batch is the processes' mean of their own sum(v w) / sum(w), times sum(w) over the
    processes' mean of sum(w). mask: (N, 1, H, W).
    """
    if accelerator.num_processes == 1:
        return 1.0
    weight = (1 + (hole_weight - 1) * mask).sum()
    return weight / accelerator.reduce(weight, "mean")  # type: ignore[operator]


def check_shares(config: ImageTraining) -> None:
    """Are the shares of samples with no and with predicted edges such that the rest may have true ones? Raises ValueError."""
    blank, predicted = config.blank_edges, config.predicted_edges
    if not (blank >= 0 and predicted >= 0 and blank + predicted <= 1):
        raise ValueError(
            f"blank_edges is {blank} and predicted_edges {predicted}; wanted shares whose sum is at most 1"
        )


def given_edges(
    sample: Sample,
    config: ImageTraining,
    predict: EdgeGenerator | None,
    generator: torch.Generator,
    part: tuple[int, int] = (0, 1),
) -> Tensor:
    """The edge maps that stage 2 trains on: known edges, and in and near the hole true ones, predicted ones, or none.

    Which of the three is drawn for each sample, in the shares that config says. predict: stage 1, if its share is not 0.
    part: as part_of_batch gives it.
    """
    number, parts = part
    drawn = torch.rand(parts * len(sample.mask), 1, 1, 1, generator=generator, device=sample.mask.device)
    drawn = drawn.chunk(parts)[number]
    inside = sample.edges * (drawn >= config.blank_edges)
    if predict is not None:
        is_predicted = (drawn >= config.blank_edges) & (drawn < config.blank_edges + config.predicted_edges)
        chosen = is_predicted.flatten().nonzero()[:, 0]
        if len(chosen):
            predicted = predict_probability(predict, Sample(*(values[chosen] for values in sample))) > THRESHOLD
            inside = inside.index_copy(0, chosen, predicted.to(inside.dtype))
    near = F.max_pool2d(sample.mask, 2 * MARGIN + 1, stride=1, padding=MARGIN)
    return torch.where(near > 0.5, inside, sample.known_edges)


def adversarial_terms(
    accelerator: Accelerator, d: nn.Module, d_optimizer: Any, real: Tensor, fake: Tensor, config: Any, step: int
) -> dict[str, Tensor]:
    """Step the discriminator on real and detached fake, then give the generator's terms through it as it is now."""
    with accelerator.autocast():
        d_loss = losses.discriminator_loss(d(real)[0].float(), d(fake.detach())[0].float())
    accelerator.backward(d_loss)
    judge = accelerator.unwrap_model(d)
    take_step(judge, d_optimizer, step)
    judge.requires_grad_(False)  # gradients pass through it now, and stay in the fake
    with accelerator.autocast():
        real_features, (fake_logits, fake_features) = judge(real)[1], judge(fake)
    judge.requires_grad_(True)
    terms = {"discriminator": d_loss.detach()}
    if config.adversarial_weight:
        terms["adversarial"] = losses.adversarial_loss(fake_logits.float())
    if config.feature_matching_weight:
        features = ([x.float() for x in each] for each in (real_features, fake_features))
        terms["feature_matching"] = losses.feature_matching_loss(*features)
    return terms


def weighted_sum(terms: dict[str, Tensor], config: Training, step: int) -> Tensor:
    """The generator's loss: each term times config.<term>_weight. Stops on a term that is not finite, naming it."""
    weights = {name: getattr(config, f"{name}_weight") for name in terms if name != "discriminator"}
    if not weights:
        raise ValueError("the weight of every loss is 0; wanted at least one above 0")
    check_finite(terms, step)
    return torch.stack([weight * terms[name] for name, weight in weights.items()]).sum()


def take_step(network: nn.Module, optimizer: Any, step: int) -> None:
    """One step of the network's optimizer, then no gradients. Stops before it on a gradient that is not finite, naming it."""
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    if not torch.isfinite(torch.nn.utils.get_total_norm(gradients)):
        for name, p in network.named_parameters():
            if p.grad is not None and not torch.isfinite(p.grad).all():
                raise TrainingStopped(f"step {step}: the gradient of {name} is not finite; the checkpoint before stays")
    optimizer.step()
    optimizer.zero_grad()


@torch.inference_mode()
def inspect_edges(generator: nn.Module, held_out: list[Sample]) -> tuple[dict[str, float], np.ndarray]:
    """Precision, recall and F1 in the hole on the held-out samples, and a panel: photo, true edges, prediction."""
    counts, rows = EdgeCounts(), []
    device = next(generator.parameters()).device
    for sample in held_out:
        batch = Sample(*(part[None].to(device) for part in sample))
        predicted = predict_probability(generator, batch)[0, 0].cpu()  # type: ignore[arg-type]
        counts.add((predicted > THRESHOLD).numpy(), sample.edges[0].numpy() > 0, sample.mask[0].numpy() > 0)
        rows.append([to_rgb(sample.photo * (1 - sample.mask)), sample.edges[0].numpy(), predicted.numpy()])
    return {"precision": counts.precision, "recall": counts.recall, "f1": counts.f1}, tile(rows[:6])


@torch.inference_mode()
def inspect_painting(generator: nn.Module, held_out: list[Sample]) -> tuple[dict[str, float], np.ndarray]:
    """Mean hole PSNR with true edges on the held-out samples, and a panel: masked photo, true edges, result, photo."""
    scores, rows = [], []
    device = next(generator.parameters()).device
    for sample in held_out:
        mask = sample.mask[0].numpy() > 0
        edges = torch.from_numpy(merge_edges(sample.known_edges[0].numpy(), sample.edges[0].numpy(), mask))[None]
        painted = generator(image_stage_input(sample, edges)[None].to(device))[0].cpu()
        photo = to_rgb(sample.photo)
        result = composite(photo, to_rgb(painted), mask)
        scores.append(hole_psnr(result, photo, mask))
        rows.append([to_rgb(sample.photo * (1 - sample.mask)), edges[0].numpy(), result, photo])
    return {"hole_psnr": float(np.mean(scores))}, tile(rows[:6])
