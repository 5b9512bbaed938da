#!/bin/bash
# Builds the watchdog with musl instead of glibc, half as large in memory, into dist/fwatchdog-musl.
#
# usage: watchdog/build-musl.sh      (or make fwatchdog-musl)
#
# SKEP_MUSL=~/.cache/skep-musl                 where the Rust for it is kept, 850 MB
# SKEP_MUSL_RUST=1.96.0+dfsg1-1~deb12u2        its version: that of Debian's package rustc-web
#
# Rust's standard library for musl comes with rustup (`rustup target add`), from where not everybody can download. Debian
# has it as source, and the compiler of exactly that version; the two are unpacked, not installed. Needs Debian 12, cargo
# of about that version, and musl-gcc.
set -euo pipefail
cd "$(dirname "$0")/.."

version=${SKEP_MUSL_RUST:-1.96.0+dfsg1-1~deb12u2}
# Each version in a directory of its own: a new one starts afresh.
home=${SKEP_MUSL:-${XDG_CACHE_HOME:-$HOME/.cache}/skep-musl}/$version
target=$(uname -m)-unknown-linux-musl

say() { # sentence
    echo "build-musl: $1" >&2
}

die() { # sentence
    say "$1"
    exit 1
}

need() { # program, package
    command -v "$1" >/dev/null || die "$1 is missing: apt-get install $2"
}

# The packages with compiler and source, each with its version where it has to be that one.
packages() {
    local release=${version%%+*}
    local library=libstd-rust-web-${release%.*}
    printf '%s\n' "rustc-web=$version" "rust-web-src=$version" "libstd-rust-web-dev=$version" "$library=$version"
    # What the compiler makes machine code with; Debian names it by its own version.
    apt-cache show "$library=$version" 2>/dev/null | grep -oE 'libllvm[0-9]+' | head -n 1
}

download() { # directory
    local offered wanted
    mapfile -t wanted < <(packages)
    say "downloading ${wanted[*]}"
    # apt-get refuses what Debian has not signed.
    (cd "$1" && apt-get download -qq "${wanted[@]}") && return
    offered=$(apt-cache madison rustc-web 2>/dev/null | awk '{print $3}' | paste -sd ' ') || true
    die "Debian does not have this version (any more); apt-get update, or set SKEP_MUSL_RUST to one of: ${offered:-none}"
}

unpack() {
    local fresh package
    mkdir -p "${home%/*}"
    fresh=$(mktemp -d "$home.XXXXXX")
    # shellcheck disable=SC2064  # this directory, whatever the variable holds then
    trap "rm -rf '$fresh'" EXIT
    download "$fresh"
    for package in "$fresh"/*.deb; do
        say "unpacking ${package##*/}"
        dpkg -x "$package" "$fresh"
        rm "$package"
    done
    cat >"$fresh/rustc" <<'WRAPPER'
#!/bin/sh
here=$(dirname "$0")
for libraries in "$here"/usr/lib/*-linux-gnu; do export LD_LIBRARY_PATH="$libraries"; done
exec "$here/usr/bin/rustc" "$@"
WRAPPER
    chmod +x "$fresh/rustc"
    stub_unwinder "$fresh"
    # Only now is it there as a whole. Somebody else may have been as fast.
    mv -T "$fresh" "$home" 2>/dev/null || [ -x "$home/rustc" ] || die "cannot move $fresh to $home"
}

# The standard library asks for an unwinder, which there is none of for musl here. Nothing unwinds: a panic prints its
# message and aborts. What prints a backtrace, if asked, finds that it has no frames.
stub_unwinder() { # directory
    mkdir "$1/stub"
    cat >"$1/stub/unwind.c" <<'STUB'
int _Unwind_Backtrace(void *trace, void *argument) { return (void)trace, (void)argument, 5; }
unsigned long _Unwind_GetIP(void *context) { return (void)context, 0; }
STUB
    musl-gcc -Os -c -o "$1/stub/unwind.o" "$1/stub/unwind.c"
    ar cr "$1/stub/libunwind.a" "$1/stub/unwind.o"
}

need cargo cargo-web
need musl-gcc musl-tools
if [ ! -x "$home/rustc" ]; then
    need apt-get apt
    unpack
fi
target_dir=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/musl
say "building with $("$home/rustc" --version)"
# The options for an unfinished feature of cargo are what RUSTC_BOOTSTRAP allows. Not position-independent, as the other
# build, and because musl-gcc cannot link such a program statically.
flags="-C linker=musl-gcc -C link-self-contained=no -C target-feature=+crt-static -C relocation-model=static"
flags+=" -C link-arg=-Wl,--no-eh-frame-hdr,-T,$PWD/watchdog/no-unwinding.ld -L native=$home/stub"
RUSTC=$home/rustc RUSTC_BOOTSTRAP=1 RUSTFLAGS=$flags \
    cargo build --locked -p fwatchdog --profile watchdog -Zbuild-std=std,panic_abort -Zbuild-std-features= \
    --target "$target" --target-dir "$target_dir"
install -C -D "$target_dir/$target/watchdog/fwatchdog" dist/fwatchdog-musl
