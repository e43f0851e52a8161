"""The discriminator's loss: adversarial term, DLLE, DIsoMap, entropy of real codes, gradient penalties."""

from __future__ import annotations

import torch
from torch import Tensor

from generative.method import Batch, Context, Loss, Mean, Networks
from generative.methods.mee_gan.config import MeeGanConfig
from generative.methods.mee_gan.losses import ADVERSARIAL, disomap, dlle, gradient_penalty, mix, realness
from generative.methods.mee_gan.memory import CodeMemory
from generative.methods.mee_gan.passes import Draws, Pass, encode, rows_that_count


def discriminator_loss(config: MeeGanConfig, nets: Networks, batch: Batch, context: Context) -> Loss:
    """L_D = L_adv + L_DLLE + L_Iso + w L_ent(real codes) + gamma/2 (R1, R2), summed over valid rows (spec 2)."""
    draws, valid = Draws(config, context, batch["sample_id"]), batch["valid"]
    images = _images(config, nets, batch, context, draws)
    codes = encode(nets["discriminator"], images, _passes(config), draws, config.separate_forwards)
    real, fake = realness(codes["real"]), realness(codes["fake"])
    parts = {"adversarial": (1.0, ADVERSARIAL[config.adversarial].discriminator(real, fake))}
    if config.dlle.weight:
        pairs = [dlle(codes[name], codes[f"{name}_augmented"], config.dlle.form) for name in ("real", "fake")]
        parts["dlle"] = (config.dlle.weight, pairs[0] + pairs[1])
    if config.iso.weight:
        target = mix(codes["real"], codes["fake"], images["alpha"]) + draws.iso()
        parts["disomap"] = (config.iso.weight, disomap(codes["mix"], target, config.iso.form))
    if torch.is_grad_enabled():
        parts |= _penalties(config, images, real, fake)
    value = sum_of(parts, valid)
    term = CodeMemory(config, "real").term(codes["real"], (parts["adversarial"][1] * valid).sum(), batch, context)
    metrics = means_of(parts, valid) | {"real": Mean.of(real, valid), "fake": Mean.of(fake, valid)} | term.metrics
    return Loss(value if term.value is None else value + term.value, metrics, term.state)


def sum_of(parts: dict[str, tuple[float, Tensor]], valid: Tensor) -> Tensor:
    """Weighted sum over terms and valid rows."""
    return torch.stack([weight * (values * valid).sum() for weight, values in parts.values()]).sum()


def means_of(parts: dict[str, tuple[float, Tensor]], valid: Tensor) -> dict[str, Mean]:
    """Each term without its weight, as a metric."""
    return {name: Mean.of(values.detach(), valid) for name, (_, values) in parts.items()}


def _images(config: MeeGanConfig, nets: Networks, batch: Batch, context: Context, draws: Draws) -> dict[str, Tensor]:
    """Everything that the discriminator sees, by name; and alpha."""
    real = batch["sample"]
    with torch.no_grad():
        fake: Tensor = nets["generator"](draws.latent(), rows_that_count(batch, context))
    images = {"real": real, "fake": fake}
    if config.dlle.weight:
        images |= {f"{name}_augmented": draws.augmented(images[name], name) for name in ("real", "fake")}
    if config.iso.weight:
        images["alpha"] = draws.alpha()
        images["mix"] = mix(real, fake, images["alpha"])
    if config.r1:
        images["real"] = real.detach().requires_grad_()
    if config.r2:
        images["fake"] = fake.detach().requires_grad_()
    return images


def _passes(config: MeeGanConfig) -> list[Pass]:
    """One pass with gradient, one without for the targets of DLLE; or one for each batch, as released."""
    trained = ["real", "fake"] + (["mix"] if config.iso.weight else [])
    augmented = ["real_augmented", "fake_augmented"] if config.dlle.weight else []
    constant = config.dlle.form == "code"
    if config.separate_forwards:
        order = ["real", "fake", *augmented, *trained[2:]]
        return [Pass([name], graph=not constant or name not in augmented) for name in order]
    if not constant:
        trained, augmented = trained + augmented, []
    # A penalty differentiates twice: the rows that it does not concern stay out of that.
    alone = ["real"] if config.r1 and not config.r2 else ["fake"] if config.r2 and not config.r1 else []
    groups = [alone, [name for name in trained if name not in alone]]
    return [Pass(names) for names in groups if names] + ([Pass(augmented, graph=False)] if augmented else [])


def _penalties(
    config: MeeGanConfig, images: dict[str, Tensor], real: Tensor, fake: Tensor
) -> dict[str, tuple[float, Tensor]]:
    """R1 on real images and R2 on generated ones, each gamma/2 times the squared norm of the gradient."""
    found = {}
    if config.r1:
        found["r1"] = (config.r1 / 2, gradient_penalty(real, images["real"]))
    if config.r2:
        found["r2"] = (config.r2 / 2, gradient_penalty(fake, images["fake"]))
    return found
