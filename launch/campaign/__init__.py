"""Scaling-law campaigns: cells that vary size and budget, a ledger of what became of them, and what follows from it.

`schema` says what is asked for, `grid` and `jobs` what is to be run, `ledger` what happened. `driver` lets it happen,
in this process or by Ray workers that go from cell to cell; `results`, `report` and `prediction` tell what it means.
"""
