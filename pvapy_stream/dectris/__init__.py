"""DECTRIS Stream V2: messages and series. No I/O; the receiver is a transport."""
