"""Scaling laws: from runs of several sizes and budgets to a law, its uncertainty, and what it predicts.

Units throughout: N parameters, D tokens, C training FLOPs, losses in nats per token, natural logarithms.
"""
