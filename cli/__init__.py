"""The `boundsmith` command line."""
