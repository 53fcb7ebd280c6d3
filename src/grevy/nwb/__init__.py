"""Reading and writing NWB files: the only place that knows pynwb, hdmf and h5py."""
