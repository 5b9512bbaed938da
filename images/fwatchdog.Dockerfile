# The watchdog alone, to be copied into functions' images (docs/writing-functions.md):
#
#   COPY --from=skep/fwatchdog /fwatchdog /usr/bin/fwatchdog
#
# Same place and entrypoint as the image that OpenFaaS templates copy theirs from, so a template needs only this image's name.
FROM scratch
COPY dist/fwatchdog /fwatchdog
ENTRYPOINT ["/fwatchdog"]
