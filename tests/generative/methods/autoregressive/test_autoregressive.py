from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn import functional as F

from generative.errors import ConfigError
from generative.method import DataFacts
from generative.methods.autoregressive.config import AutoregressiveConfig
from generative.methods.catalogue import METHODS
from generative.nets.transformer_config import TransformerConfig
from generative.randomness import Streams

NETWORK = TransformerConfig(layers=1, heads=2, width=16, ff_width=16, max_length=16, padding_multiple=8)


def built(vocab=12, length=6, **settings):
    method = METHODS["autoregressive"].build(
        AutoregressiveConfig(network=NETWORK, **settings), DataFacts(vocab, length)
    )
    torch.manual_seed(0)
    net = method.networks()["net"].build().double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(3.0)
    return method, {"net": net}


def test_loss_is_next_token_cross_entropy_of_valid_samples(make_batch, context):
    method, nets = built()
    batch = {**make_batch(size=4, length=6, vocab=12), "valid": torch.tensor([True, False, True, True])}
    (update,) = method.updates()
    loss, divisor = method.loss(update, nets, batch, context(4)), method.divisor(update, batch, context(4))
    tokens = batch["tokens"][batch["valid"]]
    logits = nets["net"](tokens[:, :-1])
    assert int(divisor) == 18
    expected = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum")
    torch.testing.assert_close(loss.value, expected)


def test_all_parameters_get_a_gradient_even_without_valid_samples(make_batch, context):
    method, nets = built()
    batch = {**make_batch(size=2, length=6, vocab=12), "valid": torch.zeros(2, dtype=torch.bool)}
    method.loss(method.updates()[0], nets, batch, context(2)).value.backward()
    assert all(p.grad is not None and not p.grad.any() for p in nets["net"].parameters())


def test_likelihood_is_a_normalised_distribution(make_batch):
    """Over all continuations of a first token, the probabilities (padding of the vocabulary included) sum to 1."""
    method, nets = built(vocab=8, length=3)
    every = torch.tensor([[5, *rest] for rest in itertools.product(range(8), repeat=3)])
    figure = method.likelihood(nets)
    nats = figure.nats(make_batch(every), Streams(0))
    assert nats.dtype == torch.float64
    assert float((-nats).exp().sum()) == pytest.approx(1.0, rel=1e-9)


def test_samples_follow_the_likelihood(make_batch):
    method, nets = built(vocab=8, length=3)
    n = 4000
    prompt = torch.full((n, 1), 5)
    tokens = method.sampler(nets)({"sample_id": torch.arange(n), "prompt": prompt}, Streams(0))
    every = torch.tensor([[5, *rest] for rest in itertools.product(range(8), repeat=2)])
    probability = (-method.likelihood(nets).nats(make_batch(every), Streams(0))).exp()
    codes = tokens[:, 1] * 8 + tokens[:, 2]
    share = codes.bincount(minlength=64) / n
    assert float((share - probability).abs().max()) < 4 * 0.5 / n**0.5


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_samples_do_not_depend_on_the_batch(temperature):
    method, nets = built(sampling={"temperature": temperature})
    ids, prompt = torch.tensor([7, 1, 30]), torch.tensor([[1, 2], [3, 4], [5, 6]])
    whole = method.sampler(nets)({"sample_id": ids, "prompt": prompt}, Streams(0))
    assert whole.shape == (3, 6)
    assert torch.equal(whole[:, :2], prompt)
    for i in range(3):
        alone = method.sampler(nets)({"sample_id": ids[i, None], "prompt": prompt[i, None]}, Streams(0))
        assert torch.equal(alone[0], whole[i])


def test_without_a_prompt_tokens_of_the_vocabulary_come_out():
    method, nets = built()
    tokens = method.sampler(nets)({"sample_id": torch.arange(40)}, Streams(0))
    assert tokens.shape == (40, 6)
    assert int(tokens.max()) < 12
    assert len(set(tokens[:, 0].tolist())) > 5


def test_too_long_a_prompt_is_refused():
    method, nets = built()
    with pytest.raises(ConfigError, match="prompt of 7 tokens"):
        method.sampler(nets)({"sample_id": torch.arange(1), "prompt": torch.zeros(1, 7, dtype=torch.int64)}, Streams(0))


def test_documents_of_a_window_are_learned_apart(make_batch, context):
    """The packed loss is the sum of those of the documents, each from its second token on."""
    method, nets = built(length=12)
    update = method.updates()[0]
    document = torch.tensor([[0] * 5 + [1] * 3 + [2] + [3] * 4, [0] * 13])
    batch = make_batch(size=2, length=12, vocab=12)
    packed = batch | {"document": document}
    apart = 0.0
    for row in range(2):
        for number in document[row].unique():
            tokens = batch["tokens"][row, document[row] == number][None]
            if tokens.shape[1] > 1:
                one = method.loss(update, nets, make_batch(tokens), context(1))
                apart += float(one.value.detach())
    found = method.loss(update, nets, packed, context(2)).value
    assert float(found.detach()) == pytest.approx(apart, rel=1e-12)
    figure = method.likelihood(nets)
    assert float(figure.nats(packed, Streams(0)).sum()) == pytest.approx(apart, rel=1e-12)
    assert figure.tokens(packed).tolist() == [9, 12]
    assert int(method.divisor(update, packed, context(2))) == 9 + 12
