"""The `outcrop` command: one module per command; the only part that prints, prompts and exits."""
