"""Metrics and reports: every metric is an estimate with its standard error, its count and its protocol."""
