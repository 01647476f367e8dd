"""bsread, the stream of SwissFEL: messages, sockets, files in its layout, and a simulator."""
