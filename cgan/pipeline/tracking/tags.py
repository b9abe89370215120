"""Tags of a run in MLflow that more than one module writes or reads. They stand in stores: a run of before a
change would not be found."""

RUN_KEY_TAG = "cgan.run_key"
# Of what determines the training: names the folder of its checkpoints.
FINGERPRINT_TAG = "cgan.fingerprint"
GENERATOR_SHA256_TAG = "cgan.generator_sha256"
QUALITY_TAG = "cgan.quality"  # how good its drawings are, in a sentence

DATA_TAG = "data"
SOURCE_TAG = "mlflow.source.name"  # the module that trained
COMMIT_TAG, DIRTY_TAG = "mlflow.source.git.commit", "git.dirty"
