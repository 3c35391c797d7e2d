"""Objects, catalogs and history as one thing: open, look up, walk, edit, commit, check."""
