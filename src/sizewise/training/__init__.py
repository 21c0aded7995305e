"""Lightning modules, loss, checkpoints and the fit of one job."""
