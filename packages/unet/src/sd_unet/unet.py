"""The latent UNet, told by text, by classes, or by both."""

from collections.abc import Callable

from torch import Tensor, nn

from sd_ops import Conv2d, norm_silu, resolve_backend
from sd_unet.batches import as_many
from sd_unet.blocks import Block, DownBlock, MidBlock, UpBlock
from sd_unet.conditions import AddedConditions, embed_conditions
from sd_unet.config import UNetConfig
from sd_unet.errors import UNetInputError
from sd_unet.pixel_attention import PixelAttention
from sd_unet.resnet import ResnetBlock
from sd_unet.timestep import TimestepEmbedding, sinusoidal_embedding
from sd_unet.told import check_told, new_class_table, with_classes
from sd_unet.transformer import Attention, SpatialTransformer

Below = Callable[[Tensor, Tensor, Tensor | None, list[Tensor]], Tensor]
"""What stands for the levels below the finest: of x, the time, the text and the skips so far."""


class UNet(nn.Module):
    """The denoising network of latent diffusion (Rombach et al., arXiv:2112.10752, section 3.3).

    Its state-dict keys are those of diffusers' UNet2DConditionModel, or, where it hears no text,
    of UNet2DModel. A new one predicts zero: the last layer of each residual branch starts at zero
    (Dhariwal and Nichol, arXiv:2105.05233).
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        first, levels = config.block_out_channels[0], range(config.num_levels)
        self.conv_in = Conv2d(config.in_channels, first, kernel_size=3, padding=1)
        self.time_embedding = TimestepEmbedding(first, config.time_embed_dim)
        self.add_embedding: TimestepEmbedding | None = None
        if config.projection_input_dim is not None:
            self.add_embedding = TimestepEmbedding(
                config.projection_input_dim, config.time_embed_dim
            )
        self.class_embedding = _class_embedding(config)
        self.down_blocks = nn.ModuleList(DownBlock(config, level) for level in levels)
        self.mid_block = MidBlock(config)
        self.up_blocks = nn.ModuleList(UpBlock(config, level) for level in reversed(levels))
        self.conv_norm_out = nn.GroupNorm(config.norm_num_groups, first, eps=config.norm_eps)
        self.conv_out = Conv2d(first, config.out_channels, kernel_size=3, padding=1)
        self.below: Below | None = None
        self._zero_branches()

    def forward(
        self,
        latents: Tensor,
        timesteps: Tensor,
        hidden_states: Tensor | None = None,
        added: AddedConditions | None = None,
        class_labels: Tensor | None = None,
    ) -> Tensor:
        """Predict (B, C, H, W) from latents, timesteps (B,) and the text's states (B, T, D).

        Any H and W will do; timesteps are whole or between, in the training schedule's units.
        With R texts for each of the latents, (R * B, T, D) in R rows of B one after the other, the
        result is (R * B, C, H, W), and what comes before the first text is computed once.
        SDXL's networks want ``added``, as long as the texts, and others want none; those with
        classes want ``class_labels`` (R * B,), or (R * B, D) of ``class_embed_type`` "identity";
        and those that hear no text want no states. Else ``UNetInputError`` is raised, as it is for
        texts or classes that are no multiple of the latents.
        """
        check_told(self.config, latents, hidden_states, class_labels)
        steering = self.steering(latents, timesteps, hidden_states, added, class_labels)
        return self.steered(latents, steering, hidden_states)

    def steering(
        self,
        latents: Tensor,
        timesteps: Tensor,
        hidden_states: Tensor | None = None,  # noqa: ARG002  (a DiT's may be told by their mean)
        added: AddedConditions | None = None,
        class_labels: Tensor | None = None,
    ) -> Tensor:
        """Return what every res block reads, (B, D) or (R * B, D): time, `added` and classes.

        It is little work, and the only one that wants timesteps and sizes in float32. Arguments are
        those of ``forward``, unchecked.
        """
        time_embedding = self._embed_time(latents, timesteps, added)
        return with_classes(time_embedding, self.class_embedding, class_labels)

    def steered(
        self, latents: Tensor, steering: Tensor, hidden_states: Tensor | None = None
    ) -> Tensor:
        """Predict (R * B, C, H, W) from latents (B, C, H, W) and what ``steering`` gave for them.

        Nearly all of the network's work: what other engines convert.
        """
        latents = as_many(latents, steering)  # what is told is in it already
        x = self.conv_in(latents)
        skips = [x]
        x, new_skips = self.down_blocks[0](x, steering, hidden_states)
        skips += new_skips
        below = self.below or self.through_below
        x = below(x, steering, hidden_states, skips)
        x = self.up_blocks[-1](x, steering, hidden_states, skips)
        out: Tensor = self.conv_out(norm_silu(x, self.conv_norm_out))
        return out

    def set_attention_backend(self, name: str) -> None:
        """Choose the attention of every layer by a name of ``sd_ops.ATTENTION_BACKENDS``.

        Raises ``sd_ops.AttentionUnavailable`` with the reason if it cannot run where the weights
        are now.
        """
        weight = self.conv_in.weight
        resolve_backend(name, weight.device, weight.dtype)
        for module in self.modules():
            if isinstance(module, Attention):
                module.backend = name

    @property
    def gradient_checkpointing(self) -> bool:
        """Whether activations are recomputed in the backward pass, to save memory."""
        return self.mid_block.gradient_checkpointing

    @gradient_checkpointing.setter
    def gradient_checkpointing(self, value: bool) -> None:
        for module in self.modules():
            if isinstance(module, Block):
                module.gradient_checkpointing = value

    def through_below(
        self, x: Tensor, time_embedding: Tensor, hidden_states: Tensor | None, skips: list[Tensor]
    ) -> Tensor:
        """Return what comes up to the finest level, leaving ``skips`` with that level's own."""
        for down_block in self.down_blocks[1:]:
            x, new_skips = down_block(x, time_embedding, hidden_states)
            skips += new_skips
        x = self.mid_block(x, time_embedding, hidden_states)
        for up_block in self.up_blocks[:-1]:
            x = up_block(x, time_embedding, hidden_states, skips)
        return x

    def _embed_time(
        self, latents: Tensor, timesteps: Tensor, added: AddedConditions | None
    ) -> Tensor:
        """Return what every res block reads, (B, D): the time and, in SDXL, ``added``."""
        sinusoids = sinusoidal_embedding(timesteps, self.config.block_out_channels[0])
        time_embedding: Tensor = self.time_embedding(sinusoids.to(latents.dtype))
        if self.add_embedding is None:
            if added is not None:
                raise UNetInputError("this UNet takes no added conditions: leave `added` out")
            return time_embedding
        if added is None:
            raise UNetInputError(
                "this UNet wants the pooled text and the sizes: give `added=AddedConditions(...)`"
            )
        conditions = embed_conditions(self.config, added, time_embedding.dtype)
        embedded: Tensor = self.add_embedding(conditions)
        return as_many(time_embedding, embedded) + embedded

    def _zero_branches(self) -> None:
        last_layers: list[nn.Module] = [self.conv_out]
        for module in self.modules():
            if isinstance(module, ResnetBlock):
                last_layers.append(module.conv2)
            elif isinstance(module, SpatialTransformer):
                last_layers.append(module.proj_out)
            elif isinstance(module, PixelAttention):
                last_layers.append(module.to_out)
        for layer in last_layers:
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)


def _class_embedding(config: UNetConfig) -> nn.Module | None:
    """Make what classes are embedded by, under diffusers' name; None where there are none."""
    if config.class_embed_type == "timestep":
        return TimestepEmbedding(config.block_out_channels[0], config.time_embed_dim)
    if config.class_embed_type == "identity":
        return nn.Identity()
    if config.num_class_embeds is None:
        return None
    return new_class_table(config.num_class_embeds, config.time_embed_dim)
