"""What several tests use: a fake of the other side, one noun per file."""
