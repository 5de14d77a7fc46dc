#!/bin/sh
# Make .venv hold the project and everything it needs; a second run notices that nothing changed and ends at once.
#
#   PYTHON             the interpreter to build it with (3.11 or 3.12); by default python3, python3.12 or python3.11
#   CHROMA_LOCK        cpu or gpu; by default gpu where nvidia-smi finds one
#   CHROMA_TORCH_INDEX an index that holds CPU builds of torch (PyTorch's own, or a mirror), for machines without a GPU
#
# pip's own settings (PIP_INDEX_URL, PIP_CERT, ...) apply.
set -eu
cd "$(dirname "$0")/.."

venv=.venv
stamp=$venv/.chroma-installed # kind, Python and content hash of a finished install
begun=$venv/.chroma-begun     # there while an install runs, so also after one that was cut short
log=build/install.log

say() { printf 'install: %s\n' "$*"; }
fail() {
    printf 'install: %s\n' "$@" >&2
    exit 1
}

version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

# PYTHON if it is set, else what .venv was made with before, else the machine's own.
find_python() {
    before=$(sed -n 's/^executable = //p' "$venv/pyvenv.cfg" 2>/dev/null) || before=
    for candidate in ${PYTHON:-$before python3 python3.12 python3.11 python}; do
        case $(version_of "$candidate") in
        3.11 | 3.12)
            echo "$candidate"
            return
            ;;
        esac
    done
    found=$(version_of "${PYTHON:-python3}") || found=none
    fail "Python 3.11 or 3.12 is needed; ${PYTHON:-python3} is: ${found:-none}." \
        "Install one, or name it: make test PYTHON=/path/to/python3.11"
}

# Why pip stopped, in a sentence a newcomer can act on.
explain() {
    tail -n 15 "$log" >&2
    if grep -qiE 'name resolution|connection (refused|error|broken)|NewConnectionError|timed? ?out|ProxyError' "$log"; then
        fail "pip cannot reach a package index. Check the network, or set PIP_INDEX_URL (and PIP_CERT) to one you reach."
    elif grep -qiE 'SSLError|CERTIFICATE_VERIFY_FAILED' "$log"; then
        fail "pip does not trust the index's certificate. Set PIP_CERT to your certificate bundle."
    elif grep -qi 'no space left' "$log"; then
        fail "the disk is full: the CPU environment takes about 3 GB, the GPU one about 12 GB."
    elif grep -qiE 'No matching distribution|Could not find a version' "$log"; then
        fail "the index lacks a pinned version, or it was not reached. The whole log: $log"
    fi
    fail "pip failed. The whole log: $log"
}

# Run pip, all of its output to the log, and show how far it is: packages fetched, and large downloads by name.
pip_install() {
    : >"$log"
    rm -f build/pip-failed
    { "$venv/bin/python" -m pip install --disable-pip-version-check --progress-bar off "$@" 2>&1 || touch build/pip-failed; } |
        tee -a "$log" |
        awk -v total="$count" '
            /^ *Downloading .*\.whl \((1?[0-9][0-9][0-9]\.?[0-9]* MB|[3-9][0-9]\.?[0-9]* MB|[0-9.]+ GB)/ {
                large = $0; sub(/^ *Downloading /, "", large); sub(/^[^ ]*\//, "", large)
                print "install:   downloading " large; fflush()
            }
            /^ *(Downloading|Using cached) .*\.whl \(/ {
                fetched++
                if (fetched % 20 == 0) { printf "install:   %d of %d fetched\n", fetched, total; fflush() }
            }
            /^Installing collected packages/ && total > 1 { print "install:   unpacking, a minute or two"; fflush() }'
    [ ! -e build/pip-failed ] || explain
}

imports() { "$venv/bin/python" -c "import $1" >"$log" 2>&1; }

[ "$(uname -s) $(uname -m)" = "Linux x86_64" ] || fail "the locks hold packages for Linux on x86-64, not $(uname -sm)."

kind=${CHROMA_LOCK:-}
if [ -z "$kind" ]; then
    if nvidia-smi -L 2>/dev/null | grep -q '^GPU'; then kind=gpu; else kind=cpu; fi
fi
lock=requirements/$kind.lock
[ -f "$lock" ] || fail "CHROMA_LOCK is cpu or gpu, not '$kind'."
content=$({ cat "$lock" pyproject.toml scripts/install.sh && pwd; } | cksum | tr -d ' \n')

is_current() {
    [ -x "$venv/bin/python" ] && [ ! -e "$begun" ] && [ -f "$stamp" ] || return 1
    read -r old_kind old_version old_content <"$stamp"
    [ "$old_kind $old_content" = "$kind $content" ] || return 1
    [ -z "${PYTHON:-}" ] || [ "$(version_of "$PYTHON")" = "$old_version" ]
}
is_current && exit 0

mkdir -p build
if command -v flock >/dev/null; then # two makes at once: the second waits, then finds the work done
    exec 9>build/install.flock
    flock 9
    is_current && exit 0
fi

python=$(find_python)
version=$(version_of "$python")

# An install that was cut short, another Python or the other lock's vLLM cannot be mended in place.
if [ -e "$venv" ]; then
    if [ -e "$begun" ]; then
        reason="an install was cut short"
    elif [ "$(version_of "$venv/bin/python")" != "$version" ]; then # or it no longer runs
        reason="it holds another Python than $version"
    elif [ -f "$stamp" ] && [ "$(cut -d' ' -f1 "$stamp")" != "$kind" ]; then
        reason="it was made from the other lock"
    else
        reason=
    fi
    if [ -n "$reason" ]; then
        say "starting $venv anew: $reason"
        rm -rf "$venv"
    fi
fi

say "Python $version, $lock, into $venv: a few minutes the first time"
if [ ! -e "$venv" ]; then
    "$python" -m venv "$venv" >"$log" 2>&1 || {
        tail -n 5 "$log" >&2
        rm -rf "$venv"
        fail "$python cannot make a virtual environment." "On Debian and Ubuntu: apt install python$version-venv"
    }
fi
rm -f "$stamp"
touch "$begun"

count=1
say "1/4 pip"
pip_install --upgrade 'pip>=25'

torch=$(grep '^torch==' "$lock")
if [ "$kind" = cpu ] && [ -n "${CHROMA_TORCH_INDEX:-}" ]; then
    pip_install --no-deps --index-url "$CHROMA_TORCH_INDEX" "$torch"
fi

count=$(grep -c '==' "$lock")
say "2/4 the $count packages of $lock"
pip_install --no-deps -r "$lock"
count=1

say "3/4 chroma-serve itself"
pip_install --no-deps --no-build-isolation -e .

say "4/4 does it import?"
if ! imports torch; then
    # The default build of torch takes its CUDA libraries from packages that --no-deps left out.
    say "this build of torch came without its libraries: installing them"
    count=1
    pip_install --constraint "$lock" "$torch"
fi
for module in torch transformers ray.serve vllm soundfile av soxr; do
    imports "$module" && continue
    tail -n 5 "$log" >&2
    library=$(sed -n 's/.*ImportError: \(lib[^:]*\): cannot open shared object.*/\1/p' "$log" | head -n 1)
    [ -z "$library" ] || fail "$module needs the system library $library: install the package that holds it, then run this again."
    fail "$module does not import, see above."
done

rm -f "$begun"
echo "$kind $version $content" >"$stamp"
say "done"
