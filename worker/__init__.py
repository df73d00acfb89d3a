"""Where the model is warm: lifecycle, fetch, decode, batching, engine, models, export."""

import os

# ONNX Runtime on Linux reports its use to its vendor (seen with 1.32), and leaves an identifier and a session file
# behind, unless this is set before they are imported. What people classify is nobody's business but theirs.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
