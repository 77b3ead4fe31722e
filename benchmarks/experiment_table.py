"""The experiments' table: every configuration as a change of another one, and which experiments it belongs to.

A configuration that several experiments share has one name, so it is trained once. With three seeds: 45 runs.
"""

from dataclasses import fields, replace
from typing import Any

from edgeconnect_lite.training import EdgeTraining, ImageTraining

SHARED: dict[str, Any] = dict(  # no roughen: it is for real photographs, and rendered faces are measured here
    size=64, validation=256, masks="strokes,brush", hole_ratio=(0.02, 0.6), batch_size=8, precision="bf16", threads=1,
    roughen=0.0, checkpoint_minutes=2.5,
)  # fmt: skip
REPORT = EdgeTraining(  # the student report's stage 1, with EdgeConnect's optimizer, but our warm-up and decay of its rate
    **SHARED, decision=0, gray_weight=0, cross_entropy_weight=0, adversarial_weight=1, feature_matching_weight=10,
    condition="nothing", label_noise=0.1, optimizer="adam", learning_rate=1e-4, betas=(0.0, 0.9),
    discriminator_betas=(0.0, 0.9), discriminator_rate=0.1,
)  # fmt: skip
MASK = replace(REPORT, condition="mask")  # the report's guess
LOSSES = replace(  # three changes: cross-entropy, a weak judge, and it sees the masked photo too
    MASK, cross_entropy_weight=1.0, adversarial_weight=0.01, feature_matching_weight=0.3, condition="mask+photo"
)
MUON = replace(
    LOSSES, optimizer="muon", learning_rate=EdgeTraining.learning_rate, betas=(0.9, 0.99), discriminator_betas=(0.5, 0.99),
    discriminator_rate=0.3,
)  # fmt: skip
PLAIN = replace(MUON, adversarial_weight=0.0, feature_matching_weight=0.0)  # no judge
OURS = EdgeTraining(**SHARED)  # + paints the gray photo, and looks at it as Canny does
UNET = ImageTraining(**SHARED, features="faces")  # also where VGG19 is at hand
BOTTOM = replace(UNET, skips=False)

CONFIGURATIONS: dict[str, EdgeTraining | ImageTraining] = {
    "stage1-ours": OURS,  # first: stage 2's runs of the same seed need it
    "stage1-report": REPORT,
    "stage1-mask": MASK,
    "stage1-losses": LOSSES,
    "stage1-muon": MUON,
    "stage1-plain": PLAIN,
    "stage1-report-no-noise": replace(REPORT, label_noise=0.0),
    "stage2-sequential": replace(BOTTOM, blocks=0),
    "stage2-residual": BOTTOM,
    "stage2-unet": UNET,
    "stage2-dilated": replace(UNET, network="dilated"),
    "stage2-true-edges": replace(UNET, blank_edges=0.0),
    "stage2-mixed": replace(UNET, predicted_edges=0.4),
    "stage2-no-features": replace(UNET, perceptual_weight=0.0, style_weight=0.0),
    # the weights make both terms as large on a blurred face as those of the face features are there
    "stage2-random-vgg": replace(UNET, features="random", perceptual_weight=0.035, style_weight=3.0),
}
STAGE1 = ("report", "report-no-noise", "mask", "losses", "muon", "plain", "ours")
EXPERIMENTS = {  # -> its configurations, in the order in which they are told
    "networks": ("stage2-sequential", "stage2-residual", "stage2-unet", "stage2-dilated"),
    "stage1": tuple(f"stage1-{name}" for name in STAGE1),
    "edges": ("stage2-true-edges", "stage2-unet", "stage2-mixed"),
    "features": ("stage2-no-features", "stage2-random-vgg", "stage2-unet"),
}
METRICS = {  # -> what its JSON keeps, in this order; of Telea's, what is named so there
    "networks": ("psnr", "psnr_true", "psnr_none", "edge_effect"),
    "stage1": (
        "precision", "recall", "f1", "f1_1px", "predicted_share", "line_width_ratio", "probability_on_edges",
        "probability_elsewhere",
    ),
    "edges": ("psnr", "psnr_none", "psnr_predicted", "psnr_true", "edge_effect"),
    "features": ("psnr", "psnr_true", "frechet", "detail", "adherence"),
}  # fmt: skip
PREDICTOR = "stage1-ours"
# The report's recipe with a constant rate, as in the paper: what it has learned after so many minutes, with seed 0
CONSTANT, BUDGETS = "stage1-report-constant", (0.125, 0.25, 0.5, 1.0, 2.0, 5.0)
CONFIGURATIONS[CONSTANT] = replace(REPORT, schedule="constant", warmup=0)  # of no experiment: `budgets` alone runs it


def needs_predictor(name: str) -> bool:
    """Whether a configuration is trained or measured with stage 1's edges."""
    return name in EXPERIMENTS["edges"]


def plan(experiments: list[str], seeds: int) -> list[tuple[str, int]]:
    """The runs, (configuration, seed): all configurations with seed 0 first, so that a part of a campaign compares them all."""
    wanted = {name for experiment in experiments for name in EXPERIMENTS[experiment]}
    if any(needs_predictor(name) for name in wanted):
        wanted.add(PREDICTOR)
    return [(name, seed) for seed in range(seeds) for name in CONFIGURATIONS if name in wanted]


def changes(name: str) -> dict[str, Any]:
    """What a configuration has other than OURS (stage 1) or UNET (stage 2), which are the package's defaults but for SHARED."""
    config = CONFIGURATIONS[name]
    base = OURS if isinstance(config, EdgeTraining) else UNET
    every = {f.name: getattr(config, f.name) for f in fields(config)}
    return {field: value for field, value in every.items() if value != getattr(base, field)}
