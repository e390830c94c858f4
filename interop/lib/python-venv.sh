# Sourced by the setup scripts of the Python clients, with the client's folder as working directory:
#
#   . ../lib/apt.sh
#   . ../lib/python-venv.sh
#   make_venv        # .build/venv with exactly what requirements.txt pins

make_venv() {
    local venv=.build/venv python=${1:-python3}
    need_packages python3 python3-venv

    # A virtual environment holds absolute paths and links to its interpreter, so the one at hand serves only if it
    # was made here, by the same interpreter, from the same requirements.
    local recipe
    recipe=$("$python" -c 'import sys; print(sys.version)' && pwd -P && cat requirements.txt)
    if [ -x "$venv/bin/python" ] && [ "$recipe" = "$(cat "$venv/recipe" 2>/dev/null)" ]; then
        return 0
    fi

    rm -rf "$venv"
    "$python" -m venv "$venv" >&2
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps -r requirements.txt >&2
    # --no-deps makes requirements.txt the whole truth; this is what notices a dependency that it forgets to pin.
    "$venv/bin/python" -m pip check --disable-pip-version-check >&2
    printf '%s\n' "$recipe" > "$venv/recipe"
}

# The source archive of a package, unpacked as .build/NAME-VERSION: for test suites, which are in no wheel.
fetch_source() {
    local name=$1 version=$2 sha256=$3
    if [ -f ".build/$name-$version/PKG-INFO" ]; then
        return 0
    fi
    rm -rf .build/download ".build/$name-$version"
    mkdir -p .build/download
    echo "$name==$version --hash=sha256:$sha256" > .build/download/requirements.txt
    .build/venv/bin/python -m pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: \
        --require-hashes --dest .build/download -r .build/download/requirements.txt >&2
    tar -xzf .build/download/"$name-$version".t*gz -C .build
}
