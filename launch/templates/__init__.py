"""Jobs as text: what `generative submit` hands to Ray, Slurm, Kubernetes or torchrun."""
