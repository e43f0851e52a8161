from __future__ import annotations

import pytest

from evaluation.benchmarks import parallel
from evaluation.benchmarks.parallel import Settings
from evaluation.benchmarks.parallel_worker import Job


@pytest.mark.distributed
@pytest.mark.timeout(120)
def test_a_timed_group_and_one_of_another_size_tell_what_a_rank_holds(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setattr(parallel, "GOALS", {"fsdp": "<= 1.05"})
    settings = Settings(pairs=2, worlds=(1, parallel.TIMED), width=32, layers=1, length=16, batch_size=4)
    base = Job(
        "",
        0,
        settings.batch_size,
        settings.width,
        settings.layers,
        settings.length,
        str(tmp_path_factory.mktemp("text")),
        "",
    )
    timed = parallel.timings(settings, base)
    assert set(parallel.ratios(timed)) == {"fsdp_ratio"}
    table, shares = parallel.memory(settings, base, timed)
    assert [line.split()[:2] for line in table.splitlines()[1:]] == [["fsdp", "1"], ["fsdp", "2"]]
    # Two workers hold a half each of what is sharded.
    assert shares["fsdp_parameters_share"]["value"] == pytest.approx(0.5, abs=0.05)
    assert shares["fsdp_optimizer_share"]["value"] == pytest.approx(0.5, abs=0.05)
