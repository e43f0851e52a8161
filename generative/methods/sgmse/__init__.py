"""SGMSE: speech enhancement by score models and Schroedinger bridges."""
