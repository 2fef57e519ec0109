import pytest
import torch
from torch import Tensor, nn

from sd_vae import (
    AdversarialLoss,
    DiagonalGaussian,
    Discriminator,
    DiscriminatorConfig,
    VAEError,
    VAELoss,
    adaptive_weight,
)


def tiny(norm: str = "batch") -> Discriminator:
    torch.manual_seed(0)
    return Discriminator(DiscriminatorConfig(num_filters=4, num_layers=2, norm=norm))  # type: ignore[arg-type]


def pictures() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 16, 16, generator=generator) * 2 - 1
    return images, images + 0.1 * torch.randn(2, 3, 16, 16, generator=generator)


def test_it_has_as_many_parameters_as_the_published_discriminator_of_pairs() -> None:
    # pix2pix: pairs of pictures, "2.769 M"
    pairs = Discriminator(DiscriminatorConfig(in_channels=6))
    assert sum(p.numel() for p in pairs.parameters()) == 2_768_705


def test_a_logit_sees_seventy_pixels_a_side() -> None:
    judge = Discriminator(DiscriminatorConfig(num_filters=1))
    for index, layer in enumerate(judge.main):
        if isinstance(layer, nn.BatchNorm2d):
            judge.main[index] = nn.Identity()  # a batch's statistics are of all pixels
    images = torch.randn(1, 3, 128, 128, requires_grad=True)
    logits = judge(images)
    assert logits.shape == (1, 1, 14, 14)
    logits[0, 0, 7, 7].backward()
    assert images.grad is not None
    seen = images.grad.abs().sum((0, 1)) > 0
    assert (int(seen.any(0).sum()), int(seen.any(1).sum())) == (70, 70)


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_the_least_picture_has_one_logit_and_a_smaller_one_is_refused(norm: str) -> None:
    judge = tiny(norm)
    assert judge.config.least_size == 12
    assert judge(torch.zeros(2, 3, 12, 12)).shape == (2, 1, 1, 1)
    with pytest.raises(VAEError, match=r"8x16 is too small .* take 12 px or more"):
        judge(torch.zeros(2, 3, 16, 8))


def test_a_batch_leaves_nothing_in_it_but_gradients() -> None:
    judge = tiny()
    before = {key: value.clone() for key, value in judge.state_dict().items()}
    judge(torch.full((2, 3, 16, 16), torch.nan))
    assert all(torch.equal(before[key], value) for key, value in judge.state_dict().items())


def test_mistaken_architectures_and_losses_are_refused() -> None:
    with pytest.raises(VAEError, match="num_layers 0 is too few"):
        DiscriminatorConfig(num_layers=0)
    with pytest.raises(VAEError, match=r"'layer' .* choose batch or group"):
        DiscriminatorConfig(norm="layer")  # type: ignore[arg-type]
    with pytest.raises(VAEError, match="'wgan'; choose hinge or non_saturating"):
        AdversarialLoss(tiny(), None, kind="wgan")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["hinge", "non_saturating"])
def test_both_sides_have_their_closed_forms(kind: str) -> None:
    judge, (images, recon) = tiny(), pictures()
    game = AdversarialLoss(judge, None, weight=0.25, kind=kind)  # type: ignore[arg-type]
    real, fake = judge(images), judge(recon)
    loss, mean_real, mean_fake = game.of_discriminator(images, recon)
    if kind == "hinge":
        wanted = ((1 - real).clamp(min=0).mean() + (1 + fake).clamp(min=0).mean()) / 2
        decoder = -fake.mean()
    else:
        wanted = -(real.sigmoid().log().mean() + (1 - fake.sigmoid()).log().mean()) / 2
        decoder = -fake.sigmoid().log().mean()
    torch.testing.assert_close(loss, wanted)
    torch.testing.assert_close((mean_real, mean_fake), (real.mean(), fake.mean()))
    torch.testing.assert_close(game.of_decoder(recon, recon.mean()), 0.25 * decoder)


def test_neither_side_gives_gradients_to_the_other() -> None:
    judge, (images, recon) = tiny(), pictures()
    recon.requires_grad_(True)
    game = AdversarialLoss(judge, None)
    game.of_decoder(recon, recon.mean()).backward()
    assert recon.grad is not None
    assert recon.grad.abs().sum() > 0
    assert all(p.grad is None and p.requires_grad for p in judge.parameters())
    recon.grad = None
    game.of_discriminator(images, recon)[0].backward()
    assert recon.grad is None
    assert all(p.grad is not None for p in judge.parameters())


@pytest.mark.parametrize("kind", ["hinge", "non_saturating"])
def test_it_learns_to_tell_pictures_from_smoothed_ones_and_to_ask_for_sharper_ones(
    kind: str,
) -> None:
    judge, (images, _) = tiny(), pictures()
    smooth = nn.functional.avg_pool2d(images, 3, stride=1, padding=1)
    game = AdversarialLoss(judge, None, kind=kind)  # type: ignore[arg-type]
    optimizer = torch.optim.Adam(judge.parameters(), lr=1e-2, betas=(0.5, 0.9))
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss, real, fake = game.of_discriminator(images, smooth)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
    assert real > fake
    smooth.requires_grad_(True)
    game.of_decoder(smooth, smooth.mean()).backward()
    assert smooth.grad is not None
    assert (smooth.grad * (images - smooth)).sum() < 0  # the loss falls towards the picture


def test_the_adaptive_weight_lets_both_losses_pull_equally_at_the_last_layer() -> None:
    torch.manual_seed(0)
    layer, x = nn.Conv2d(3, 3, 1), torch.randn(2, 3, 16, 16)
    game = AdversarialLoss(tiny(), layer.weight, weight=1.0)
    recon = layer(x)
    others = 3.0 * (recon - x).abs().mean()
    pulls = [
        torch.autograd.grad(loss, layer.weight, retain_graph=True)[0].norm()
        for loss in (others, game.of_decoder(recon, others))
    ]
    torch.testing.assert_close(pulls[0], pulls[1], rtol=1e-3, atol=0)


def test_the_adaptive_weight_is_a_ratio_that_has_a_limit_and_no_scale() -> None:
    layer = nn.Parameter(torch.tensor([3.0, 4.0]))
    loss = (layer * layer).sum() / 2  # a gradient of length 5
    torch.testing.assert_close(adaptive_weight(loss, 0.5 * loss, layer), torch.tensor(2.0))
    scaled = adaptive_weight(loss, 0.5 * loss, layer, scale=1000)
    torch.testing.assert_close(scaled, torch.tensor(2.0))
    assert adaptive_weight(loss, 0 * loss, layer) == 1e4


def test_the_loss_hands_pictures_and_all_other_terms_to_the_adversarial_one() -> None:
    images, recon = pictures()
    posterior = DiagonalGaussian.from_moments(torch.zeros(2, 8, 2, 2))
    given: list[Tensor] = []

    def adversarial(*tensors: Tensor) -> Tensor:
        given.extend(tensors)
        return tensors[2] * 0 + 7.0

    plain = VAELoss()(images, recon, posterior)
    terms = VAELoss(adversarial=adversarial)(images, recon, posterior)
    assert given[0] is images
    assert given[1] is recon
    assert torch.equal(given[2], plain.total)
    torch.testing.assert_close(terms.total, plain.total + 7.0)
    assert terms.adversarial == 7.0
