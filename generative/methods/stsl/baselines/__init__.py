"""Other posterior samplers on the interface of STSL: DPS, LDPS, GML-DPS, PSLD, ReSample, DAPS, and a P2L-style one."""
