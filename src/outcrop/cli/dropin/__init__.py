"""CernVM-FS's own server commands, as thin tables over what `outcrop` does."""
