"""`sdcli encode` and `sdcli decode`: pictures and their latents."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdcli.errors import CommandError
from sdcli.models import open_named
from sdcli.options import AsJson, Device, Dtype, Model, VaeTiling, Variant
from sdcli.progress import note
from sdcli.results import show

if TYPE_CHECKING:
    from sd_vae import AutoencoderKL

_KEY = "latents"


def encode(
    image: Annotated[
        Path, typer.Argument(help="The picture; its sides are cut to multiples of 8.")
    ],
    out: Annotated[Path, typer.Option(help="The .safetensors file to write.")],
    model: Model = "scenes",
    variant: Variant = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    vae_tiling: VaeTiling = "auto",
    json: AsJson = False,
) -> None:
    """Write the latents of a picture: the posterior's mean, scaled as the UNet takes them."""
    from sd_checkpoint import save_safetensors
    from sd_pipeline import check_tiling, encode_pixels, read_image, to_pixels

    tiling = check_tiling(vae_tiling)
    picture = read_image(image)
    vae = _vae(model, variant, device, dtype)
    factor = vae.config.downsampling
    width, height = (side // factor * factor for side in picture.size)
    if not width or not height:
        raise CommandError(f"{image} is {picture.size}; its sides must be at least {factor}")
    pixels = to_pixels(picture.crop((0, 0, width, height)))
    latents = vae.scale(encode_pixels(vae, pixels, tiling).mode())
    metadata = {"model": model, "scaling_factor": str(vae.config.scaling_factor)}
    save_safetensors(out, {_KEY: latents.float().cpu().contiguous()}, metadata)
    shape = tuple(latents.shape)
    show(f"{out}: {shape}", {"path": out, "shape": shape}, as_json=json)


def decode(
    file: Annotated[Path, typer.Argument(help="A .safetensors file of encode's.")],
    out: Annotated[Path, typer.Option(help="The .png, .jpg, .jpeg or .webp file to write.")],
    model: Model = "scenes",
    variant: Variant = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    vae_tiling: VaeTiling = "auto",
    json: AsJson = False,
) -> None:
    """Turn latents back into a picture."""
    from sd_checkpoint import Checkpoint, atomic_path
    from sd_pipeline import PictureFormat, check_out, check_tiling, decode_latents

    tiling = check_tiling(vae_tiling)
    if not out.suffix or out.is_dir():
        raise CommandError(f"--out {out} is no picture's file; end it in .png, .jpg or .webp")
    tensors = Checkpoint.open(file)
    if _KEY not in tensors:
        raise CommandError(f"{file} holds no tensor called {_KEY}; give a file that encode wrote")
    check_out(out, 1)
    vae = _vae(model, variant, device, dtype)
    latents = tensors[_KEY]
    channels = vae.config.latent_channels
    if latents.ndim != 4 or latents.shape[1] != channels or not latents.is_floating_point():
        raise CommandError(
            f"{file} holds latents of shape {tuple(latents.shape)}; {model} wants "
            f"(1, {channels}, height, width)"
        )
    weight = vae.post_quant_conv.weight
    latents = latents.to(weight.device, weight.dtype)
    images = decode_latents(vae, latents, tiling)
    if len(images) > 1:
        note(f"{file} holds {len(images)} pictures; the first is written")
    with atomic_path(out) as temporary:
        temporary.write_bytes(PictureFormat.of(out).encode(images[0]))
    show(str(out), {"path": out, "size": images[0].size}, as_json=json)


def _vae(model: str, variant: str | None, device: str, dtype: str) -> "AutoencoderKL":
    from sd_pipeline import build_vae, resolve_device, resolve_dtype

    place = resolve_device(device)
    precision = resolve_dtype(dtype, place)
    opened, _ = open_named(model, variant=variant, use_ema=False)
    return build_vae(opened.vae, dtype=precision).to(place)
