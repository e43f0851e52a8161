"""The command line, local and Ray runs, status."""
