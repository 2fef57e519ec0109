import pytest
import torch
from torch import Tensor

from sd_vae import DiagonalGaussian, VAEError, VAELoss, VAELossConfig
from sd_vae.losses import details


def pictures() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 16, 16, generator=generator) * 2 - 1
    return images, images + 0.1 * torch.randn(2, 3, 16, 16, generator=generator)


def standard() -> DiagonalGaussian:
    return DiagonalGaussian.from_moments(torch.zeros(2, 8, 2, 2))


def test_a_perfect_picture_under_the_prior_costs_nothing() -> None:
    images, _ = pictures()
    config = VAELossConfig(kl_weight=1.0, gradient_weight=1.0, detail_weight=1.0)
    terms = VAELoss(config)(images, images, standard())
    assert [term.item() for term in terms] == [0.0] * 8


@pytest.mark.parametrize(("name", "power"), [("l1", 1), ("mse", 2)])
def test_reconstruction_is_the_mean_error_of_a_colour_value(name: str, power: int) -> None:
    images, recon = pictures()
    config = VAELossConfig(reconstruction=name)  # type: ignore[arg-type]
    terms = VAELoss(config)(images, recon, standard())
    expected = (recon - images).abs().pow(power).mean()
    torch.testing.assert_close(terms.reconstruction, expected)
    torch.testing.assert_close(terms.total, expected)


def test_kl_is_counted_per_colour_value_of_a_picture() -> None:
    images, _ = pictures()
    moments = torch.zeros(2, 8, 2, 2)
    moments[:, :4] = 1.0  # half a nat for each of the 16 means
    posterior = DiagonalGaussian.from_moments(moments)
    terms = VAELoss(VAELossConfig(kl_weight=0.5))(images, images, posterior)
    assert terms.kl.item() == pytest.approx(8 / (3 * 16 * 16))
    assert terms.total.item() == pytest.approx(0.5 * terms.kl.item())


def test_kl_is_counted_per_value_of_the_picture_that_was_encoded() -> None:
    images, _ = pictures()
    moments = torch.zeros(2, 8, 2, 2)
    moments[:, :4] = 1.0
    posterior = DiagonalGaussian.from_moments(moments)
    half = images[..., :8, :8]
    terms = VAELoss()(half, half, posterior, num_values=images[0].numel())
    assert terms.kl.item() == pytest.approx(8 / (3 * 16 * 16))


def test_a_constant_shift_has_no_gradient_error() -> None:
    images, _ = pictures()
    terms = VAELoss(VAELossConfig(gradient_weight=1.0))(images, images + 0.25, standard())
    assert terms.gradient.item() == pytest.approx(0.0, abs=1e-6)
    assert terms.total.item() == pytest.approx(0.25)


def test_an_edge_costs_more_than_the_same_error_spread_out() -> None:
    images = torch.zeros(1, 3, 16, 16)
    edge, ramp = torch.zeros_like(images), torch.zeros_like(images)
    edge[..., 1::2] = 1.0
    ramp[..., 8:] = 1.0
    loss = VAELoss(VAELossConfig(gradient_weight=1.0))
    posterior = DiagonalGaussian.from_moments(torch.zeros(1, 8, 2, 2))
    assert loss(images, edge, posterior).gradient > loss(images, ramp, posterior).gradient


def test_a_slope_has_its_closed_form_at_all_three_scales() -> None:
    # The error grows by 1 a pixel across: differences are 1, 2 and 4 at the three scales.
    images = torch.zeros(1, 3, 16, 16)
    recon = torch.arange(16.0).expand(1, 3, 16, 16)
    posterior = DiagonalGaussian.from_moments(torch.zeros(1, 8, 2, 2))
    terms = VAELoss(VAELossConfig(gradient_weight=2.0))(images, recon, posterior)
    assert terms.gradient.item() == pytest.approx((1 + 2 + 4) / 3)
    expected = terms.reconstruction + 2.0 * terms.gradient
    torch.testing.assert_close(terms.total, expected, atol=1e-5, rtol=0)


def test_details_are_what_is_narrower_than_seven_pixels() -> None:
    images = torch.full((1, 3, 32, 32), -0.5)
    images[..., 4:6, 4:6] = 0.5  # a dot, brighter than its surroundings by 1
    images[:, 2, 20:26, :] = -1.0  # a line, darker by 0.5 and in one channel alone
    dot, line = details(images)[0, 0, 4:6, 4:6], details(images)[0, 0, 20:26]
    torch.testing.assert_close(dot, torch.full((2, 2), 1.0))
    torch.testing.assert_close(line, torch.full((6, 32), 0.5))
    assert details(images)[0, 0, 12:18].abs().max() == 0


def test_the_edge_between_two_halves_is_no_detail() -> None:
    images = torch.full((1, 3, 32, 32), -1.0)
    images[..., 16:] = 1.0
    assert details(images).abs().max() == 0


def test_the_error_on_a_detail_costs_its_contrast_times_the_weight() -> None:
    images = torch.zeros(1, 3, 32, 32)
    images[..., 8:10, 8:10] = 0.5
    posterior = DiagonalGaussian.from_moments(torch.zeros(1, 8, 4, 4))
    terms = VAELoss(VAELossConfig(detail_weight=4.0))(images, torch.zeros_like(images), posterior)
    expected = 0.5 * 0.5 * 4 / (32 * 32)
    assert terms.detail.item() == pytest.approx(expected)
    assert terms.total.item() == pytest.approx(terms.reconstruction.item() + 4.0 * expected)


def test_perceptual_and_adversarial_terms_are_added_as_they_are() -> None:
    images, recon = pictures()
    plain = VAELoss()(images, recon, standard()).total
    loss = VAELoss(
        perceptual=lambda images, recon: 3.0 * (images - recon).square().mean(),
        adversarial=lambda images, recon, others: recon.mean(),  # noqa: ARG005
    )
    expected = plain + 3.0 * (images - recon).square().mean() + recon.mean()
    torch.testing.assert_close(loss(images, recon, standard()).total, expected)


def test_a_perceptual_term_has_a_weight() -> None:
    images, recon = pictures()
    terms = VAELoss(
        VAELossConfig(perceptual_weight=0.5),
        perceptual=lambda images, recon: (images - recon).square().mean(),
    )(images, recon, standard())
    torch.testing.assert_close(terms.perceptual, (images - recon).square().mean())
    torch.testing.assert_close(terms.total, terms.reconstruction + 0.5 * terms.perceptual)


def test_a_learnt_logvar_divides_the_error_and_is_added() -> None:
    images, recon = pictures()
    config = VAELossConfig(learn_logvar=True, logvar_init=-1.5, kl_weight=0.25, gradient_weight=1.0)
    posterior = DiagonalGaussian.from_moments(torch.ones(2, 8, 2, 2))
    terms = VAELoss(config)(images, recon, posterior)
    error = terms.reconstruction + terms.gradient
    expected = error * torch.tensor(1.5).exp() - 1.5 + 0.25 * terms.kl
    torch.testing.assert_close(terms.total, expected)


def test_a_learnt_logvar_comes_to_the_logarithm_of_the_error() -> None:
    images, recon = pictures()
    loss = VAELoss(VAELossConfig(learn_logvar=True, kl_weight=0.0))
    (logvar,) = loss.parameters()
    optimizer = torch.optim.SGD([logvar], lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        terms = loss(images, recon, standard())
        terms.total.backward()
        optimizer.step()
    torch.testing.assert_close(logvar.detach(), terms.reconstruction.log(), atol=1e-3, rtol=0)


def test_without_learning_it_there_is_no_logvar() -> None:
    assert not list(VAELoss().parameters())


def test_the_loss_of_a_bfloat16_picture_is_float32() -> None:
    images, recon = pictures()
    assert VAELoss()(images, recon.bfloat16(), standard()).total.dtype == torch.float32


def test_an_unknown_reconstruction_is_refused_with_the_two_there_are() -> None:
    with pytest.raises(VAEError, match="'huber'; choose l1 or mse"):
        VAELossConfig(reconstruction="huber")  # type: ignore[arg-type]
