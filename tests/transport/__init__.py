"""Every way in and out keeps one contract."""
