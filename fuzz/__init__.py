"""Fuzz targets: every parser against bytes nobody thought of. `make fuzz`, or `python -m fuzz`."""
