"""Each published family's UNet with few and narrow layers."""

from sd_unet import UNetConfig

TINY = {
    # Four levels, the last without attention, two layers, eight heads everywhere.
    "sd15": UNetConfig(
        sample_size=16,
        block_out_channels=(32, 64, 96, 96),
        cross_attention_dim=48,
        norm_num_groups=16,
    ),
    # Scenes' kind: one layer, and the level in the middle has no attention.
    "gap": UNetConfig(
        sample_size=16,
        block_out_channels=(32, 64, 64),
        attention_levels=(True, False, True),
        layers_per_block=1,
        cross_attention_dim=24,
        num_heads=4,
    ),
    # Linear projections and heads of one width at every level.
    "sd21": UNetConfig(
        sample_size=16,
        block_out_channels=(32, 64, 128, 128),
        layers_per_block=1,
        cross_attention_dim=48,
        num_heads=(1, 2, 4, 4),
        use_linear_projection=True,
        upcast_attention=True,
    ),
    # Three levels, the first without attention, deep at the last; a pooled text and six sizes.
    "sdxl": UNetConfig(
        sample_size=16,
        block_out_channels=(32, 64, 128),
        attention_levels=(False, True, True),
        cross_attention_dim=40,
        num_heads=(1, 2, 4),
        transformer_layers=(1, 2, 3),
        use_linear_projection=True,
        addition_time_embed_dim=8,
        projection_input_dim=24 + 6 * 8,
    ),
    # Attention on the two levels between; five sizes.
    "sdxl-refiner": UNetConfig(
        sample_size=16,
        block_out_channels=(32, 64, 96, 96),
        attention_levels=(False, True, True, False),
        layers_per_block=1,
        cross_attention_dim=24,
        num_heads=(1, 2, 3, 3),
        transformer_layers=2,
        use_linear_projection=True,
        addition_time_embed_dim=8,
        projection_input_dim=24 + 5 * 8,
    ),
    "inpainting": UNetConfig(
        in_channels=9,
        block_out_channels=(32, 64),
        attention_levels=(True, False),
        layers_per_block=1,
        cross_attention_dim=24,
    ),
}
POOLED_DIM = 24
