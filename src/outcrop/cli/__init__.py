"""The command line: one module per command; alone may print, prompt and exit."""
