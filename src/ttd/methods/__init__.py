"""Methods that look further than the last block: one file each, see `ttd.encoders.methods` for what they promise."""
