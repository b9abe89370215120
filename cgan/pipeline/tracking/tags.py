"""Tags of a run in MLflow that more than one module writes or reads. They stand in stores: a run of before a
change would not be found."""

RUN_KEY_TAG = "cgan.run_key"
FINGERPRINT_TAG = (
    "cgan.fingerprint"  # of what determines the training: names the folder of its checkpoints
)
ENDED_BY_TAG = "cgan.ended_by"  # why a training did not finish
GENERATOR_SHA256_TAG = "cgan.generator_sha256"
MEASUREMENT_TAG = "cgan.measured_with"  # a hash of what else its numbers depend on

DATA_TAG, DATA_SHA256_TAG = "data", "cgan.csv_sha256"
SOURCE_TAG = "mlflow.source.name"  # the module that trained
COMMIT_TAG = "mlflow.source.git.commit"
DIRTY_TAG, CHANGED_FILES_TAG = "git.dirty", "git.changed_files"
