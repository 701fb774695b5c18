"""The proof on the synthetic scenes: what TTD changes, measured over seeds beside the controls that keep it honest."""
