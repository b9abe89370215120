"""What tests share: images, commands, a finished project, MLflow's store. They import it from conftest."""

import os
import signal

# A developer's stores and services are not a test's to write to.
FOREIGN = ("DVC_", "GIT_", "MLFLOW_", "PREFECT_", "CGAN_HOME", "CGAN_MLFLOW")
for name in [name for name in os.environ if name.startswith(FOREIGN)]:
    del os.environ[name]

# What a test starts reports its use to nobody.
os.environ |= dict.fromkeys(("DO_NOT_TRACK", "MLFLOW_DISABLE_TELEMETRY"), "true")
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
# MLflow closes connections after use: the garbage collector warns in whichever test runs when it finds one.
os.environ["MLFLOW_SQLALCHEMYSTORE_POOLCLASS"] = "NullPool"
# Tensors are tiny here: threads would only wait for one another, spinning beside other processes.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell starts jobs in the background with Ctrl-C ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
