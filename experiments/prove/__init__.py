"""The proof on the embedded world: what TTD changes, measured over seeds beside the controls that keep it honest."""
