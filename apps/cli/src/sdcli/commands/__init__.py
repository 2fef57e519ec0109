"""The commands, one file a group; none imports torch before it runs."""

import typer

from sdcli.commands import (
    convert,
    data,
    evaluate,
    finetune,
    grid,
    img2img,
    latents,
    lora_files,
    models,
    records,
    scenes,
    train,
    txt2img,
    variations,
    words,
)


def register(app: typer.Typer) -> None:
    """Add every command to the program."""
    app.command("txt2img")(txt2img.txt2img)
    app.command("img2img")(img2img.img2img)
    app.command("inpaint")(img2img.inpaint)
    app.command("outpaint")(img2img.outpaint)
    app.command("upscale")(img2img.upscale)
    app.command("variations")(variations.variations)
    app.command("interpolate")(variations.interpolate)
    app.command("grid")(grid.grid)
    app.command("train-vae")(train.train_vae)
    app.command("train")(train.train)
    app.command("train-text")(train.train_text)
    app.command("train-clip")(train.train_clip)
    app.command("export")(train.export)
    app.command("add-words")(words.add_words)
    app.command("eval")(evaluate.evaluate)
    app.command("textual-inversion")(finetune.textual_inversion)
    app.command("hypernetwork")(finetune.hypernetwork)
    app.command("dreambooth")(finetune.dreambooth)
    app.command("scenes")(scenes.scenes)
    app.command("encode")(latents.encode)
    app.command("decode")(latents.decode)
    app.command("inspect")(records.inspect)
    app.command("replay")(records.replay)
    app.command("convert")(convert.convert)
    app.add_typer(data.app, name="data")
    lora_files.app.command("train")(finetune.lora_train)
    app.add_typer(lora_files.app, name="lora")
    app.add_typer(models.app, name="models")
