#!/bin/sh
# Make the stubs of proto/ again: make proto
#
#   scripts/stubs.sh [FOLDER]   by default deployments/ingress/rpc/stubs
#
# The files keep their place under proto/ as their name, which is what reflection tells and other languages import; in
# Python they live inside the ingress, so the one import of ours in them is rewritten.
set -eu
cd "$(dirname "$0")/.."

out=${1:-deployments/ingress/rpc/stubs}
package=deployments.ingress.rpc.stubs
python=${BIN:-.venv/bin}/python
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

common=$("$python" -c 'import google.rpc, pathlib; print(pathlib.Path(list(google.rpc.__path__)[0]).parents[1])')
"$python" -m grpc_tools.protoc -I proto -I "$common" --python_out="$work" --pyi_out="$work" --grpc_python_out="$work" \
    chroma/v1/speech_service.proto

mkdir -p "$out"
for file in "$work"/chroma/v1/*; do
    sed "s/^from chroma\.v1 import/from $package import/" "$file" >"$out/$(basename "$file")"
done
