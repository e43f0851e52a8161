"""Likelihoods and text as the harness asks for them, against the networks' own numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from evaluation.harness.jobs import Continue, Question, Rules, Whole
from evaluation.harness.scoring import answer, continued, cut, scored, text_nats
from evaluation.harness.suite import SuiteConfig, load_suite
from evaluation.harness.tokens import TextModel, split_pair
from generative.data.tokenizers import ByteTokenizer, CharacterTokenizer
from generative.errors import ConfigError, DataError
from generative.method import DataFacts
from generative.methods.catalogue import METHODS

LETTERS = CharacterTokenizer("abcdefg ")


def make(name, tokenizer=LETTERS, length=24, begin="bos", **method):
    entry = METHODS[name]
    network = {"layers": 2, "heads": 2, "width": 16, "ff_width": 32, "max_length": length, "padding_multiple": 4}
    section = {"name": name, "network": network, **method}
    built = entry.build(entry.config().model_validate(section), DataFacts(tokenizer.vocab_size, length))
    torch.manual_seed(0)
    nets = {"net": built.networks()["net"].build().double().eval()}
    for parameter in nets["net"].parameters():
        torch.nn.init.normal_(parameter, 0.0, 0.6)
    return TextModel(built, nets, tokenizer, torch.device("cpu"), begin)


@pytest.fixture
def masked():
    return make("masked_diffusion")


@pytest.fixture
def causal():
    return make("autoregressive")


def ids(text):
    return torch.from_numpy(LETTERS.encode(text))


def ask(*pairs, rules=Rules(), number=0):
    return Question("made", number, pairs, rules)


# ---------------------------------------------------------------------- tokens


def test_spaces_that_end_a_context_belong_to_the_continuation(masked):
    context, after = split_pair(masked, "abc  ", "de")
    assert context.tolist() == ids("abc").tolist()
    assert after.tolist() == ids("  de").tolist()


def test_what_stands_before_a_context():
    bytewise = make("masked_diffusion", ByteTokenizer())
    assert split_pair(bytewise, "a", "b")[0].tolist() == [256, 97]
    assert split_pair(replace(bytewise, begin="none"), "a", "b")[0].tolist() == [97]
    assert split_pair(replace(bytewise, begin="none"), "", "b")[0].tolist() == []
    causal = make("autoregressive", ByteTokenizer(), begin="none")
    assert split_pair(causal, "", "b")[0].tolist() == [256]


def test_what_does_not_fit_is_refused(masked, causal):
    with pytest.raises(ConfigError, match=r"25 tokens\nexpected: at most 24"):
        split_pair(masked, "a" * 20, "bcdef")
    with pytest.raises(DataError, match="adds no token"):
        split_pair(masked, "abc", "")
    with pytest.raises(ConfigError, match="an empty context"):
        split_pair(causal, "", "abc")
    with pytest.raises(DataError, match="'z' is not in the vocabulary"):
        split_pair(masked, "z", "a")
    other = replace(masked, tokenizer=ByteTokenizer())
    with pytest.raises(DataError, match="the token 98 of 'ab'; the network knows 8 tokens"):
        split_pair(other, "a", "b")
    masked.check_guidance(0.8)
    causal.check_guidance(None)
    with pytest.raises(ConfigError, match=r"guidance=0.8 with a model of autoregressive, which has no mask token"):
        causal.check_guidance(0.8)


# ---------------------------------------------------------------------- continuations


def by_hand(model, context, after, order):
    """Nats of tokens that are uncovered in an order, and what is the most probable at each."""
    canvas = torch.cat([ids(context), torch.full((len(after),), model.method.mask_id)])
    nats, truth = 0.0, ids(context + after)
    for place in order:
        at = len(context) + place
        logs = model.nets["net"](canvas[None], torch.tensor([at])).log_softmax(-1)[0]
        nats -= float(logs[truth[at]].detach())
        canvas[at] = truth[at]
    return nats


def test_a_causal_model_is_exact(causal):
    found = scored(causal, ask(("ab", "cde"), ("ab", "g")))
    tokens = ids("abcde")
    logs = causal.nets["net"](tokens[None, :-1], torch.arange(4)).log_softmax(-1)
    expected = logs[[1, 2, 3], tokens[2:]].sum()
    assert found.logs[0] == pytest.approx(expected.item(), abs=1e-5)
    assert found.stderrs == (0.0, 0.0)
    assert found.lead == pytest.approx(abs(found.logs[0] - found.logs[1]))
    assert not found.close


def test_the_chain_rule_goes_from_left_to_right(masked):
    found = scored(masked, ask(("ab", "cde"), ("ab", "gf"), rules=Rules("chain_rule")))
    assert found.logs == pytest.approx(
        (-by_hand(masked, "ab", "cde", range(3)), -by_hand(masked, "ab", "gf", range(2)))
    )
    assert found.stderrs == (0.0, 0.0)


@pytest.mark.parametrize("estimator", ["exact_count", "monte_carlo"])
def test_bounds_agree_with_the_mean_over_all_orders(masked, estimator):
    """The bound is the average over generation orders of the exact likelihood."""
    orders = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    expected = sum(by_hand(masked, "ab", "cde", order) for order in orders) / 6
    rules = Rules(estimator, draws=4096, replicates=64)
    found = scored(masked, ask(("ab", "cde"), ("ab", "cdf"), rules=rules))
    assert found.stderrs[0] > 0
    assert abs(-found.logs[0] - expected) < 4 * found.stderrs[0]


def test_one_token_is_scored_exactly_whatever_is_asked(masked):
    pairs = (("ab", "c"), ("ab", "d"))
    for estimator in ("exact_count", "monte_carlo", "chain_rule"):
        found = scored(masked, ask(*pairs, rules=Rules(estimator, 8, 2)))
        assert found.logs == pytest.approx((-by_hand(masked, "ab", "c", [0]), -by_hand(masked, "ab", "d", [0])))
        assert found.stderrs == (0.0, 0.0)


def test_options_share_their_noise_and_answers_depend_on_nothing_else(masked):
    rules = Rules("monte_carlo", 16, 4)
    found = scored(masked, ask(("ab", "cde"), ("ab", "cde"), ("ab", "gfa"), rules=rules, number=5))
    assert found.logs[0] == found.logs[1]
    twins = scored(masked, ask(("ab", "cde"), ("ab", "cde"), rules=rules, number=5))
    assert twins.lead == 0.0 == twins.lead_stderr
    assert scored(masked, ask(("ab", "gfa"), ("ab", "cde"), rules=rules, number=5)).logs == found.logs[2:0:-1]
    assert scored(masked, ask(("ab", "cde"), ("ab", "gfa"), rules=rules, number=6)).logs[0] != found.logs[0]


def test_contexts_may_differ_between_options(masked):
    found = scored(masked, ask(("ab", "cd"), ("g", "cd"), rules=Rules("chain_rule")))
    assert found.logs == pytest.approx((-by_hand(masked, "ab", "cd", range(2)), -by_hand(masked, "g", "cd", range(2))))


def most_confident_first(model, context, count):
    canvas = torch.cat([ids(context), torch.full((count,), model.method.mask_id)])
    for _ in range(count):
        places = (canvas == model.method.mask_id).nonzero()[:, 0]
        best = model.nets["net"](canvas[None], places).softmax(-1)[:, :8].max(-1)
        canvas[places[best.values.argmax()]] = best.indices[best.values.argmax()]
    return LETTERS.decode(canvas[len(context) :])


def test_greedy_continuations_are_known(masked, causal):
    written = most_confident_first(masked, "abc", 4)
    other = ("a" if written[0] != "a" else "b") + written[1:]
    assert scored(masked, ask(("abc", written))).greedy == (True,)
    assert scored(masked, ask(("abc", other))).greedy == (False,)
    text = continued(causal, Continue("made", 0, "abc", (), 4, 0.0, 0.0))
    assert scored(causal, ask(("abc", text))).greedy == (True,)
    assert scored(causal, ask(("abc", text[:-1] + ("a" if text[-1] != "a" else "b")))).greedy == (False,)


def test_guidance_hides_the_context(masked):
    """l_u + (1 + w)(l_c - l_u), with the context masked in l_u."""
    canvas = torch.cat([ids("ab"), torch.tensor([masked.method.mask_id])])
    hidden = torch.full((3,), masked.method.mask_id)
    with_context, without = (masked.nets["net"](rows[None], torch.tensor([2]))[0] for rows in (canvas, hidden))
    expected = (without + 1.7 * (with_context - without)).log_softmax(-1)[ids("c")[0]]
    found = scored(masked, ask(("ab", "c"), rules=Rules("chain_rule", guidance=0.7)))
    assert found.logs[0] == pytest.approx(float(expected), abs=1e-5)


# ---------------------------------------------------------------------- whole texts and new ones


def test_whole_texts_are_sums_over_windows():
    rules = Rules("chain_rule")
    masked = make("masked_diffusion", length=4)
    parts = [scored(masked, ask(("", part), rules=rules)).logs[0] for part in ("abcd", "efga", "b")]
    assert text_nats(masked, Whole("made", 0, "abcdefgab", rules)) == pytest.approx(-sum(parts))
    causal = make("autoregressive", length=4)
    parts = [scored(causal, ask(pair)).logs[0] for pair in (("a", "bcd"), ("d", "efga"), ("a", "b"))]
    assert text_nats(causal, Whole("made", 0, "abcdefgab", rules)) == pytest.approx(-sum(parts))
    assert text_nats(causal, Whole("made", 0, "", rules)) == 0.0


def test_text_ends_where_it_is_told_to(causal, masked):
    assert cut("one\ntwo. three", (".", "\n")) == "one"
    assert cut("one", ("", "x")) == "one"
    for model in (causal, masked):
        whole = continued(model, Continue("made", 3, "ab", (), 9, 1.0, 0.0))
        assert len(whole) == 9
        assert continued(model, Continue("made", 3, "ab", (whole[4],), 9, 1.0, 0.0)) == whole[: whole.index(whole[4])]
        assert continued(model, Continue("made", 4, "ab", (), 9, 1.0, 0.0)) != whole
        with pytest.raises(ConfigError, match="a prompt with 30 tokens to write has 32 tokens"):
            continued(model, Continue("made", 3, "ab", (), 30, 1.0, 0.0))
    assert len(continued(masked, Continue("made", 0, "", (), 4, 1.0, 0.0))) == 4
    with pytest.raises(ConfigError, match="an empty prompt"):
        continued(causal, Continue("made", 0, "", (), 4, 1.0, 0.0))


def test_an_end_of_text_ends_it():
    model = make("autoregressive", ByteTokenizer(), 12)
    head = model.nets["net"].head.weight.data
    head.zero_()  # all are equally probable, and greedy takes the first
    job = Continue("made", 0, "ab", (), 6, 0.0, 0.0)
    assert answer(model, job) == "\0" * 6
    head[256] = 1.0
    logits = model.nets["net"](torch.tensor([[256, 97, 98]]), torch.tensor([2]))[0]
    head[256] *= logits[256].sign()  # now the end of text is the most probable one
    assert answer(model, job) == ""


# ---------------------------------------------------------------------- suites


def test_no_guidance_is_heard_as_well_as_some():
    guided = make("masked_diffusion", sampling={"guidance": 3.0})
    plain = make("masked_diffusion")
    jobs = {scale: Continue("made", 0, "abcd", (), 16, 0.0, scale) for scale in (None, 0.0, 3.0)}
    assert continued(plain, jobs[3.0]) != continued(plain, jobs[None])
    assert continued(guided, jobs[None]) == continued(plain, jobs[3.0])
    assert continued(guided, jobs[0.0]) == continued(plain, jobs[None])
    own = SuiteConfig(tasks=[{"name": "a", "guidance": 0.5}, {"name": "b"}])
    assert [own.told_guidance(name) for name in "ab"] == [0.5, None]
    assert own.model_copy(update={"guidance": 0.0}).told_guidance("a") == 0.0


def test_the_papers_suite():
    suite = load_suite("paper-zero-shot")
    assert len(suite.tasks) == 8
    assert suite.rules("boolq") == Rules("chain_rule", 1024, 64, 1.6)
    assert suite.rules("hellaswag") == Rules("monte_carlo", 1024, 64, 0.7)
    alike = load_suite("paper-zero-shot", ["estimator=exact_count", "guidance=0", "draws=128", "replicates=8"])
    assert {alike.rules(task.name) for task in alike.tasks} == {Rules("exact_count", 128, 8, 0.0)}
    assert alike.rules("a part of a group") == Rules()
    assert all(task.published is None or 0 < task.published < 1 for task in suite.tasks)
    assert "not verified" in suite.published_by


def test_suites_that_are_not_valid(tmp_path):
    with pytest.raises(ConfigError, match="Did you mean suite/paper-zero-shot"):
        load_suite("paper-zero-shots")
    with pytest.raises(ConfigError, match="replicates=64 of draws=8"):
        load_suite("paper-zero-shot", ["draws=8"])
    file = tmp_path / "mine.yaml"
    file.write_text("tasks: [{name: one, metrc: acc}]\n")
    with pytest.raises(ConfigError, match="metrc"):
        load_suite(str(file))


@pytest.mark.parametrize("name", ["paper-zero-shot", "reverse-curse", "temporal-shift-made"])
def test_wrong_settings_are_named_as_they_are_given(name):
    with pytest.raises(
        ConfigError, match=r"^suite\.limit: -2 is not valid \(command line\)(.|\n)*correct suite\.limit$"
    ):
        load_suite(name, ["limit=-2"])
    with pytest.raises(ConfigError, match=r"^suite\.limits: unknown key(.|\n)*suite\.limit\?(.|\n)*schema suite`"):
        load_suite(name, ["limits=2"])
