import pytest
import torch

from evaluation.image_monitor import alarms, neighbourhood
from generative.errors import DataError
from generative.randomness import Streams


def normal(name, count=400, dims=4):
    return Streams(0).normal(name, torch.arange(count), (dims,))


def test_equal_distributions_give_what_is_expected_and_no_alarm():
    found = neighbourhood(normal("fake"), normal("real", 500))
    assert found.samples == 400
    assert found.expected_coverage == pytest.approx(1 - 2**-5, abs=0.01)
    assert found.coverage == pytest.approx(found.expected_coverage, abs=0.04)
    assert found.among_generated == pytest.approx(found.among_training, rel=0.1)
    assert found.to_training == pytest.approx(found.among_training, rel=0.1)
    assert max(found.near_duplicates, found.near_copies) < 0.1
    assert alarms(found) == []


def test_a_generator_that_repeats_itself():
    fake = normal("fake", 40).repeat(10, 1)
    found = neighbourhood(fake, normal("real"))
    assert found.near_duplicates == 1
    assert found.among_generated == 0
    told = "\n".join(alarms(found))
    assert "mode coverage" in told
    assert "100.0 % of 400 samples are nearly equal to another generated sample" in told


def test_a_generator_that_copies():
    real = normal("real")
    found = neighbourhood(real.flip(0), real)
    assert (found.near_copies, found.coverage, found.to_training) == (1, 1, 0)
    assert torch.equal(found.nearest, torch.arange(400).flip(0))
    (told,) = alarms(found)
    assert "nearly equal to a training sample" in told


def test_a_generator_that_leaves_out_modes():
    centres = 20 * torch.eye(4)
    real = normal("real") + centres[torch.arange(400) % 4]
    fake = normal("fake") + centres[0]
    found = neighbourhood(fake, real)
    assert found.coverage == pytest.approx(0.25, abs=0.02)
    told = alarms(found)
    assert told[0].startswith(f"mode coverage {found.coverage:.3f} of 400 samples, under 0.48")
    assert "to a training sample" not in "".join(told[1:])  # what it draws, it does not copy


@pytest.mark.parametrize(("count", "dims"), [(20, 4), (200, 2), (200, 16)])
def test_equal_distributions_raise_no_alarm_by_chance(count, dims):
    for i in range(20):
        assert alarms(neighbourhood(normal(f"fake{i}", count, dims), normal(f"real{i}", count, dims))) == []


def test_metrics_are_plain_numbers():
    values = neighbourhood(normal("fake", 30), normal("real", 30)).metrics()
    assert set(values) == {
        "to_training", "among_generated", "among_training", "near_duplicates", "near_copies", "coverage"
    }  # fmt: skip


def test_bad_features_are_refused():
    with pytest.raises(DataError, match="5 nearest neighbours among 4 samples"):
        neighbourhood(normal("fake", 4), normal("real"))
    with pytest.raises(DataError, match="not finite"):
        neighbourhood(normal("fake") * torch.nan, normal("real"))
