"""The kernel side of any mount: the FUSE protocol engine and how to mount; knows no repository."""
