"""What a training step costs, in multiply-adds of one sample."""

from __future__ import annotations

from generative.methods.f_distill.backbone import Views


def step_multiply_adds(views: Views, heads: int) -> float:
    """Of one step: all updates of the critic, and one of the student.

    Backward is twice the forward, once where only inputs take gradients. What adapters add is not counted.

    Args:
        views: the networks that there are, and how they are asked.
        heads: multiply-adds of the discriminator's heads; 0: there are none.
    """
    config, net, encoder = views.config, views.parts.multiply_adds, views.parts.encoder_multiply_adds
    passes, trained = 2 + (config.r1.weight > 0), 3 if config.lora is None else 2
    guidance = config.guidance != 1.0 and views.parts.guidable
    # Calls on the way to a step: 0 .. steps - 1, each as likely.
    simulated = len(config.steps.levels) if config.steps.input == "simulated" else 0
    draw = net * (1 + simulated / 2)
    if views.joint and config.backbone != "teacher":
        further = (passes - 1) * encoder * (trained if config.backbone == "fake" else 1)
        critic = draw + trained * net + further + 3 * passes * heads
    else:
        draws = 1 if views.joint else 1 + views.judged
        critic = draws * draw + trained * net + views.judged * passes * (encoder + 3 * heads)
    # Student with its backward pass, fake score, teacher, and back through the encoder that the heads look at.
    student = draw + (4 + guidance) * net + heads + (config.gan_weight > 0) * (encoder + heads)
    return config.critic_updates * critic + student
