"""Malformed inputs, tried on the command line: see `launch.robustness_bench`."""
