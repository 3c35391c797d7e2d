"""Every wire and file format of CernVM-FS: bytes to frozen values and back.

Pure: no IO, no clock.
"""
