"""Measurement operators y = A x (+ noise): exact definitions, exact adjoints, pseudo-inverses where there are some."""
