"""The four finetuners: `lora train`, `textual-inversion`, `hypernetwork` and `dreambooth`."""

from typing import Annotated

import typer

from sdcli.errors import CommandError
from sdcli.finetune_options import FinetuneOptions, PriorOptions, read_numbers, read_targets
from sdcli.finetuning import finetune
from sdcli.grouping import grouped

Rank = Annotated[int | None, typer.Option("--rank", help="Of the low-rank matrices [lora.rank].")]
Alpha = Annotated[
    float | None, typer.Option("--alpha", help="The scale is alpha / rank [lora.alpha].")
]
Targets = Annotated[
    str | None,
    typer.Option(
        "--targets",
        help="attn-kv, attn-cross, attn, attn-ff or all; or ends of module paths with commas "
        "between [lora.targets].",
    ),
]


@grouped
def lora_train(
    common: FinetuneOptions,
    prior: PriorOptions,
    rank: Rank = None,
    alpha: Alpha = None,
    targets: Targets = None,
    kind: Annotated[
        str | None, typer.Option("--kind", help="lora, loha or lokr [lora.kind].")
    ] = None,
    dora: Annotated[
        bool | None, typer.Option("--dora/--no-dora", help="Learn the rows' lengths [lora.dora].")
    ] = None,
    dropout: Annotated[
        float | None, typer.Option("--dropout", help="Of inputs, from 0 to 1 [lora.dropout].")
    ] = None,
    text: Annotated[
        bool | None,
        typer.Option("--text/--no-text", help="Teach the text encoders too [lora.text]."),
    ] = None,
    text_learning_rate: Annotated[
        float | None,
        typer.Option("--text-learning-rate", help="Theirs [lora.text_learning_rate]."),
    ] = None,
    layout: Annotated[
        str | None, typer.Option("--layout", help="Of the file: kohya or diffusers [lora.layout].")
    ] = None,
) -> None:
    """Teach a model a subject or a style by a LoRA: small additions to its weights, one file."""
    more = {
        "lora.rank": rank,
        "lora.alpha": alpha,
        "lora.targets": read_targets(targets),
        "lora.kind": kind,
        "lora.dora": dora,
        "lora.dropout": dropout,
        "lora.text": text,
        "lora.text_learning_rate": text_learning_rate,
        "lora.layout": layout,
        **prior.values(),
    }
    finetune("lora", common, more)


@grouped
def textual_inversion(
    common: FinetuneOptions,
    placeholder: Annotated[
        str | None,
        typer.Option(
            "--placeholder", help="The new word [placeholder]. [default: my- and the noun]"
        ),
    ] = None,
    initial: Annotated[
        str | None,
        typer.Option(
            "--initial-word",
            help="A word that it begins as, or several that describe it in words that the model "
            "knows [initial]. [default: the noun, described where `described` has words for it, as "
            "the embedded model's preset has]",
        ),
    ] = None,
    vectors: Annotated[
        int | None,
        typer.Option(
            "--vectors",
            help="Tokens that it takes in a prompt; 0 is those of the initial word [num_vectors].",
        ),
    ] = None,
    templates: Annotated[
        str | None,
        typer.Option(
            "--templates",
            help="Learn it in sentences about an object, a style, or in the pictures' captions "
            "[templates].",
        ),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option("--layout", help="Of the file: diffusers, kohya or webui (.pt) [layout]."),
    ] = None,
) -> None:
    """Teach a model a new word: only the word's own vectors learn, one small file."""
    more = {
        "placeholder": placeholder,
        "initial": initial,
        "num_vectors": vectors,
        "templates": templates,
        "layout": layout,
    }
    finetune("textual_inversion", common, more)


@grouped
def hypernetwork(
    common: FinetuneOptions,
    prior: PriorOptions,
    layers: Annotated[
        str | None,
        typer.Option(
            "--layers",
            help="Widths in units of the context's, such as 1,2,1 [hypernetwork.layer_structure].",
        ),
    ] = None,
    activation: Annotated[
        str | None,
        typer.Option(
            "--activation",
            help="linear, relu, swish ... as in the web UI [hypernetwork.activation_func].",
        ),
    ] = None,
    initialization: Annotated[
        str | None,
        typer.Option(
            "--initialization",
            help="Normal, XavierUniform ... [hypernetwork.weight_initialization].",
        ),
    ] = None,
    layer_norm: Annotated[
        bool | None,
        typer.Option("--layer-norm/--no-layer-norm", help="[hypernetwork.is_layer_norm]"),
    ] = None,
    dropout: Annotated[
        str | None,
        typer.Option(
            "--dropout",
            help="One for each width, the first and last 0 [hypernetwork.dropout_structure].",
        ),
    ] = None,
    activate_output: Annotated[
        bool | None,
        typer.Option(
            "--activate-output/--linear-output",
            help="Put the activation behind the last layer too [hypernetwork.activate_output].",
        ),
    ] = None,
    widths: Annotated[
        str | None,
        typer.Option(
            "--widths",
            help="Of contexts that get networks, such as 768,320 [hypernetwork.widths]. "
            "[default: all that the model has]",
        ),
    ] = None,
    file_format: Annotated[
        str | None, typer.Option("--format", help="pt, for the web UI, or safetensors [format].")
    ] = None,
) -> None:
    """Teach a model by small networks before the keys and values of its attention, one file."""
    more = {
        "hypernetwork.layer_structure": read_numbers(layers),
        "hypernetwork.activation_func": activation,
        "hypernetwork.weight_initialization": initialization,
        "hypernetwork.is_layer_norm": layer_norm,
        "hypernetwork.dropout_structure": read_numbers(dropout),
        "hypernetwork.activate_output": activate_output,
        "hypernetwork.widths": read_numbers(widths),
        "format": file_format,
        **prior.values(),
    }
    finetune("hypernetwork", common, more)


@grouped
def dreambooth(
    common: FinetuneOptions,
    prior: PriorOptions,
    train_text_encoder: Annotated[
        bool | None,
        typer.Option(
            "--train-text-encoder/--freeze-text-encoder",
            help="Teach the text encoders too [train_text].",
        ),
    ] = None,
    lora: Annotated[
        bool, typer.Option("--lora", help="Learn a LoRA in place of all weights [lora].")
    ] = False,
    rank: Rank = None,
    alpha: Alpha = None,
    targets: Targets = None,
    contact_sheet: Annotated[
        int | None,
        typer.Option(
            "--contact-sheet",
            help="Pictures a row of the closing sheet; 0 is none [contact_sheet].",
        ),
    ] = None,
) -> None:
    """Teach a model one subject, by all its weights or a LoRA, and keep what it knows of its kind.

    At the end contact-sheet.png in the run's folder shows what was learnt from, the subject in new
    places, and others of its kind.
    """
    chosen = {"lora.rank": rank, "lora.alpha": alpha, "lora.targets": read_targets(targets)}
    asked = [name for name, value in chosen.items() if value is not None]
    if asked and not lora:
        raise CommandError(f"--{asked[0].removeprefix('lora.')} is of a LoRA; add --lora")
    more = {
        **chosen,
        "lora.text" if lora else "train_text": train_text_encoder,
        **prior.values(),
        "contact_sheet": contact_sheet,
    }
    finetune("dreambooth", common, more, tables=("lora",) if lora else ())
