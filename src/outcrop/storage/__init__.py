"""Where objects live: one protocol, several stores, wrappers around them, and the client cache."""
