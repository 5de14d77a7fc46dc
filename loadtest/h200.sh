#!/usr/bin/env bash
# Everything that only a GPU can show, on a bare machine: see loadtest/h200.py for what that needs.
#
#     loadtest/h200.sh [ARGUMENTS...]        PYTHON names the interpreter
set -euo pipefail
cd "$(dirname "$0")/.."
exec "${PYTHON:-python3}" -m loadtest.h200 "$@"
