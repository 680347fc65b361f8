"""Prefixes of the names of networks' metrics (network_metrics.py)."""

FAMILIES = ('fad_', 'fd_', 'clap_', 'is_', 'ib_', 'kl_', 'fid_', 'fvd_', 'desync_')
