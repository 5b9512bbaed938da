#!/bin/bash
# Makes base images out of Debian packages, for machines that cannot pull any:
#
#   base.sh [busybox] [python] [prometheus]     all three without arguments
#
# Each is tagged skep-test/<name> and kept: to make one again, `docker rmi skep-test/<name>` first.
# Packages come from wherever this machine's own apt gets them. Needs Debian or a relative of it; python needs root.
set -euo pipefail

work=$(mktemp -d)
# One file system: what debootstrap has mounted inside is not ours to delete, should it be interrupted.
trap 'rm -rf --one-file-system "$work"' EXIT

# Installs a package that the work on an image needs, unless the program it brings is there.
need() { # program, package
    command -v "$1" >/dev/null && return
    [ "$(id -u)" = 0 ] || { echo "base.sh: $1 is missing: apt-get install $2" >&2; exit 1; }
    refresh
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$2" >/dev/null
}

# Brings apt's lists up to date, once a run: an old list names packages that its mirror no longer has.
refreshed=
refresh() {
    [ -n "$refreshed" ] || [ "$(id -u)" != 0 ] || apt-get update -qq
    refreshed=yes
}

# Users and folders that programs expect to find in any root.
furnish() { # root
    mkdir -p "$1/etc" "$1/root" "$1/home/app" "$1/tmp"
    chmod 1777 "$1/tmp"
    [ -f "$1/etc/passwd" ] || printf '%s\n' 'root:x:0:0:root:/root:/bin/sh' \
        'nobody:x:65534:65534:nobody:/nonexistent:/bin/false' >"$1/etc/passwd"
    [ -f "$1/etc/group" ] || printf '%s\n' 'root:x:0:' 'nogroup:x:65534:' >"$1/etc/group"
    echo 'app:x:1000:1000:app:/home/app:/bin/sh' >>"$1/etc/passwd"
    echo 'app:x:1000:' >>"$1/etc/group"
}

make_busybox() { # root
    need busybox busybox-static
    mkdir -p "$1/bin"
    cp "$(command -v busybox)" "$1/bin/busybox"
    busybox --list-full | while read -r applet; do
        mkdir -p "$1/${applet%/*}"
        [ -e "$1/$applet" ] || ln -s /bin/busybox "$1/$applet"
    done
    furnish "$1"
}

make_python() { # root
    need debootstrap debootstrap
    refresh
    local codename mirror proxy
    # shellcheck source=/dev/null
    codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
    # The mirror that apt has this release's main packages from.
    # shellcheck disable=SC2016  # apt fills it in, not the shell
    mirror=$(apt-get indextargets --format '$(REPO_URI)' \
        'Created-By: Packages' "Codename: $codename" 'Component: main' | head -n 1)
    # debootstrap knows nothing of apt's proxy settings.
    proxy=$(apt-config shell p Acquire::http::Proxy)
    proxy=${proxy#p=\'} proxy=${proxy%\'}
    [ -z "$proxy" ] || export http_proxy=$proxy
    if ! debootstrap --variant=minbase --include=python3 "$codename" "$1" "$mirror" >"$work/log" 2>&1; then
        tail -n 5 "$work/log" >&2
        exit 1
    fi
    rm -rf "$1"/var/cache/apt/* "$1"/var/lib/apt/lists/* "$1"/var/log/* "$1"/usr/share/{doc,info,locale,man}
    furnish "$1"
}

make_prometheus() { # root
    need ldd libc-bin
    refresh
    # Unpacked, not installed: the package would start a service here.
    # apt's own user may not write to our directory, so root downloads.
    (cd "$work" && apt-get download -qq -o APT::Sandbox::User=root prometheus && dpkg -x prometheus_*.deb unpacked)
    mkdir -p "$1/bin" "$1/etc/prometheus" "$1/prometheus"
    cp "$work/unpacked/usr/bin/prometheus" "$1/bin/"
    # The libraries it is linked with, where it looks for them; none if it is static.
    { ldd "$1/bin/prometheus" || true; } | grep -o '/[^ ]*' | while read -r library; do
        mkdir -p "$1/${library%/*}"
        cp -L "$library" "$1/$library"
    done
    furnish "$1"
    chown 65534:65534 "$1/prometheus"
}

[ $# -gt 0 ] || set -- busybox python prometheus
for name in "$@"; do
    case $name in
    busybox | python | prometheus) ;;
    *) echo "base.sh: no such image: $name (there are busybox, python, prometheus)" >&2; exit 2 ;;
    esac
    image=skep-test/$name
    docker image inspect "$image" >/dev/null 2>&1 && continue
    echo "base.sh: making $image ..."
    mkdir "$work/$name"
    # Whoever may not read a file of the root directory could read nothing in the image either.
    chmod 755 "$work/$name"
    "make_$name" "$work/$name"
    tar -C "$work/$name" --numeric-owner -c . |
        docker import --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
            --change 'CMD ["sh"]' - "$image" >/dev/null
    echo "base.sh: made $image in ${SECONDS} s"
done
