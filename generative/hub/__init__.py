"""Trained networks in the layout of Hugging Face: a folder of safetensors, config.json, tokenizer and model card."""
