#!/bin/sh
# Regenerate requirements/cpu.lock and requirements/gpu.lock: make lock
#
# Pins that still fit are kept; `make lock LOCK_ARGS=--upgrade` (or `--upgrade-package NAME`) moves them.
# The locks serve Python 3.11 and 3.12 on Linux x86-64, so both versions must resolve to the same pins.
set -eu
cd "$(dirname "$0")/.."

work=build/lock
python=.venv/bin/python
mkdir -p "$work"
"$python" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet uv==0.13.9

compile() { # compile KIND PYTHON_VERSION OUT [UV_ARGS...]
    kind=$1 version=$2 out=$3
    shift 3
    "$work/venv/bin/uv" pip compile "requirements/$kind.in" --output-file "$out" --quiet \
        --python-version "$version" --python-platform x86_64-manylinux_2_31 \
        --no-emit-package chroma-serve --no-annotate --custom-compile-command "make lock" "$@"
}

lock() { # lock KIND [UV_ARGS...]: the file under build/ carries the pins to keep
    kind=$1
    shift
    echo "resolving requirements/$kind.lock"
    cp "$work/$kind.seed" "$work/$kind-3.12.lock"
    mv "$work/$kind.seed" "$work/$kind-3.11.lock"
    compile "$kind" 3.11 "$work/$kind-3.11.lock" "$@" ${LOCK_ARGS:-}
    compile "$kind" 3.12 "$work/$kind-3.12.lock" "$@" ${LOCK_ARGS:-}
    if ! diff "$work/$kind-3.11.lock" "$work/$kind-3.12.lock"; then
        echo "Python 3.11 and 3.12 need different pins: narrow requirements/$kind.in" >&2
        exit 1
    fi
    cp "$work/$kind-3.11.lock" "requirements/$kind.lock"
}

cp requirements/cpu.lock "$work/cpu.seed"
lock cpu --overrides requirements/cpu.overrides --excludes requirements/cpu.excludes

# What both locks hold has the CPU lock's version wherever that fits, so that tests run what GPUs run.
{
    grep '==' requirements/cpu.lock
    grep '==' requirements/gpu.lock | while read -r pin; do
        grep -q "^${pin%%==*}==" requirements/cpu.lock || echo "$pin"
    done
} >"$work/gpu.seed"
lock gpu
