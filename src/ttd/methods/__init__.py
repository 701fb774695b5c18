"""Methods that use more than the last block: one file each; `ttd.encoders.methods` has their interface."""
