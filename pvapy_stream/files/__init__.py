"""Data files: frames to HDF5/NeXus, a master over several files, verification and recovery."""
