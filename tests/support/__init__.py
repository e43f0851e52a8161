"""Small methods and helpers that several tests share."""
