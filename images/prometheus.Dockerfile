# Prometheus with the stack's configuration.
#
#   docker build -f images/prometheus.Dockerfile -t skep/prometheus .
#
# Any image will do as a base that has /bin/prometheus and /prometheus writable by user 65534, as the public one does.
ARG BASE=prom/prometheus:v2.55.1
FROM ${BASE}
COPY images/prometheus.yml /etc/prometheus/prometheus.yml
USER 65534:65534
WORKDIR /prometheus
EXPOSE 9090
ENTRYPOINT ["/bin/prometheus"]
CMD ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]
