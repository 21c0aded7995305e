"""Named sweeps; Hydra finds them as the package ``sweeps``."""
