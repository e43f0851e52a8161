"""How well a concept was erased: prompt sets, detectors, and attacks that bring it back.

Shapes: B images [C, H, W] in [-1, 1] or latents, L tokens, width d, k free tokens, V words of a vocabulary.
"""
