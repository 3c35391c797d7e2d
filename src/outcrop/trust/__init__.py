"""Who may sign what: the chain master key, whitelist, certificate, manifest. Pure."""
