"""Figures of a campaign's report, drawn also from half of the runs.

Each function returns a matplotlib figure; `rendered` turns it into SVG or PNG bytes. No display, no network.
"""
