"""What methods without data share: selection, spectra and elementwise arithmetic of task vectors."""
