# Gateway and watchdog built inside Docker, for people who have a registry to pull the Rust image from but no Rust:
#
#   docker build -f images/from-source.Dockerfile --target fwatchdog -t skep/fwatchdog .
#   docker build -f images/from-source.Dockerfile --target gateway -t skep/gateway .
#
# The project's tests build from dist/ instead and never run this file, because they must work without a registry.
ARG RUST=rust:1-bookworm
FROM ${RUST} AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY gateway gateway
COPY watchdog watchdog
# The same commands as `make build`. The target is named because static linking would break build scripts otherwise.
RUN export RUSTFLAGS="-C target-feature=+crt-static" TARGET="$(rustc -vV | sed -n 's/^host: //p')" && \
    cargo build --locked -p fwatchdog --profile watchdog --target "$TARGET" && \
    cargo build --locked -p skep --release --target "$TARGET" && \
    mkdir /dist && cp "target/$TARGET/watchdog/fwatchdog" "target/$TARGET/release/skep" /dist/

FROM scratch AS fwatchdog
COPY --from=build /dist/fwatchdog /fwatchdog
ENTRYPOINT ["/fwatchdog"]

FROM scratch AS gateway
COPY --from=build /dist/skep /usr/bin/skep
EXPOSE 8080 8082
ENTRYPOINT ["/usr/bin/skep"]
