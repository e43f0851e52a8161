"""The only training loop, and what makes it distributed, resumable and observable."""
