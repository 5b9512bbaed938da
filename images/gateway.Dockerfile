# The gateway's image: one static program, from dist/ (`make build`).
#
#   docker build -f images/gateway.Dockerfile -t skep/gateway .
FROM scratch
COPY dist/skep /usr/bin/skep
# Runs as root, because that is who may open the Docker socket on a stock engine. Where a group may, say so:
# docker run --user 1000:<that group's id>. It writes nowhere but to its data directory.
EXPOSE 8080 8082
ENTRYPOINT ["/usr/bin/skep"]
