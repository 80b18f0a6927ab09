"""Learning what is worth looking at, and whether it helps.

``vpr train segmentation | places | attention-head | attention-network`` and
``vpr eval segmentation | attention | graded``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from vpr.commands.outcome import or_fail, show_rows
from vpr.config import EmbeddingConfig, SegmentationConfig

console = Console()

FirstSeed = Annotated[int, typer.Option(help="Seed of the first town; each seed is another one.")]
Towns = Annotated[int, typer.Option(help="How many towns.", min=1)]
ParamsFile = Annotated[
    Path | None, typer.Option("--params-file", help="Parameters laid over the shipped ones.")
]
JsonOut = Annotated[Path | None, typer.Option("--json", help="Also write the figures here.")]
KeptRowsFile = Annotated[
    Path | None,
    typer.Option("--rows", help="Rows are kept here as they come; a run cut short goes on there."),
]
ByDepth = Annotated[
    bool,
    typer.Option("--by-depth", help="Similarity by what is in view; towns have depth, MSLS not."),
]

UNSEEN_SEED = 9000  # towns from here on are never learnt from


def train_segmentation(
    out: Annotated[Path, typer.Argument(help="Weights to write (.safetensors).")],
    towns: Towns = 24,
    steps: Annotated[int, typer.Option(help="Batches to learn from.", min=1)] = 900,
    seed: Annotated[int, typer.Option(help="Of the training.", min=0)] = 0,
) -> None:
    """Train the light segmenter in simulated towns."""
    from vpr.semantics.training import SegmentationTrainingConfig, save_weights
    from vpr.semantics.training import train_segmentation as train

    config = SegmentationTrainingConfig(towns=towns, steps=steps, seed=seed)
    or_fail(lambda: save_weights(train(config, log=_print_loss), out))
    console.print(f"{out}: set segmentation.segmenter_weights to it")


def train_attention_head(
    out: Annotated[Path, typer.Argument(help="Weights to write (.safetensors).")],
    towns: Towns = 6,
    steps: Annotated[int, typer.Option(help="Batches to learn from.", min=1)] = 400,
    params_file: ParamsFile = None,
) -> None:
    """Train the attention head behind the configured descriptor, in simulated towns."""
    from vpr.learning.attention_head_training import (
        AttentionHeadTrainingConfig,
        learn_attention_head,
    )
    from vpr.semantics.training import save_weights

    config = AttentionHeadTrainingConfig(towns=towns, steps=steps)
    head = or_fail(lambda: learn_attention_head(config, params_file, _print_loss))
    save_weights(head, out)
    console.print(f"{out}: set segmentation.attention_weights to it, source to learned")


def train_attention_network(
    out: Annotated[Path, typer.Argument(help="Weights to write (.safetensors).")],
    towns: Towns = 6,
    steps: Annotated[int, typer.Option(help="Batches to learn from.", min=1)] = 400,
    params_file: ParamsFile = None,
) -> None:
    """Train the encoder-decoder to see at once what the unsupervised pipeline computes."""
    from vpr.learning.attention_network_training import (
        AttentionNetworkTrainingConfig,
        learn_attention_network,
    )
    from vpr.semantics.training import save_weights

    config = AttentionNetworkTrainingConfig(towns=towns, steps=steps)
    network = or_fail(lambda: learn_attention_network(config, params_file, _print_loss))
    save_weights(network, out)
    console.print(f"{out}: set segmentation.attention_weights to it, source to encoder_decoder")


def train_places(
    out: Annotated[Path, typer.Argument(help="Backbone weights to write (.safetensors).")],
    integration: Annotated[str, typer.Option(help="How semantics are brought in.")] = "none",
    scheme: Annotated[str, typer.Option(help="X-Y first and last layers learn, or All.")] = "0-2",
    msls: Annotated[
        Path | None, typer.Option(help="Root of Mapillary Street-Level Sequences.")
    ] = None,
    cache: Annotated[Path, typer.Option(help="Where its masks are kept.")] = Path("out/masks"),
    towns: Towns = 3,
    backbone: Annotated[str, typer.Option(help="As embedding.backbone.")] = "efficientnet_lite0",
    weights: Annotated[str, typer.Option(help="As embedding.weights.")] = "embedded",
    steps: Annotated[int, typer.Option(help="Batches to learn from.", min=0)] = 300,
    by_depth: ByDepth = False,
    params_file: ParamsFile = None,
) -> None:
    """Train a descriptor with the Generalised Contrastive Loss, with or without semantics."""
    from vpr.evaluation.graded import simulated_places, street_level_places
    from vpr.learning.graded_training import GradedTrainingConfig
    from vpr.learning.graded_training import train_places as train
    from vpr.models.place_network import USES_ACTIVATIONS, Integration
    from vpr.semantics.training import save_weights
    from vpr.supervision.street_level_sequences import REDUCED_TRAINING_CITIES

    def learn() -> None:
        config = GradedTrainingConfig(
            backbone=backbone, weights=weights, scheme=scheme, steps=steps,
            integration=Integration(integration),
        )  # fmt: skip
        segmentation = SegmentationConfig.from_file(params_file)
        if msls is not None and by_depth:
            raise ValueError("--by-depth needs depth, which MSLS has not")
        if msls is None:
            seeds = range(UNSEEN_SEED - towns, UNSEEN_SEED)
            places, _ = simulated_places(seeds, [], segmentation, by_depth)
        else:
            cities = REDUCED_TRAINING_CITIES
            activations = config.integration in USES_ACTIVATIONS
            places, _ = street_level_places(msls, cache, cities, [], segmentation, activations)
        trained = train(places, config)
        save_weights(trained.network, out)
        console.print(f"{out}: set embedding.weights to it, layers to [last], layer_grids to [1x1]")
        if trained.head is not None:
            head = out.with_suffix(".head.safetensors")
            save_weights(trained.head, head)
            console.print(f"{head}: set segmentation.attention_weights to it, source to learned")

    or_fail(learn)


def eval_segmentation(
    towns: Towns = 5,
    first_seed: FirstSeed = UNSEEN_SEED,
    picture: Annotated[Path | None, typer.Option(help="Also draw image, classes, mask.")] = None,
    params_file: ParamsFile = None,
    json_out: JsonOut = None,
) -> None:
    """Intersection over union of each class in simulated towns that nothing was learnt from."""
    from vpr.evaluation.segmentation import segmentation_rows

    rows = or_fail(
        lambda: segmentation_rows(range(first_seed, first_seed + towns), params_file, picture)
    )
    show_rows("segmentation, unseen towns", rows, json_out)


def eval_attention(
    towns: Towns = 5,
    first_seed: FirstSeed = UNSEEN_SEED,
    sources: Annotated[
        list[str] | None, typer.Option("--source", help="Attention sources; repeat for several.")
    ] = None,
    ways: Annotated[
        list[str] | None,
        typer.Option("--way", help="pooling, multiplied; repeat for both, the default."),
    ] = None,
    folders: Annotated[
        tuple[Path, Path] | None,
        typer.Option(help="Reference and query folder of one route, instead of towns."),
    ] = None,
    tolerance: Annotated[int, typer.Option(help="Images off that still count.", min=0)] = 2,
    ground_truth: Annotated[
        Path | None, typer.Option(help="CSV query,references of the folders, instead of that.")
    ] = None,
    rows_file: KeptRowsFile = None,
    params_file: ParamsFile = None,
    json_out: JsonOut = None,
) -> None:
    """The configured descriptor with and without attention, and with the two controls."""
    from vpr.evaluation.attention import WAYS, attention_rows, folder_rows
    from vpr.evaluation.kept_rows import KeptRows

    used = ways or list(WAYS)
    chosen = sources or ["semantic_mask", "learned", "laplacian_of_gaussian"]

    def rows() -> list[dict[str, object]]:
        if folders is not None:
            right = ground_truth or tolerance
            return folder_rows(*folders, right, chosen, params_file, used)
        segmentation = SegmentationConfig.from_file(params_file).model_dump()
        embedding = EmbeddingConfig.from_file(params_file).model_dump()
        settings = {
            "sources": chosen,
            "ways": used,
            "segmentation": segmentation,
            "embedding": embedding,
        }
        kept = KeptRows(rows_file, settings)
        seeds = range(first_seed, first_seed + towns)
        return attention_rows(seeds, chosen, params_file, used, kept)

    place = "two sessions in unseen towns" if folders is None else f"{folders[1]} in {folders[0]}"
    show_rows(f"attention, {place}", or_fail(rows), json_out)


def eval_graded(
    msls: Annotated[
        Path | None, typer.Option(help="Root of Mapillary Street-Level Sequences.")
    ] = None,
    cache: Annotated[Path, typer.Option(help="Where its masks are kept.")] = Path("out/masks"),
    training_towns: Towns = 3,
    towns: Towns = 5,
    backbone: Annotated[str, typer.Option(help="As embedding.backbone.")] = "efficientnet_lite0",
    weights: Annotated[str, typer.Option(help="As embedding.weights.")] = "embedded",
    masked: Annotated[
        list[str] | None, typer.Option(help="How semantics are brought in; repeat for several.")
    ] = None,
    scheme: Annotated[
        list[str] | None, typer.Option(help="Freezing scheme; repeat for several.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Batches each network learns from.", min=0)] = 60,
    by_depth: ByDepth = False,
    rows_file: KeptRowsFile = None,
    params_file: ParamsFile = None,
    json_out: JsonOut = None,
) -> None:
    """Table I of the paper: Normal and Masked under freezing schemes, and two controls.

    Without --msls in simulated towns; with it on the paper's reduced list of cities.
    """
    from vpr.evaluation.graded import (
        SCHEMES,
        graded_rows,
        simulated_places,
        street_level_places,
    )
    from vpr.evaluation.kept_rows import KeptRows
    from vpr.learning.graded_training import GradedTrainingConfig
    from vpr.models.place_network import USES_ACTIVATIONS, Integration
    from vpr.supervision.street_level_sequences import (
        REDUCED_TRAINING_CITIES,
        REDUCED_VALIDATION_CITIES,
    )

    def rows() -> list[dict[str, object]]:
        segmentation = SegmentationConfig.from_file(params_file)
        config = GradedTrainingConfig(backbone=backbone, weights=weights, steps=steps)
        ways = [Integration.NONE, *map(Integration, masked or [Integration.MULTIPLIED])]
        settings = {
            "places": str(msls) if msls else f"{training_towns} towns, {towns} to be judged in",
            "segmentation": segmentation.model_dump(),
            "training": config.model_dump(exclude={"scheme", "integration"}),
            "by depth": by_depth,
        }
        kept = KeptRows(rows_file, settings)
        if msls is not None and by_depth:
            raise ValueError("--by-depth needs depth, which MSLS has not")
        if msls is None:
            trained_in = range(UNSEEN_SEED - training_towns, UNSEEN_SEED)
            judged_in = range(UNSEEN_SEED, UNSEEN_SEED + towns)
            places = simulated_places(trained_in, judged_in, segmentation, by_depth)
        else:
            places = street_level_places(
                msls, cache, REDUCED_TRAINING_CITIES, REDUCED_VALIDATION_CITIES, segmentation,
                activations=any(way in USES_ACTIVATIONS for way in ways),
            )  # fmt: skip
        return graded_rows(*places, config, ways, scheme or SCHEMES, kept)

    show_rows("graded similarity, Normal and Masked", or_fail(rows), json_out)


def add_to(train_app: typer.Typer, eval_app: typer.Typer) -> None:
    """Put the commands of semantics beside the others."""
    train_app.command("segmentation")(train_segmentation)
    train_app.command("attention-head")(train_attention_head)
    train_app.command("places")(train_places)
    train_app.command("attention-network")(train_attention_network)
    eval_app.command("segmentation")(eval_segmentation)
    eval_app.command("attention")(eval_attention)
    eval_app.command("graded")(eval_graded)


def _print_loss(step: int, loss: float) -> None:
    console.print(f"step {step}: loss {loss:.4f}")
