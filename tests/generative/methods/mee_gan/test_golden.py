"""Losses, gradients, the released buffer, and whole steps against the released code and closed forms."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from generative.method import Alone, Context, DataFacts
from generative.methods.mee_gan.config import MeeGanConfig
from generative.methods.mee_gan.entropy import ShrinkingBuffer, differential_entropy, entropy, pick, push
from generative.methods.mee_gan.losses import ADVERSARIAL, disomap, dlle, mix, realness
from generative.methods.mee_gan.method import MeeGan

GOLDEN = Path(__file__).parents[3] / "golden" / "mee_gan"


def load(name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(GOLDEN / f"{name}.safetensors", "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118


def everyone(codes: Tensor) -> Tensor:
    return torch.ones(len(codes), dtype=torch.bool)


def same(found: Tensor, wanted: Tensor, rtol: float = 1e-9) -> None:
    torch.testing.assert_close(found, wanted, rtol=rtol, atol=rtol * 1e-3)


TERMS = {
    "maf_D": (
        ("t_z", "f_z"),
        lambda g: ADVERSARIAL["wasserstein"].discriminator(realness(g["t_z"]), realness(g["f_z"])),
    ),
    "maf_G": (("f_z",), lambda g: ADVERSARIAL["wasserstein"].generator(realness(g["f_z"]), realness(g["f_z"]))),
    "dlle_code": (("t_z", "f_z"), lambda g: dlle(g["t_z"], g["t_z_aug"]) + dlle(g["f_z"], g["f_z_aug"])),
    "dlle_paper": (
        ("t_z", "f_z", "t_z_aug", "f_z_aug"),
        lambda g: dlle(g["t_z"], g["t_z_aug"], "paper") + dlle(g["f_z"], g["f_z_aug"], "paper"),
    ),
    "iso_code": (("iso.d_mix",), lambda g: disomap(g["iso.d_mix"], target(g))),
    "iso_paper": (("iso.d_mix",), lambda g: disomap(g["iso.d_mix"], target(g), "paper")),
}


def target(golden: dict[str, Tensor]) -> Tensor:
    return mix(golden["t_z"], golden["f_z"], golden["iso.alpha"][:, 0]) + golden["iso.noise"]


@pytest.mark.parametrize("name", ["losses_a", "losses_b"])
@pytest.mark.parametrize("term", TERMS)
def test_terms_and_their_gradients(name: str, term: str) -> None:
    golden, _ = load(name)
    inputs, values = TERMS[term]
    for key in inputs:
        golden[key].requires_grad_()
    loss = values(golden).mean()
    same(loss, golden[f"{term}.loss"])
    for key, gradient in zip(inputs, torch.autograd.grad(loss, [golden[key] for key in inputs]), strict=True):
        same(gradient, golden[f"{term}.grad_{key.removeprefix('iso.')}"])


@pytest.mark.parametrize("name", ["losses_a", "losses_b"])
def test_mixed_images_and_targets(name: str) -> None:
    golden, _ = load(name)
    same(mix(golden["iso.x_real"], golden["iso.x_fake"], golden["iso.alpha"][:, 0]), golden["iso.x_mix"])
    same(target(golden), golden["iso.target"])


FORMS = {
    "ent_l2_logmean": {"form": "log_mean"},
    "ent_l2_meanlog": {"form": "mean_log"},
    "ent_cos.lam0": {"form": "cosine"},
    "ent_cos.lam5": {"form": "cosine", "norm_weight": 5.0},
}


@pytest.mark.parametrize("name", ["losses_a", "losses_b"])
@pytest.mark.parametrize("form", FORMS)
def test_entropy_and_its_gradient(name: str, form: str) -> None:
    golden, _ = load(name)
    codes = golden["f_z"].requires_grad_()
    found = entropy(codes, golden["ent.buffer"], everyone(codes), Alone(), **FORMS[form])
    same(found.term, golden[f"{form}.loss"])
    same(torch.autograd.grad(found.values.mean(), codes)[0], golden[f"{form}.grad_f_z"])
    if form == "ent_l2_logmean":
        same(found.nearest, golden[f"{form}.nn_dist"])
        same(pick(codes, golden["ent.buffer"], 1), golden["ent.buffer"][golden[f"{form}.nn_index"]])
    if form.startswith("ent_cos"):
        same(found.nearest, golden["ent_cos.nn_cos"])
        same(pick(codes, golden["ent.buffer"], 1, cosine=True), golden["ent.buffer"][golden["ent_cos.nn_index"]])


@pytest.mark.parametrize("name", ["losses_a", "losses_b"])
@pytest.mark.parametrize("neighbour", [1, 3, 5])
def test_entropy_in_nats(name: str, neighbour: int) -> None:
    golden, _ = load(name)
    same(differential_entropy(golden["kl.points"], neighbour), golden[f"kl.k{neighbour}.entropy"])


def test_the_released_buffer_shrinks_to_the_batch_before() -> None:
    golden, _ = load("released_buffer_a")
    first = golden["buffer0"]
    buffer = ShrinkingBuffer(first, torch.tensor(len(first)))
    lengths = [len(first)]
    for call in range(6):
        codes = golden[f"codes{call}"].clone().requires_grad_()
        others = buffer.columns(torch.arange(len(codes)))
        found = entropy(codes, others, everyone(codes), Alone())
        same((-found.term).exp(), golden[f"mean_min{call}"], 1e-5)
        same(5e-4 * found.term, golden[f"loss{call}"], 1e-5)
        same(torch.autograd.grad(5e-4 * found.values.mean(), codes)[0], golden[f"grad{call}"], 1e-5)
        buffer = buffer.push(codes.detach())
        lengths.append(int(buffer.length))
    assert lengths == golden["buffer_len"].tolist()
    same(buffer.rows[: int(buffer.length)], golden["buffer_final"])


@dataclass(frozen=True)
class Shares:
    """Collectives of one of several ranks whose tensors are all known: sums and gathers over the ranks' shares."""

    rank: int
    world: int
    codes: list[Tensor]
    nearest: list[Tensor] = field(default_factory=list)

    def sum(self, tensor: Tensor) -> Tensor:
        return torch.stack(
            [torch.stack([n.sum(), torch.tensor(float(len(n)), dtype=n.dtype)]) for n in self.nearest]
        ).sum(0)

    def gather(self, tensor: Tensor) -> Tensor:
        return torch.cat(self.codes)


def test_entropy_over_ranks_has_the_gradient_of_the_global_mean() -> None:
    golden, meta = load("ddp_entropy_a")
    codes, buffer = golden["codes"], golden["buffer"]
    world = int(meta["world"])
    shares = list(codes.chunk(world))
    nearest = [(part - pick(part, buffer, 1)).square().mean(1) for part in shares]
    gradients = []
    for rank, part in enumerate(shares):
        mine = part.clone().requires_grad_()
        found = entropy(mine, buffer, everyone(mine), Shares(rank, world, shares, nearest))
        same(found.term, golden["global_loss"])
        # The trainer divides the sum of values by the global number of samples.
        gradients.append(torch.autograd.grad(found.values.sum() / len(codes), mine)[0])
    same(torch.cat(gradients), golden["grad_global"])
    assert not torch.allclose(torch.cat(gradients), golden["grad_naive"], rtol=1e-3)
    same(push(buffer, codes), golden["buffer_after_fifo"])


# ---------------------------------------------------------------------- whole steps


@dataclass(frozen=True)
class Recorded:
    """Streams that hand out what the released code drew."""

    golden: dict[str, Tensor]

    def normal(self, name: str, samples: Tensor, shape: tuple[int, ...] = ()) -> Tensor:
        names = {
            "z": "z",
            "alpha": "alpha",
            "code.real": "eps_real",
            "code.fake": "eps_fake",
            "code.real_augmented": "eps_real_aug",
            "code.fake_augmented": "eps_fake_aug",
            "code.mix": "eps_mix",
            "code.generated": "eps_G",
            "augment.real": "aug_noise_real",
            "augment.fake": "aug_noise_fake",
            "iso": "iso_noise",
        }
        found = self.golden[names[name]]
        # What is recorded has its scale already.
        return (found / 0.05 if name == "iso" else found).reshape(len(samples), *shape)

    def shared_uniform(self, name: str) -> Tensor:
        dims = dict(zip(("flip.real", "flip.fake"), self.golden["flip_dims"].tolist(), strict=True))
        return torch.tensor(0.25 if dims[name] == 2 else 0.75)


@pytest.mark.parametrize("name", ["train_step_epoch50", "train_step_epoch150"])
def test_one_step_of_the_released_code(name: str) -> None:
    golden, meta = load(name)
    size, lr = int(meta["buffer"]), float(meta["lr"])
    config = MeeGanConfig(
        preset="released",
        network={"name": "dcgan", "width": int(meta["G_h_size"]), "discriminator_width": int(meta["D_h_size"])},
        latent=int(meta["z_dim"]),
        code=int(meta["outcomes"]),
        buffer_size=size,
        buffer_columns=4,
        discriminator_updates=1,
        entropy={"weight": float(meta["sigma"]), "warmup_batches": 100, "warmup_every": 1},
    )
    method = MeeGan(config, DataFacts(sample_shape=(3, 32, 32)))
    nets = {name: spec.build() for name, spec in method.networks().items()}
    nets["generator"].load_state_dict({k.removeprefix("G0."): v for k, v in golden.items() if k.startswith("G0.")})
    nets["discriminator"].load_state_dict({k.removeprefix("D0."): v for k, v in golden.items() if k.startswith("D0.")})
    state = {
        f"{kind}_{what}": value
        for kind, short in (("real", "real"), ("generated", "gen"))
        for what, value in (("codes", golden[f"buffer_{short}0"]), ("length", torch.tensor(size)))
    }
    ids = torch.arange(4)
    batch = {"sample": golden["x_real"], "sample_id": ids, "position": ids, "valid": torch.ones(4, dtype=torch.bool)}
    context = Context(
        step=int(meta["epoch"]),
        streams=Recorded(golden),  # type: ignore[arg-type]
        shared=Recorded(golden),  # type: ignore[arg-type]
        global_batch=4,
        state=state,
    )
    metrics = {}
    for update in method.updates():
        net = nets[update.trains]
        for other in nets.values():
            other.requires_grad_(other is net)
        if update.trains == "discriminator":
            assert net.fc is not None
            net.fc.requires_grad_(False)
        trained = [p for p in net.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(trained, lr=lr, betas=tuple(map(float, meta["betas"].split(","))))
        loss = method.loss(update, nets, batch, context)
        (loss.value / method.divisor(update, batch, context)).backward()
        for key, parameter in net.named_parameters():
            wanted = golden[f"{update.trains[0].upper()}grad.{key}"]
            found = torch.zeros_like(wanted) if parameter.grad is None else parameter.grad
            torch.testing.assert_close(found, wanted, rtol=2e-3, atol=1e-6)
        optimizer.step()
        metrics[update.trains] = {key: float(mean.total / mean.count) for key, mean in loss.metrics.items()}
        state |= loss.new_state or {}
    _check_losses(metrics, golden)
    _check_weights(nets, golden, lr)
    for kind, short in (("real", "real"), ("generated", "gen")):
        same(state[f"{kind}_codes"][: int(state[f"{kind}_length"])], golden[f"buffer_{short}1"], 1e-4)


def _check_losses(metrics: dict[str, dict[str, float]], golden: dict[str, Tensor]) -> None:
    of_d, of_g = metrics["discriminator"], metrics["generator"]
    wanted = {"dlle": "loss_dlle", "disomap": "loss_iso"}
    for ours, theirs in wanted.items():
        assert of_d[ours] == pytest.approx(float(golden[theirs]), rel=1e-4)
    assert of_d["entropy_weight"] * of_d["entropy"] == pytest.approx(float(golden["loss_ent_real"]), rel=1e-4)
    assert of_g["entropy_weight"] * of_g["entropy"] == pytest.approx(float(golden["loss_ent_gen"]), rel=1e-4)
    assert of_d["real"] == pytest.approx(float(golden["t_z"].mean()), rel=1e-4)
    assert of_d["fake"] == pytest.approx(float(golden["f_z"].mean()), rel=1e-4)


def _check_weights(nets: dict[str, torch.nn.Module], golden: dict[str, Tensor], lr: float) -> None:
    for name, letter in (("generator", "G"), ("discriminator", "D")):
        for key, tensor in nets[name].state_dict().items():
            wanted, gradient = golden[f"{letter}1.{key}"], golden.get(f"{letter}grad.{key}")
            if gradient is None:
                torch.testing.assert_close(tensor, wanted, rtol=1e-4, atol=1e-5)
            else:
                # Adam's first step is about the learning rate times the sign of the gradient.
                clear = gradient.abs() > 1e-6
                assert bool(((tensor - wanted).abs()[clear] < 0.02 * lr).all()), key
