"""A plan for other programs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from launch.plan_advice import Remedy
from launch.plan_details import Details
from launch.plan_text import warnings


def as_json(told: Details, remedies: list[Remedy]) -> dict[str, Any]:
    """Everything in bytes, seconds, operations and dollars; unknown figures are null."""
    plan, spread = told.plan, told.plan.spread
    networks = {
        network.name: {
            "parameters": network.parameters,
            "trained": network.moments is not None,
            "bytes": asdict(plan.state(network)),
        }
        for network in plan.networks
    }
    return {
        "config": plan.name,
        "data": plan.description,
        "spread": asdict(spread) | {"share": spread.share, "micro_batches": spread.micro_batches},
        "networks": networks,
        "steps": plan.steps,
        "samples": plan.steps * spread.batch_size,
        "tokens": plan.tokens,
        "flops": {"method": plan.flops, "executed": told.executed},
        "bytes": asdict(plan.states)
        | {"activations": told.activations, "method_state": plan.method_state, "device": told.device_bytes},
        "fits": told.fits,
        "machine": asdict(told.limits),
        "mfu": told.mfu,
        "sent_bytes_per_step": plan.sent_bytes,
        "seconds": told.seconds,
        "step_seconds": {"arithmetic": told.step_seconds, "sending": told.sending_seconds},
        "gpu_hours": None if told.limits.shared else told.seconds * spread.workers / 3600,
        "cost": told.cost,
        "warnings": list(warnings(told)),
        "remedies": [{"settings": remedy.settings, "device_bytes": remedy.device_bytes} for remedy in remedies],
    }
