"""Text models in EleutherAI's lm-eval harness: what its tasks ask of a model, answered by masked and causal networks.

`jobs` are what can be asked, `tokens` cuts texts into context and continuation, `scoring` answers, `suite` says which
tasks with which settings. None of it imports the harness, an optional package; `launch.harness_lm` is the model there.
"""
