"""The first stream -> PacketBatches: capture files and standard input."""
