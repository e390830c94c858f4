# Sourced by the setup scripts: installs the Debian packages a client needs.
#
#   . ../lib/apt.sh
#   need_packages default-jdk-headless maven

need_packages() {
    local missing=() package
    for package in "$@"; do
        # Not by exit status: it is success too for packages that were removed but not purged.
        [ "$(dpkg-query -W -f='${Status}' "$package" 2>/dev/null)" = "install ok installed" ] || missing+=("$package")
    done
    if [ "${#missing[@]}" -eq 0 ]; then
        return 0
    fi

    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        if ! command -v sudo >/dev/null; then
            echo "missing Debian packages: ${missing[*]} (not root, and no sudo to install them)" >&2
            return 1
        fi
        as_root=(sudo)
    fi

    # Setup scripts of several clients may run at the same time, so wait for the lock instead of failing.
    local options=(-y --no-install-recommends -o DPkg::Lock::Timeout=300)
    local install=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install "${options[@]}" "${missing[@]}")
    # The package lists are absent on a fresh machine and may be stale on an old one; update only then.
    "${install[@]}" >&2 || {
        "${as_root[@]}" apt-get update -o DPkg::Lock::Timeout=300 >&2
        "${install[@]}" >&2
    }
}
