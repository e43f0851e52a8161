"""Cells, grid and jobs: what budgets become, what their hash depends on, and what is refused."""

from __future__ import annotations

import pytest

from evaluation.scaling.flops import CONVENTIONS
from evaluation.scaling.rules import mup_rates, porian
from generative.errors import ConfigError
from generative.training.optimizers import learning_rate
from launch.campaign.costs import costs, makespan, plan_lines
from launch.campaign.opened import open_campaign


def cells(path, *overrides):
    return open_campaign(path, overrides).grid.cells


def test_steps_spend_the_budget(campaign_file):
    for cell in cells(campaign_file()):
        per_step = CONVENTIONS["six_n_head"](cell.shape) * 4 * 16
        assert cell.steps == round(cell.budget / per_step)
        assert cell.flops == pytest.approx(6 * cell.N * cell.tokens)
        assert abs(cell.flops / cell.budget - 1) <= 0.2


def test_hash_is_of_what_changes_results(campaign_file):
    path = campaign_file()
    first = [cell.hash for cell in cells(path)]
    assert len(set(first)) == 4
    same = [
        "launch.slots=2",
        "limit.flops=1e12",
        "plan.mfu=0.2",
        "set=[train.log_every=7, train.threads=1, launch.workers=1]",
    ]
    assert [cell.hash for cell in cells(path, *same)] == first
    for other in ("seeds=[1]", "set=[train.optimizer.lr=1e-3]", "set=[evaluate.windows=9]", "set=[data.stride=3]"):
        assert not {cell.hash for cell in cells(path, other)} & set(first), other


def test_more_budgets_leave_cells_as_they_are(campaign_file):
    path = campaign_file()
    few, more = cells(path), cells(path, "budgets=[2e7, 4e7, 8e7]")
    assert {cell.hash for cell in few} < {cell.hash for cell in more}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"budgets": [4e7, 4e7]}, "are the same run"),
        (
            {"extra": [{"family": "ar", "budget": 4e7, "size": {"layers": 1, "heads": 1, "width": 8}}]},
            "are the same run",
        ),
        ({"budgets": [1e4]}, "no cell of ar is left at the budget 1e4"),
        ({"limit": {"flops": 1e5}}, "is smaller than one cell"),
        ({"budgets": []}, "the family ar has no budgets"),
        ({"extra": [{"family": "br", "budget": 4e7, "size": "sizes/6m"}]}, "extra names the family 'br'"),
        ({"rule": {"name": "power"}}, "rule.name=power without N0"),
        ({"wsd": {"warmup_steps": 1000}}, "a warm-up of 1000 steps leaves nothing of its"),
        ({"families": {"gan": {"config": "mee_gan/quickstart"}}}, "has no likelihood"),
        ({"families": {"a/b": {"config": "RUN"}}}, "cannot name a folder"),
    ],
)
def test_bad_campaigns(campaign_file, changes, told):
    with pytest.raises(ConfigError) as error:
        open_campaign(campaign_file(**changes))
    assert told in str(error.value)
    assert error.value.expected
    assert error.value.remedy


def test_sizes_near_the_expected_best(campaign_file):
    path = campaign_file(near={"N": 5000, "at": 4e7, "exponent": 0.5, "factor": 2})
    for cell in cells(path):
        assert 0.5 <= cell.N / (5000 * (cell.budget / 4e7) ** 0.5) <= 2
    grid = open_campaign(path).grid
    assert (len(grid.cells), [why for _, why, _ in grid.left_out]) == (3, ["near"])


def test_a_family_may_expect_other_sizes_than_the_campaign(campaign_file):
    near = {"N": 500, "at": 4e7, "exponent": 0.5, "factor": 1e6}
    families = {"ar": {"config": "RUN"}, "own": {"config": "RUN", "set": ["train.optimizer.lr=1e-3"], "near": near}}
    path = campaign_file(families=families, near={"N": 5000, "at": 4e7, "exponent": 0.5, "factor": 2})
    counts = [cell.family for cell in cells(path)]
    assert (counts.count("ar"), counts.count("own")) == (3, 4)


def test_power_rule(campaign_file):
    rule = {"name": "power", "N0": 500.0, "lr_exponent": 0.5, "batch_exponent": 0.0}
    for cell in cells(campaign_file(rule=rule)):
        assert cell.run.train.optimizer.lr == pytest.approx(3e-3 * (cell.N / 500) ** -0.5)


def test_porians_rule_sets_all_that_it_says(campaign_file):
    """At small batches its second beta is higher than the usual one."""
    for cell in cells(campaign_file(rule={"name": "porian"}, budgets=[4e9], min_steps=1)):
        told = porian(cell.N)
        optimizer = cell.run.train.optimizer
        assert cell.run.train.batch_size == max(1, round(told.batch * 2048 / 16))
        assert (optimizer.lr, optimizer.betas) == (pytest.approx(told.learning_rate), (0.9, 0.99))


def test_trunk_serves_all_budgets_of_a_size(campaign_file):
    campaign = open_campaign(campaign_file(wsd={"decay": 0.25, "warmup_steps": 3}))
    trunks = [job for job in campaign.jobs if job.cell is None]
    branches = [job for job in campaign.jobs if job.cell is not None]
    assert len(branches) == 4
    assert len({job.folder for job in trunks}) == 2
    for job in branches:
        before = next(one for one in trunks if one.hash == job.after)
        assert before.steps == job.first == job.steps - max(1, round(0.25 * job.steps))
        assert job.folder in before.heirs
        schedule, lr = job.run.train.schedule, 1.0
        rates = [learning_rate(schedule, lr, step, job.steps) for step in range(job.steps + 1)]
        constant = [learning_rate(before.run.train.schedule, lr, step, before.steps) for step in range(job.first + 1)]
        assert rates[: job.first + 1] == pytest.approx(constant, abs=1e-12)
        assert rates[job.first + 1] < 1
        assert rates[job.steps] == pytest.approx(0, abs=1e-12)
    saved = sum(job.flops for job in campaign.jobs)
    assert saved < sum(cell.flops for cell in campaign.grid.cells)


def test_longest_first_and_after_what_they_wait_for(campaign_file):
    jobs = open_campaign(campaign_file(wsd={"decay": 0.25})).jobs
    each = {job.hash: job.flops for job in jobs}
    one, many = makespan(jobs, each, 1), makespan(jobs, each, 100)
    assert one == pytest.approx(sum(each.values()))
    by_hash = {job.hash: job for job in jobs}

    def chain(job):
        return job.flops + (chain(by_hash[job.after]) if job.after else 0.0)

    assert many == pytest.approx(max(map(chain, jobs)))


def test_the_plan_tells_workers_that_a_run_would_refuse(campaign_file):
    """The time is then that of so many devices a cell."""
    path = campaign_file()
    for workers, told in ((1, False), (4, True)):
        one = open_campaign(path, [f"set=[launch.workers={workers}]", "plan.machine=h100-80gb", "launch.slots=4"])
        told_costs = costs(one.config, one.grid, one.jobs)
        lines = plan_lines(one.config, one.grid, one.jobs, told_costs)
        on_ray = one.config.model_copy(update={"launch": one.config.launch.model_copy(update={"backend": "ray"})})
        assert ("4 cells at once, up to 4 workers each" in dict(lines)["time"]) == told
        assert any(label == "warning" and "launch.workers=4" in text for label, text in lines) == told
        assert not [label for label, _ in plan_lines(on_ray, one.grid, one.jobs, told_costs) if label == "warning"]


def test_cells_of_several_workers_share_the_cores(campaign_file, monkeypatch):
    for cores, workers, slots in ((8, 1, 8), (8, 4, 2), (3, 4, 1)):
        monkeypatch.setattr("launch.environment.cores", lambda cores=cores: cores)
        one = open_campaign(campaign_file(launch={"backend": "ray"}, set=[f"launch.workers={workers}"]))
        assert costs(one.config, one.grid, one.jobs).slots == slots


def test_the_papers_grid(campaign_file):
    """30 sizes at five budgets of both families: C = 6 N D within whole steps."""
    grid = open_campaign("campaign/smdm").grid
    assert len(grid.cells) == 300
    assert not grid.left_out
    one = next(cell for cell in grid.cells if cell.name == "mdm-1e19-170m-s3407")
    assert one.N == 169_897_728
    assert one.steps in (18_710, 18_711)
    assert sum(cell.flops for cell in grid.cells) == pytest.approx(
        2 * 30 * (6e18 + 1e19 + 3e19 + 6e19 + 1e20), rel=1e-3
    )


def test_mup_scales_rates_and_first_weights_by_width(campaign_file):
    rule = {"name": "mup", "base_width": 8}
    sizes = [{"layers": 1, "heads": 1, "width": 8}, {"layers": 1, "heads": 2, "width": 16}]
    for cell in cells(campaign_file(rule=rule, sizes=sizes)):
        run = cell.run
        assert (run.method.network.base_width, run.train.optimizer.lr) == (8, 3e-3)
        assert run.train.optimizer.rates == mup_rates(cell.shape.width, 8)
    wide = [{"layers": 1, "heads": 1, "width": 8}, {"layers": 1, "heads": 1, "width": 16}]
    with pytest.raises(ConfigError, match="heads of several widths: d8l1h1 has heads of 8, d16l1h1 has heads of 16"):
        cells(campaign_file(rule=rule, sizes=wide))
    with pytest.raises(ConfigError, match=r"mup with .*name=sgd"):
        cells(campaign_file(rule=rule, sizes=sizes, set=["train.optimizer.name=sgd"]))
    with pytest.raises(ConfigError, match="mup without base_width"):
        cells(campaign_file(rule={"name": "mup"}))


def test_ledgers_of_before_are_still_valid():
    """A hash of the campaign as it was run first: new settings must not be in it at their defaults (see LATER)."""
    (job,) = [job for job in open_campaign("campaign/mdm_vs_ar_tiny").jobs if job.name == "mdm-2.5e11-d8l2h2-s0"]
    assert job.hash == "36bbf6622540"
    networks = "families.mdm.set=[evaluate.draws=32,'train.networks={net: {optimizer: {lr: 1e-3}}}']"
    for settings in ([], [networks]):
        keys = open_campaign("campaign/mdm_vs_ar_tiny", settings).grid.cells[0].settings
        assert not [key for key in keys if key.endswith((".base_width", ".rates"))]


def test_networks_that_are_not_counted_are_refused(campaign_file):
    """MDLM's blocks have other matrices and a time input."""
    with pytest.raises(ConfigError, match=r"nobody counts method.network.family=mdlm"):
        cells(campaign_file(set=["method.name=masked_diffusion", "method.network.family=mdlm"]))
