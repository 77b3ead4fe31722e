"""Training: one config and one visible loop per stage, on accelerate (a CPU, one GPU or many).

Both loops have the same order: the discriminator's step on real and detached fake, then the generator's step through the
discriminator as it is now. A loss whose weight is 0 is not computed. EdgeConnect's two stages: Nazeri et al., 2019, section 3.

The random draws of a step depend on (seed, step) alone. What a run is made of is in run_parts.py, what a step is made of in
steps.py, what a run keeps in runs.py and checkpoints.py.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch

from edgeconnect_lite import losses
from edgeconnect_lite.checkpoints import load_checkpoint
from edgeconnect_lite.discriminators import Condition, PatchDiscriminator, condition_channels, discriminator_input
from edgeconnect_lite.features import Features, choose_features, open_features
from edgeconnect_lite.generators import EdgeGenerator, ImageGenerator
from edgeconnect_lite.run_parts import (
    Network,
    Optimizer,
    Precision,
    Schedule,
    begin_with,
    open_data,
    open_image_generator,
    with_optimizers,
)
from edgeconnect_lite.runs import Log, begin_run, save_checkpoint, set_learning_rate
from edgeconnect_lite.samples import batches, edge_stage_input, image_stage_input, noised_edges
from edgeconnect_lite.steps import (
    adversarial_terms,
    check_shares,
    given_edges,
    hole_share,
    inspect_edges,
    inspect_painting,
    noise_of,
    part_of_batch,
    take_step,
    weighted_sum,
)
from edgeconnect_lite.weights import STAGE_NAMES, load_network, weights_folder


@dataclass(frozen=True)
class Training:
    """What both stages share."""

    stage: ClassVar[str]  # one of weights.STAGE_NAMES, and the name of the run's folder
    start_from: str | None = None  # a pair of weights (a folder, "shipped") whose generator this run begins with
    photos: str = "faces"  # "faces" (shipped), a folder, .txt list or .zip, a known set's root; "faces:1,celeba:3" mixes
    masks: str = "strokes,brush"  # kinds of generated masks, or a folder, .txt list or .zip of masks (white = hole)
    invert_masks: bool = False  # the folder's masks have black holes, as Quick Draw masks do
    hole_ratio: tuple[float, float] = (0.02, 0.6)  # share of the hole in generated masks
    roughen: float = 0.25  # share of photos that are given the texture, contrast and faults of photographs
    size: int = 128  # px
    validation: int = 64  # photos kept back from training, from the end of the set
    steps: int = 20_000
    batch_size: int = 8
    optimizer: Optimizer = "muon"  # the generator's; the discriminator's is Adam
    learning_rate: float = 3e-3  # the peak
    schedule: Schedule = "cosine"  # after the warm-up: down to a hundredth at the last step, or "constant"
    betas: tuple[float, float] = (0.9, 0.99)  # of the generator's Adam
    discriminator_betas: tuple[float, float] = (0.5, 0.99)
    warmup: int = 100  # steps, in which the rate rises linearly
    discriminator_rate: float = 0.3  # the discriminator's learning rate, as a multiple
    seed: int = 0
    workers: int = 0
    threads: int = 0  # CPU threads of torch, set for the process; 0 = as they are
    precision: Precision = "no"  # "bf16" where the CPU or GPU has it
    deterministic: bool = False  # only algorithms that give the same bits each time; a CPU's do, a GPU becomes slower
    compile: bool = False  # torch.compile the generator: about a minute at the start, a fifth faster on a CPU
    log_every: int = 50  # steps
    checkpoint_minutes: float = 5.0


@dataclass(frozen=True)
class EdgeTraining(Training):
    """Stage 1. The weights belong to losses.py's functions of the same names."""

    stage = "edge_generator"
    width: int = 32
    bottom: int = 160
    blocks: int = 4
    skips: bool = True
    decision: int = 20
    cross_entropy_weight: float = 1.0
    gray_weight: float = 5.0  # of the gray photo that it paints on its way
    hole_weight: float = 10.0
    edge_weight: float = 2.6  # of a true edge in the cross-entropy, at the hole's border
    deep_edge_weight: float = 4.5  # and 6 px inside it
    adversarial_weight: float = 0.0  # without a judge it learns faster: lesson 06; with one 0.01
    feature_matching_weight: float = 0.0  # with a judge 0.3
    condition: Condition = "mask+photo"
    label_noise: float = 0.1  # std of the noise on the discriminator's real edges, 0 = off


@dataclass(frozen=True)
class ImageTraining(Training):
    """Stage 2. The weights belong to losses.py's functions of the same names."""

    stage = "image_generator"
    network: Network = "unet"  # "dilated": the peer of experiment a (dilated.py), which cannot be shipped
    width: int = 40
    bottom: int = 192
    blocks: int = 4
    skips: bool = True
    reconstruction_weight: float = 1.0
    squared_weight: float = 3.0
    hole_weight: float = 6.0
    adversarial_weight: float = 0.1
    feature_matching_weight: float = 0.3
    perceptual_weight: float = 0.05  # this and the next are set for the face features; VGG19 wants others
    style_weight: float = 5.0
    features: Features = "auto"  # behind those two: "vgg19", "faces" (shipped), or VGG19 where it is at hand
    vgg19: str | None = None  # VGG19's weight file, None = torch.hub's cache
    condition: Condition = "mask+photo"
    blank_edges: float = 0.15  # share of samples whose hole holds no edges, so that "none" is a fair case
    predicted_edges: float = 0.0  # share of samples whose hole holds stage 1's edges; the rest hold the true ones
    edge_weights: str | None = None  # the pair whose stage 1 predicts them (a folder), None = shipped


def train_edge(config: EdgeTraining, out: str | Path, resume: bool = False) -> EdgeGenerator:
    """Train stage 1. All that it keeps lies in out/edge_generator/ (runs.py)."""
    out = begin_run(config, out, resume)
    accelerator, samples, held_out = open_data(config)
    generator = EdgeGenerator(config.width, config.bottom, config.blocks, config.skips, config.decision)
    generator = generator if resume else begin_with(config, generator)
    discriminator = PatchDiscriminator(1 + condition_channels(config.condition, 1))
    log = Log(out, config, accelerator)
    parts = with_optimizers(generator, discriminator, config) | {"log": log}
    start = load_checkpoint(out, parts, config) if resume else 0
    g, d, g_optimizer, d_optimizer, _ = accelerator.prepare(*parts.values())
    g = torch.compile(g) if config.compile else g
    stream = accelerator.prepare(batches(samples, config.batch_size, config.steps, start, config.workers))
    with log.begin(start):
        for step, sample in enumerate(stream, start):
            set_learning_rate(config, step, g_optimizer)
            set_learning_rate(config, step, d_optimizer, config.discriminator_rate)
            with accelerator.autocast():
                logits, gray = (output.float() for output in g(edge_stage_input(sample)))
            share, terms = hole_share(accelerator, sample.mask, config.hole_weight), {}
            if config.cross_entropy_weight:
                weight = losses.deepening_weight(sample.mask, config.edge_weight, config.deep_edge_weight)
                terms["cross_entropy"] = share * losses.edge_cross_entropy(
                    logits, sample.edges, sample.mask, config.hole_weight, weight
                )
            if config.gray_weight:
                pair = gray, sample.gray, sample.mask, config.hole_weight
                terms["gray"] = share * losses.reconstruction_loss(*pair)
            if config.adversarial_weight or config.feature_matching_weight:
                real = sample.edges
                if config.label_noise:
                    noise = noise_of(config, step, real.device)
                    real = noised_edges(real, noise, config.label_noise, part_of_batch(accelerator))
                seen_with = (sample.mask, sample.gray * (1 - sample.mask), config.condition)
                real, fake = (discriminator_input(e, *seen_with) for e in (real, torch.sigmoid(logits)))
                terms |= adversarial_terms(accelerator, d, d_optimizer, real, fake, config, step)
            shared = log.share(step, terms)
            accelerator.backward(weighted_sum(terms, config, step))
            take_step(generator, g_optimizer, step)
            if log(step, shared):
                if accelerator.is_main_process:
                    measured, panel = inspect_edges(generator, held_out)
                    log.write(step, measured)
                    save_checkpoint(out, parts, step + 1, config, panel)
                log.stop_if_asked(step)
    return generator


def train_image(config: ImageTraining, out: str | Path, resume: bool = False) -> ImageGenerator:
    """Train stage 2 on true, predicted and no edges. All that it keeps lies in out/image_generator/ (runs.py)."""
    check_shares(config)
    if config.perceptual_weight or config.style_weight:
        config = replace(config, features=choose_features(config.features, config.vgg19))
    out = begin_run(config, out, resume)
    accelerator, samples, held_out = open_data(config)
    generator = open_image_generator(config)
    generator = generator if resume else begin_with(config, generator)
    discriminator = PatchDiscriminator(3 + condition_channels(config.condition, 3))
    predict = features = None
    if config.predicted_edges:
        predict = load_network(weights_folder(config.edge_weights) / STAGE_NAMES[0], EdgeGenerator)
        predict = predict.to(accelerator.device)
    if config.perceptual_weight or config.style_weight:
        features = open_features(config.features, config.vgg19)
        features = features.to(accelerator.device, memory_format=torch.channels_last)  # type: ignore
    log = Log(out, config, accelerator)
    parts = with_optimizers(generator, discriminator, config) | {"log": log}
    start = load_checkpoint(out, parts, config) if resume else 0
    g, d, g_optimizer, d_optimizer, _ = accelerator.prepare(*parts.values())
    g = torch.compile(g) if config.compile else g
    stream = accelerator.prepare(batches(samples, config.batch_size, config.steps, start, config.workers))
    with log.begin(start):
        for step, sample in enumerate(stream, start):
            set_learning_rate(config, step, g_optimizer)
            set_learning_rate(config, step, d_optimizer, config.discriminator_rate)
            with accelerator.autocast():
                noise = noise_of(config, step, sample.edges.device)
                edges = given_edges(sample, config, predict, noise, part_of_batch(accelerator))
                painted = g(image_stage_input(sample, edges)).float()
            pair = painted, sample.photo, sample.mask, config.hole_weight
            share, terms = hole_share(accelerator, sample.mask, config.hole_weight), {}
            if config.reconstruction_weight:
                terms["reconstruction"] = share * losses.reconstruction_loss(*pair)
            if config.squared_weight:
                terms["squared"] = share * losses.squared_loss(*pair)
            if config.adversarial_weight or config.feature_matching_weight:
                seen_with = (sample.mask, sample.photo * (1 - sample.mask), config.condition)
                real, fake = (discriminator_input(p, *seen_with) for p in (sample.photo, painted))
                terms |= adversarial_terms(accelerator, d, d_optimizer, real, fake, config, step)
            if features is not None:
                with accelerator.autocast():
                    real, fake = ([x.float() for x in features(picture)] for picture in (sample.photo, painted))
                if config.perceptual_weight:
                    terms["perceptual"] = losses.perceptual_loss(real, fake)
                if config.style_weight:
                    terms["style"] = losses.style_loss(real, fake)
            shared = log.share(step, terms)
            accelerator.backward(weighted_sum(terms, config, step))
            take_step(generator, g_optimizer, step)
            if log(step, shared):
                if accelerator.is_main_process:
                    measured, panel = inspect_painting(generator, held_out)
                    log.write(step, measured)
                    save_checkpoint(out, parts, step + 1, config, panel)
                log.stop_if_asked(step)
    return generator
