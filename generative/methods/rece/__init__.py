"""Concept erasure in text-to-image models by closed forms: UCE (arXiv 2308.14761) and RECE (arXiv 2407.12383)."""
