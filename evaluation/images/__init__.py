"""The parts of image evaluation: statistics that merge, metrics over them, and feature extractors.

`evaluation.image` is the front door. Shapes: N samples, D features, K classes, G groups that a jackknife leaves out.
"""
