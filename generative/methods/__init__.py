"""One room a paper."""
