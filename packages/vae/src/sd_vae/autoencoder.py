"""The KL autoencoder of latent diffusion (Rombach et al. 2022, arXiv:2112.10752, section 3.1)."""

import torch
from torch import Tensor, nn

from sd_ops import Conv2d, give_back_freed, resolve_backend
from sd_vae.blocks import DownBlock, MidBlock, SelfAttention, UpBlock, activated, new_norm
from sd_vae.config import VAEConfig
from sd_vae.posterior import DiagonalGaussian

__all__ = ["AutoencoderKL", "Decoder", "Encoder"]

# Places of latents from which on it is worth its time, 4 ms, to give freed memory back.
_MANY = 2048


class Encoder(nn.Module):
    """Turn pictures into the hidden states of the latent's moments."""

    def __init__(self, config: VAEConfig, num_moments: int = 2) -> None:
        super().__init__()
        widths, groups = config.block_out_channels, config.norm_num_groups
        last = len(widths) - 1
        self.conv_in = Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(
            DownBlock(widths[max(i - 1, 0)], width, config.layers_per_block, groups, last=i == last)
            for i, width in enumerate(widths)
        )
        self.mid_block = MidBlock(widths[-1], groups, config.mid_block_add_attention)
        self.conv_norm_out = new_norm(widths[-1], groups)
        self.conv_out = Conv2d(widths[-1], num_moments * config.latent_channels, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 3, H, W) to (B, num_moments * C, H/f, W/f)."""
        x = self.conv_in(images)
        for block in self.down_blocks:
            x = block(x)
        x = self.mid_block(x)
        out: Tensor = self.conv_out(activated(x, self.conv_norm_out))
        return out


class Decoder(nn.Module):
    """Turn latents into pictures."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths, groups = config.block_out_channels[::-1], config.norm_num_groups
        last = len(widths) - 1
        self.conv_in = Conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.mid_block = MidBlock(widths[0], groups, config.mid_block_add_attention)
        self.up_blocks = nn.ModuleList(
            UpBlock(
                widths[max(i - 1, 0)], width, config.layers_per_block + 1, groups, last=i == last
            )
            for i, width in enumerate(widths)
        )
        self.conv_norm_out = new_norm(widths[-1], groups)
        self.conv_out = Conv2d(widths[-1], config.out_channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, 3, f*h, f*w)."""
        x = self.mid_block(self.conv_in(z))
        many = z.numel() // z.shape[1] >= _MANY
        gives_back = many and z.device.type == "cpu" and not torch.is_grad_enabled()
        for index, block in enumerate(self.up_blocks, start=-len(self.up_blocks)):
            if gives_back and index >= -2:
                give_back_freed()  # these want the most, and find no room where others were
            x = block(x)
        out: Tensor = self.conv_out(activated(x, self.conv_norm_out))
        return out


class AutoencoderKL(nn.Module):
    """Encode pictures in [-1, 1] to a Gaussian over latents, and decode latents.

    Module names are those of diffusers' AutoencoderKL, and so are the keys of the state dict.
    `num_moments` is what the encoder tells of each value of a latent: mean and log-variance.
    """

    num_moments = 2

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.latent_channels
        moments = self.num_moments * channels
        self.encoder = Encoder(config, self.num_moments)
        self.decoder = Decoder(config)
        self.quant_conv = Conv2d(moments, moments, 1)
        self.post_quant_conv = Conv2d(channels, channels, 1)

    def encode(self, images: Tensor) -> DiagonalGaussian:
        """Map (B, 3, H, W) in [-1, 1] to the posterior over z (B, C, H/f, W/f).

        Raises `VAEError` when a side is not a multiple of f.
        """
        self.config.check_size(*images.shape[-2:])
        return self.posterior(self.quant_conv(self.encoder(images)))

    def posterior(self, moments: Tensor) -> DiagonalGaussian:
        """Turn the encoder's output (B, 2C, h, w) into the posterior that it describes."""
        return DiagonalGaussian.from_moments(moments)

    def decoder_input(self, z: Tensor) -> Tensor:
        """Return what is decoded of z (B, C, h, w): all of it."""
        return z

    def decode(self, z: Tensor) -> Tensor:
        """Map z (B, C, h, w), not scaled, to pictures (B, 3, f*h, f*w), about in [-1, 1].

        z is cast to the weights' type, for posteriors and samplers work in float32.
        """
        weight = self.post_quant_conv.weight
        out: Tensor = self.decoder(self.post_quant_conv(self.decoder_input(z).to(weight.dtype)))
        return out

    def scale(self, z: Tensor) -> Tensor:
        """Turn z into the latents of the diffusion model, of about unit variance."""
        return z * self.config.scaling_factor

    def unscale(self, latents: Tensor) -> Tensor:
        """Turn the diffusion model's latents back into z."""
        return latents / self.config.scaling_factor

    def set_attention_backend(self, name: str) -> None:
        """Use one of `sd_ops.ATTENTION_BACKENDS` in every attention layer.

        Raises `sd_ops.AttentionUnavailable` when it cannot run where the weights are now.
        """
        weight = self.post_quant_conv.weight
        resolve_backend(name, weight.device, weight.dtype)
        for module in self.modules():
            if isinstance(module, SelfAttention):
                module.backend = name

    def forward(
        self, images: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, DiagonalGaussian]:
        """Encode (B, 3, H, W), sample and decode; return the pictures and the posterior."""
        posterior = self.encode(images)
        return self.decode(posterior.sample(generator=generator)), posterior
