"""Who is champion: versions in MLflow's registry, the gate that decides, and its look at new data."""
