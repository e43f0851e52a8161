"""Samplers: plain functions over a score or a denoiser, and what they share."""
