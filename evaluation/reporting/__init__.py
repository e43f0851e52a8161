"""The parts that a run's report is made of: reading the run folder, curves, charts, markup, sections."""
