"""The benchmark's own parts: what measures others is tested like anything else."""
