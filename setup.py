"""The two C extensions; everything else is in pyproject.toml."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "outcrop.formats._cuts",
            sources=["src/outcrop/formats/_cuts.c"],
            extra_compile_args=["-O3", "-fwrapv", "-Wall", "-Wextra"],
        ),
        Extension(
            "outcrop.fuse._engine",
            sources=[
                "src/outcrop/fuse/_engine.c",
                "src/outcrop/fuse/csrc/extents.c",
                "src/outcrop/fuse/csrc/notify.c",
                "src/outcrop/fuse/csrc/requests.c",
                "src/outcrop/fuse/csrc/tree.c",
                "src/outcrop/fuse/csrc/workers.c",
            ],
            depends=["src/outcrop/fuse/csrc/engine.h"],
            extra_compile_args=["-O2", "-Wall", "-Wextra", "-pthread"],
            extra_link_args=["-pthread"],
        ),
    ]
)
