#!/bin/sh
# Lint proto/ with buf, offline but for its first run, which fetches buf from npm into build/: make protolint
#
# buf gets the files as protoc has read them, imports resolved from googleapis-common-protos, and looks at ours alone.
set -eu
cd "$(dirname "$0")/.."

version=1.75.0
python=${BIN:-.venv/bin}/python
home=build/buf-$version
buf=$home/node_modules/.bin/buf
if [ ! -x "$buf" ]; then
    mkdir -p "$home"
    npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$home" "@bufbuild/buf@$version"
fi

common=$("$python" -c 'import google.rpc, pathlib; print(pathlib.Path(list(google.rpc.__path__)[0]).parents[1])')
"$python" -m grpc_tools.protoc -I proto -I "$common" --include_imports --include_source_info \
    --descriptor_set_out="$home/image.binpb" chroma/v1/speech_service.proto
"$buf" lint "$home/image.binpb" --config proto/buf.yaml --path chroma/v1/speech_service.proto
